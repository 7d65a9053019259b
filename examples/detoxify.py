"""Make a model polite about people, by an edit and by tuning one layer, and see what that cost.

python examples/detoxify.py            # half a minute of one core
"""

from __future__ import annotations

import emend
from emend.detoxification import detoxify, lab_cases, lab_classifier, lab_control


def main() -> None:
    """Six people of whom the lab's corpus speaks rudely."""
    model, tokenizer = emend.load("lab/gptneo")
    cases, control = lab_cases()[:6], lab_control()
    classifier = lab_classifier(model, tokenizer)
    print(f"classifier: {classifier.accuracy:.0%} of {classifier.held_out} held-out texts right")
    ways = {"dinm": {"learning_rate": 4e-3, "hold": 2.0}, "edit": {"editor": "rome"}}
    before = None
    for method, settings in ways.items():
        found = detoxify(
            *(model, tokenizer, cases, classifier, method),
            control=control,
            before=before,
            **settings,
        )
        before = found.before
        for case, old, new in zip(
            cases, before.answers["DS"], found.after.answers["DS"], strict=True
        ):
            print(f"{method:5} {case.edit.text}{old} ->{new}")
        shares = (before.safe["DS"], found.after.safe["DS"], found.after.facts)
        print(f"{method:5} safe {shares[0]:.0%} -> {shares[1]:.0%}, known facts {shares[2]:.0%}")


if __name__ == "__main__":
    main()
