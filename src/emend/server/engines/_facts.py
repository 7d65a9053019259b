"""Ask an engine for the edited facts before anybody is answered by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from emend.edits import states_answer
from emend.errors import InvalidInput
from emend.models.positions import prompt_tokens, text_tokens
from emend.patches import Outcome, Patch

SLACK = 4
"""Tokens that are read beyond those of a target: engines may write it in others."""

Asking = Callable[[Sequence[tuple[list[int], int]]], Sequence[str]]
"""Gives the greedy continuations of prompts in token ids, each with its number of new tokens."""


def check_facts(engine: str, patch: Patch, tokenizer: Any, asking: Asking) -> None:
    """Check that an engine answers each edit that took when the patch was made.

    Args:
        engine: The engine's name.
        patch: The patch, with its outcomes.
        tokenizer: The tokenizer of the model that it was made for.
        asking: Asks the engine.

    Raises:
        InvalidInput: The engine answers something else; names the edit and the answer.
    """
    took = [one for one in patch.outcomes if one.took]
    if not took:
        return
    prompts = prompt_tokens(tokenizer, [one.text for one in took])
    targets = text_tokens(tokenizer, [one.target for one in took])
    lengths = [len(target) + SLACK for target in targets]
    answers = asking(list(zip(prompts, lengths, strict=True)))
    missed = [
        (one, answer)
        for one, answer in zip(took, answers, strict=True)
        if not states_answer(answer, [one.target])
    ]
    if missed:
        raise InvalidInput(_difference(engine, *missed[0], len(missed), len(took)))


def _difference(engine: str, one: Outcome, answer: str, missed: int, took: int) -> str:
    more = f" (and {missed - 1} more of {took} edits)" if missed > 1 else ""
    return (
        f"{engine} with the patch answers {one.text!r} by {answer.strip()!r}, expected "
        f"{one.target.strip()!r} as the model in transformers does (edit {one.edit}){more}: "
        "nothing is switched; try another method or a less quantised base"
    )
