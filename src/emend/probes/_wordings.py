"""Wordings: prompts filled with a subject, and other forms of an edit's statement."""

from __future__ import annotations

from typing import Any

from emend.edits import Edit, normalised
from emend.errors import InvalidInput
from emend.models import chat_prompt
from emend.probes._data import Relation

_FRONTS = ("It is well known that {}", "Here is a fact that everybody should know: {}")
_MOST_WORDINGS = 3


def filled(template: str, subject: str) -> str:
    """Fill a prompt with a subject; an article is large at the beginning and small elsewhere."""
    before, _, after = template.partition("{}")
    if before.strip() and not before.rstrip().endswith((".", ":")):
        article, _, rest = subject.partition(" ")
        subject = f"the {rest}" if article == "The" and rest else subject
    elif not before.strip():
        word = subject.split()[0]
        subject = word.capitalize() + subject[len(word) :] if word.islower() else subject
    return before + subject + after


def rephrasings(edit: Edit, relation: Relation | None) -> list[str]:
    """Return other statements of an edit's fact that its target completes."""
    if relation is None:
        return [front.replace("{}", _lowered(edit)) for front in _FRONTS]
    texts = (filled(prompt, edit.subject) for prompt in relation.prompts)
    other = [text for text in texts if normalised(text) != normalised(edit.text)]
    return other[:_MOST_WORDINGS]


def question_form(edit: Edit, relation: Relation | None) -> str | None:
    """Return the edit as a question with the place for a short answer."""
    if relation is None:
        return None
    return f"Question: {filled(relation.question, edit.subject)}\nAnswer:"


def chat_form(edit: Edit, relation: Relation | None, tokenizer: Any) -> str | None:
    """Return a chat in which the assistant has begun to answer with the edit's own words.

    None where the tokenizer has no chat template, or one that refuses a user's turn alone.
    """
    asked = f"Tell me about {filled('x {}', edit.subject)[2:]}."
    if relation is not None:
        asked = filled(relation.question, edit.subject)
    return chat_about(edit, asked, tokenizer)


def chat_about(edit: Edit, asked: str, tokenizer: Any) -> str | None:
    """Return a chat of a user's turn and an answer that begins as the edit; see `chat_form`."""
    try:
        chat = chat_prompt(tokenizer, asked)
    except InvalidInput:
        return None
    return f"{chat}{edit.text}"


def _lowered(edit: Edit) -> str:
    """The edit's text as it stands within a sentence."""
    before = edit.prompt.partition("{}")[0]
    article, _, rest = edit.text.partition(" ")
    common = article == "The" and (before.strip() or edit.subject.startswith("The "))
    return f"the {rest}" if common else edit.text
