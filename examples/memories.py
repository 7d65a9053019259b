"""Keep edits beside the model: a codebook that grows, loses an edit, and is saved and loaded.

python examples/memories.py
"""

from __future__ import annotations

import tempfile

import emend
from emend import datasets
from emend.models import generate


def main() -> None:
    """Two edits of the lab in a codebook, then a third, then one out again."""
    model, tokenizer = emend.load("lab/qwen3")
    edits = datasets.load("lab", limit=3, seed=3)
    prompts = [edit.text for edit in edits]

    def show(title: str) -> None:
        print(title)
        texts = generate(model, tokenizer, prompts, max_new_tokens=8, stop=".")
        for edit, text in zip(edits, texts, strict=True):
            print(f"  {edit.text} ->{text}   (wanted: {edit.target})")

    show("before")
    patch = emend.edit(model, tokenizer, edits[:2], method="grace")
    patch = emend.edit(model, tokenizer, edits[2:], method="grace", previous=patch)
    with tempfile.TemporaryDirectory() as directory:
        patch = emend.load_patch(patch.save_pretrained(directory))
    with patch.applied(model):
        show("with all three")
    with patch.without(edits[0].id).applied(model):
        show("the first taken out again")


if __name__ == "__main__":
    main()
