"""How facts are said to a model, and how much of what is said fits into what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emend.edits import Edit
from emend.edits.joining import sentence
from emend.errors import InvalidInput
from emend.models.forward import longest_text
from emend.models.positions import prompt_tokens

CHARACTERS_PER_TOKEN = 3
"""Where the tokenizer is not at hand, a token is taken to be so many characters: rather too few."""


def statement(edit: Edit) -> str:
    """The fact of an edit as a sentence."""
    return sentence(edit.text, edit.target)


@dataclass(frozen=True)
class FactLayout:
    """How a new fact and a prompt stand in the text.

    Attributes:
        fact_line: With `{}` for the fact.
        prompt_line: With `{}` for the prompt, at its end.
        separator: Between one block of facts and prompt and the next.

    Raises:
        InvalidInput: A line has not exactly one `{}`, or the prompt does not end its line.
    """

    fact_line: str
    prompt_line: str
    separator: str

    def __post_init__(self) -> None:
        for name in ("fact_line", "prompt_line"):
            if getattr(self, name).count("{}") != 1:
                raise InvalidInput(
                    f"{name} is {getattr(self, name)!r}, expected exactly one {{}}: "
                    "write {} where the text goes"
                )
        if not self.prompt_line.endswith("{}"):
            raise InvalidInput(
                f"prompt_line is {self.prompt_line!r}, expected {{}} at its end: the model goes on "
                "from there"
            )

    def block(self, facts: Sequence[str], prompt: str) -> str:
        """New facts, then a prompt that is to be gone on from."""
        lines = [self.fact_line.replace("{}", fact) for fact in facts]
        return "\n".join([*lines, self.prompt_line.replace("{}", prompt)])

    def answered(self, facts: Sequence[str], prompt: str, answer: str) -> str:
        """The same with its answer."""
        return sentence(self.block(facts, prompt), answer)


def fitted(
    blocks: Sequence[str], last: str, separator: str, room: int | None, tokenizer: Any
) -> tuple[str, int]:
    """Blocks and the last one as one text that fits; the first blocks are left out where not.

    Args:
        blocks: What may be left out, the most dispensable first.
        last: What must be there.
        separator: Between two blocks.
        room: Tokens that the text may have; None for any number.
        tokenizer: Counts them; None counts characters.

    Returns:
        The text, and how many blocks it has beside the last.
    """
    sizes = [count_tokens(tokenizer, block + separator) for block in blocks]
    left = None if room is None else room - count_tokens(tokenizer, last)
    kept = len(blocks)
    while kept and left is not None and sum(sizes[len(blocks) - kept :]) > left:
        kept -= 1
    return separator.join([*blocks[len(blocks) - kept :], last]), kept


def count_tokens(tokenizer: Any, text: str) -> int:
    """How many tokens a text has, or has at most where there is no tokenizer."""
    if tokenizer is None:
        return len(text) // CHARACTERS_PER_TOKEN + 1
    return len(prompt_tokens(tokenizer, [text])[0])


def room_of(model: Any, reserve: int) -> int | None:
    """Tokens that a prompt may have so that `reserve` more can follow; None for any number."""
    longest = longest_text(model)
    return None if longest is None else longest - reserve
