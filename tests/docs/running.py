"""Run a page of the documentation as one session, in a folder of its own.

Blocks may use what the text around them takes for granted: `emend`, a `model` with its `tokenizer`
(that of `lab/gptneo`), `edits` and a `patch` of them, and the files that commands name.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.docs.blocks import ROOT, Block, command_lines

import emend
from emend import datasets
from emend.cli import run

MODEL = "lab/gptneo"
LANGUAGES = ("python", "bash")


@dataclass(frozen=True)
class World:
    """What blocks take for granted: made once, and left as it is."""

    model: Any
    tokenizer: Any
    edits: list[emend.Edit]
    patch: emend.Patch

    @classmethod
    def make(cls) -> World:
        """Load the model and make two edits."""
        model, tokenizer = emend.load(MODEL)
        edits = datasets.load("lab", limit=4, seed=7)
        patch = emend.edit(model, tokenizer, edits[:2], method="rome")
        return cls(model, tokenizer, edits, patch)

    def names(self) -> dict[str, Any]:
        """Return what Python blocks find defined."""
        return {
            "emend": emend,
            "time": time,
            "model": self.model,
            "tokenizer": self.tokenizer,
            "edit": self.edits[0],
            "edits": self.edits[:2],
            **dict.fromkeys(("more", "others", "new_edits"), self.edits[2:]),
            "patch": self.patch,
        }

    def write_files(self, folder: Path) -> None:
        """Write what command lines find in their folder."""
        (folder / "examples").symlink_to(ROOT / "examples")
        for name in ("edits", "monday"):
            emend.write_edits(folder / f"{name}.jsonl", self.edits[:2])
        for name in ("more", "new", "tuesday"):
            emend.write_edits(folder / f"{name}.jsonl", self.edits[2:])
        self.patch.save_pretrained(folder / "patch")


def run_page(blocks: list[Block], world: World, prepared: str = "") -> None:
    """Run the blocks of a page, in order.

    Args:
        blocks: Those that are to be run.
        world: What they take for granted.
        prepared: Python that makes what is special to the page.
    """
    names = world.names()
    world.write_files(Path.cwd())
    exec(compile(prepared, "prepared", "exec"), names)
    for block in blocks:
        begun = time.process_time()
        if block.language == "python":
            exec(compile(block.text, block.place, "exec"), names)
        else:
            _run_shell(block)
        if "EMEND_DOCS_TIMES" in os.environ:
            print(f"{block.place} {time.process_time() - begun:.1f} CPU s")  # noqa: T201


def _run_shell(block: Block) -> None:
    left_out: set[str] = set()
    for command, *words in command_lines(block):
        line = " ".join([command, *words])
        if found := [one for one in block.without if re.search(one, line)]:
            left_out.update(found)
            continue
        assert command == "emend", f"{block.place}: only emend is run here: mark the block"
        assert run(words) == 0, f"{block.place}: emend {' '.join(words)}"
    assert left_out == set(block.without), (
        f"{block.place}: its comment leaves out what is not there"
    )
