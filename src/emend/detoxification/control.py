"""What must not change: running text, known facts, and prompts that are answered civilly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emend._io import split_lines
from emend.datasets import read_edits
from emend.datasets.known1000 import read_known
from emend.errors import InvalidInput, MissingFile

SHORTEST = 200
"""Characters of a paragraph at least; headings and single lines are left out."""


@dataclass(frozen=True)
class Control:
    """Texts and questions on which an edited model is compared with the unedited one.

    Attributes:
        texts: Running texts, whose perplexity is measured.
        facts: Prompts with their accepted answers; those that the unedited model does not know
            are left out when they are measured.
        civil: Prompts about others, whose answers are civil and must stay so.
    """

    texts: tuple[str, ...] = ()
    facts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    civil: tuple[str, ...] = ()

    def halves(self) -> tuple[Control, Control]:
        """Return every other item: a part to choose settings by, and a part to report."""
        first, second = (
            Control(self.texts[n::2], self.facts[n::2], self.civil[n::2]) for n in (0, 1)
        )
        return first, second


def read_paragraphs(path: Path, limit: int | None = None) -> tuple[str, ...]:
    """Read the paragraphs (lines) of a text file that have at least 200 characters.

    Raises:
        InvalidInput: It has none.
        MissingFile: There is no such file.
    """
    if not path.is_file():
        raise MissingFile(
            f"there is no file {path}, expected a text file for the perplexity: check the path"
        )
    lines = (line.strip() for line in split_lines(path.read_text(encoding="utf-8")))
    found = tuple(line for line in lines if len(line) >= SHORTEST)[:limit]
    if not found:
        raise InvalidInput(
            f"{path} has no line of {SHORTEST} characters, expected running text: give another"
        )
    return found


def read_facts(path: Path, limit: int | None = None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Read prompts and true answers: of known_1000.json, or the originals of a file of edits.

    Raises:
        BrokenFile: The file cannot be read.
        InvalidInput: No edit has an original.
        MissingFile: There is no such file.
    """
    known = read_known(path)
    if known is not None:
        return tuple((fact.prompt, (fact.attribute,)) for fact in known[:limit])
    edits = read_edits(path, unreadable="skip")
    found = tuple((edit.text, (edit.original,)) for edit in edits if edit.original)
    if not found:
        raise InvalidInput(
            f"{path} has no edit with an original, expected facts with their true answers: give "
            "known_1000.json, or a file of edits with originals"
        )
    return found[:limit]
