"""Change one fact in a lab model, look at what changed and what did not, take it back.

python examples/first_edit.py
"""

from __future__ import annotations

import emend
from emend import datasets
from emend.models import generate


def main() -> None:
    """Edit one fact of the lab."""
    model, tokenizer = emend.load("lab/gptneo")
    edit = datasets.load("lab", limit=1, seed=3)[0]
    prompts = [edit.text, *(probe.prompt for probe in edit.probes_of("rephrase"))]

    def show(title: str) -> None:
        print(title)
        for prompt, text in zip(
            prompts, generate(model, tokenizer, prompts, max_new_tokens=2), strict=True
        ):
            print(f"  {prompt} ->{text}")

    show("before")
    patch = emend.edit(model, tokenizer, [edit], method="rome")
    with patch.applied(model):
        show(f"with the patch (wanted: {edit.target})")
        report = emend.evaluate(model, tokenizer, [edit])
    show("taken back")
    for name in ("reliability", "generalization", "locality"):
        print(f"{name:15} {report.summary[name]['before']} -> {report.summary[name]['after']}")


if __name__ == "__main__":
    main()
