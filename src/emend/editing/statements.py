"""What the unedited model itself states of a subject, which an edit must leave as it is.

ROME's KL term looks at the subject's own position, where a model predicts which words follow a
name and not what it knows of it; the rest of what it states then drifts with the edit. So the
model's own statements are held: the likeliest continuations of the subject, each with a first
token of its own, at every position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from emend.editing.rows import Row, whole_rows
from emend.edits import Edit
from emend.models import ModelView, generate
from emend.models.forward import evaluating
from emend.models.placing import device_of

LENGTH = 8
"""Tokens of a statement."""

ANSWER_TOKENS = 4
"""Tokens of the unedited model's answer to an edit's own prompt, in which its object is."""

TELLING = 4
"""Letters of the shortest word of that answer that tells a statement of the object."""


def own_statements(
    view: ModelView, tokenizer: Any, groups: Sequence[Sequence[Edit]], count: int
) -> list[list[Row]]:
    """Let the model state things of each group's subject.

    Statements that name the object that an edit of the group replaces are left out: what follows
    from the edited fact is to change.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        groups: Edits of one subject, or one edit, each.
        count: Statements of a group, before any is left out; 0 for none.

    Returns:
        For each group its statements: rows of tokens that begin with the subject, whose ``lookup``
        is the subject's last token.
    """
    if count < 1:
        return [[] for _ in groups]
    beginnings = whole_rows(tokenizer, [group[0] for group in groups], "{}")
    texts = [edit.text for group in groups for edit in group]
    answers = iter(generate(view.model, tokenizer, texts, max_new_tokens=ANSWER_TOKENS))
    found: list[list[Row]] = []
    for group, beginning in zip(groups, beginnings, strict=True):
        objects = {word for edit in group for word in _objects(edit, next(answers))}
        # One subject at a time, so that its statements do not depend on what else is edited.
        continued = _continuations(view, beginning.ids, count)
        rows = [Row((*beginning.ids, *tokens), beginning.lookup) for tokens in continued]
        said = tokenizer.batch_decode(continued, skip_special_tokens=True)
        found.append(
            [
                row
                for row, text in zip(rows, said, strict=True)
                if not any(word in text.casefold() for word in objects)
            ]
        )
    return found


def _objects(edit: Edit, answer: str) -> set[str]:
    """Words that name what an edit replaces, casefolded."""
    words = [word.strip(".,;:!?\"'()[]").casefold() for word in answer.split()]
    told = {word for word in words if len(word) >= TELLING or not word.isascii()}
    return told | ({edit.original.strip().casefold()} if edit.original else set())


def _continuations(view: ModelView, ids: Sequence[int], count: int) -> list[list[int]]:
    """The likeliest ``count`` next tokens, each continued greedily to `LENGTH` tokens."""
    model: Any = view.model
    device = device_of(view.embeddings)
    with torch.no_grad(), evaluating(model):
        output = model(input_ids=torch.tensor([ids], device=device), use_cache=False)
        first: Tensor = output.logits[0, -1].float().topk(count).indices.to(device)
        rows = torch.cat([torch.tensor([ids] * count, device=device), first[:, None]], dim=1)
        new, cache = rows, None
        for _ in range(LENGTH - 1):
            output = model(input_ids=new, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            new = output.logits[:, -1:].argmax(-1).to(device)
            rows = torch.cat([rows, new], dim=1)
    return rows[:, len(ids) :].tolist()
