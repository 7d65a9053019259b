"""Facts under version control: edits added, built, one reverted, one replaced, built again.

python examples/ledger.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import emend
from emend import Ledger, datasets
from emend.ledger import build
from emend.models import generate


def main() -> None:
    """Three facts of the lab; every build is a function of what is active."""
    model, tokenizer = emend.load("lab/gptneo")
    edits = datasets.load("lab", limit=3, seed=3)
    prompts = [edit.text for edit in edits]
    with tempfile.TemporaryDirectory() as directory:
        patch_directory = Path(directory, "patch")
        with Ledger.create(Path(directory, "facts.db")) as ledger:

            def show(title: str) -> None:
                built = build(ledger, model, tokenizer, directory=patch_directory)
                digest = built.build.patch_hash[:12]
                print(f"{title}: {built.solved} solved, {built.seconds:.1f} s, patch {digest}")
                with emend.load_patch(patch_directory).applied(model):
                    texts = generate(model, tokenizer, prompts, max_new_tokens=8, stop=".")
                for text, said in zip(prompts, texts, strict=True):
                    print(f"  {text} ->{said}")

            ledger.add(edits, author="me", reason="ticket 17")
            show("three edits")
            ledger.revert(edits[0].id, reason="the source was wrong")
            show("the first taken out")
            ledger.restore(edits[0].id)
            show("and brought back: the same patch")
            ledger.revert(*[edit.id for edit in edits])
            show("all taken out: the base model")
            for event in ledger.log(edits[0].id):
                print(f"{event.time[:19]} {event.what} {event.author} {event.reason}")


if __name__ == "__main__":
    main()
