"""Facts to trace: read from files, and put in tokens with their subject and answer found."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TypeAlias

from emend.datasets import read_edits
from emend.datasets.known1000 import read_known
from emend.errors import InvalidInput, SubjectNotFound
from emend.models import ensure_start, join_target, subject_tokens
from emend.models.forward import check_length
from emend.models.positions import prompt_tokens
from emend.models.view import ModelView

Question: TypeAlias = tuple[str, str, str | None]
"""A prompt, its subject, and the answer; None where any will do."""


def read_facts(path: str | os.PathLike[str]) -> list[Question]:
    """Read the questions of a file, in its order.

    Args:
        path: A file of edits (see `emend.read_edits`), or a JSON list of facts as Meng et al. 2022
            published the 1,209 that they traced: objects with a ``prompt`` that holds the
            ``subject``, and an ``attribute``.

    Returns:
        (prompt, subject, answer) each; of an edit without an original the answer is None.

    Raises:
        BrokenFile: Something in it cannot be used.
        InvalidInput: It is a directory, cannot be read, or has another suffix.
        MissingFile: There is no such file.
    """
    known = read_known(path)
    if known is not None:
        return [(fact.prompt, fact.subject, fact.attribute) for fact in known]
    return [(edit.prompt, edit.subject, edit.original) for edit in read_edits(path)]


@dataclass(frozen=True)
class Asked:
    """A prompt about a subject, in tokens.

    Attributes:
        prompt: The text.
        subject: The subject's name as written there.
        ids: Tokens of the prompt.
        words: Each token as text.
        first: The subject's first token.
        last: Its last token.
        answer: Number of the answer's first token; None for whatever the model says.
    """

    prompt: str
    subject: str
    ids: tuple[int, ...]
    words: tuple[str, ...]
    first: int
    last: int
    answer: int | None


def asked(view: ModelView, tokenizer: Any, prompt: str, subject: str, answer: str | None) -> Asked:
    """Put a subject in a prompt and find both in tokens.

    Args:
        view: The model.
        tokenizer: Its tokenizer, a fast one.
        prompt: With a ``{}`` where the subject goes, or with the subject in it.
        subject: The subject's name.
        answer: Its first token is asked about; None leaves it open.

    Raises:
        InvalidInput: No subject, several ``{}``, or more tokens than the model reads.
        SubjectNotFound: The subject is not in the prompt, or has no token there.
    """
    ensure_start(view.model, tokenizer)
    text, start = _filled(prompt, subject)
    text = text.rstrip(" ")
    ids, target = prompt_tokens(tokenizer, [text])[0], None
    if answer is not None:
        ids, tokens = join_target(tokenizer, text, answer)
        target = tokens[0]
    check_length(view.model, len(ids))
    first, last = subject_tokens(tokenizer, text, (start, start + len(subject.rstrip(" "))))
    words = tuple(str(tokenizer.decode([token])) for token in ids)
    return Asked(text, subject, tuple(ids), words, first, last, target)


def _filled(prompt: str, subject: str) -> tuple[str, int]:
    """Return the whole text, and where the subject begins in it."""
    if not subject.strip():
        raise InvalidInput("the subject is empty, expected a name that is in the prompt")
    places = prompt.count("{}")
    if places > 1:
        raise InvalidInput(f"the prompt {prompt!r} has {places} {{}}, expected one for the subject")
    if places == 1:
        return prompt.replace("{}", subject), prompt.index("{}")
    if subject not in prompt:
        raise SubjectNotFound(
            f"the subject {subject!r} is not in the prompt {prompt!r}, expected it there or a {{}} "
            "in its place: change the prompt"
        )
    return prompt, prompt.index(subject)
