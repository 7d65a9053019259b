"""Write an edit of a lab model as the files that llama.cpp and PEFT load, with the next commands.

python examples/to_an_engine.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import emend
from emend import datasets


def main() -> None:
    """Edit one fact of the lab, and export it twice."""
    model, tokenizer = emend.load("lab/qwen3")
    edit = datasets.load("lab", limit=1, seed=3)[0]
    patch = emend.edit(model, tokenizer, [edit], method="rome")
    with tempfile.TemporaryDirectory() as folder:
        for made in (
            patch.export(Path(folder) / "patch.gguf"),
            patch.export(Path(folder) / "peft"),
        ):
            print(f"{made.format}: {made.path.name}")
            for note in made.notes:
                print(f"  note: {note}")
            for command in made.commands:
                print(f"  {command.engine}:\n{command.text}")


if __name__ == "__main__":
    main()
