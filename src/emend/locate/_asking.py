"""What is traced: a prompt's tokens, where the subject stands in it, and the answer's token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emend.errors import InvalidInput, SubjectNotFound
from emend.models import ensure_start, join_target, subject_tokens
from emend.models.forward import check_length
from emend.models.positions import prompt_tokens
from emend.models.view import ModelView


@dataclass(frozen=True)
class Asked:
    """A prompt about a subject, in tokens.

    Attributes:
        prompt: The text.
        subject: The subject's name as it stands there.
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
    """The whole text, and where the subject begins in it."""
    if not subject.strip():
        raise InvalidInput("the subject is empty, expected a name that stands in the prompt")
    places = prompt.count("{}")
    if places > 1:
        raise InvalidInput(f"the prompt {prompt!r} has {places} {{}}, expected one for the subject")
    if places == 1:
        return prompt.replace("{}", subject), prompt.index("{}")
    if subject not in prompt:
        raise SubjectNotFound(
            f"the subject {subject!r} is not in the prompt {prompt!r}, expected it there or a {{}} "
            "in its place: mend the prompt"
        )
    return prompt, prompt.index(subject)
