"""What the unedited model says of an edit's subject and of others like it, held in training.

Training on an edit's prompt and target alone finds the nearest way to the target: the words of
the prompt come to mean the target, whomever it is about, and what else the model states of the
subject goes the same way. So two things are held by KL(before || after): what the model itself
states of the subject, and how it goes on where the edit's prompt is about another subject. The
model names those itself: it continues a list that begins with the subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from emend._progress import progress
from emend.editing.rows import Row, whole_rows
from emend.editing.statements import own_statements
from emend.edits import Edit
from emend.models import ModelView, encode
from emend.models.replay import BlockCapture, capture_blocks, whole
from emend.models.sampling import sample

LIST = "1. {}\n2."
"""What the model continues by another subject of the same kind."""

NAME_TOKENS = 10
"""Tokens of such a name, at most."""

CANDIDATES = 3
"""Names sampled for each one that is wanted: some are no names, or the subject again."""

ROWS = 16
"""Rows in a batch."""

TOP = 20
"""Candidates of each sampled token."""


HELD = 4
"""Statements of each subject, and other subjects for each prompt, that are preserved by default."""


@dataclass(frozen=True)
class HeldBatch:
    """Some texts, captured at the first trained block, and what the unedited model says there.

    Attributes:
        capture: The blocks from the first trained one up, with all tokens.
        rows: (N,) int64, row of each token at which the next one is held.
        columns: (N,) int64, its position.
        hidden: (N, width), what leaves the last block of the unedited model there.
    """

    capture: BlockCapture
    rows: Tensor
    columns: Tensor
    hidden: Tensor

    def divergence(self, view: ModelView) -> Tensor:
        """Mean over tokens of KL(before || after) of the next token, in nats, a scalar."""
        after = view.logits(self._run()).log_softmax(-1)  # (N, vocabulary)
        with torch.no_grad():
            before = view.logits(self.hidden).log_softmax(-1)
        return F.kl_div(after, before, log_target=True, reduction="sum") / len(self.rows)

    def _run(self) -> Tensor:
        hidden = self.capture.run_blocks()  # (B, T, width)
        return hidden[self.rows.to(hidden.device), self.columns.to(hidden.device)]


def held_batches(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    layer: int,
    *,
    statements: int,
    others: int,
    seed: int = 0,
) -> list[HeldBatch]:
    """Let the unedited model say what is to be held, in batches of mixed rows.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        edits: What is edited.
        layer: The first block that changes; those below are run once.
        statements: Statements of each edit's subject, before those that name its object are left
            out.
        others: Other subjects for each edit's prompt, at most.
        seed: Of the sampled names and of the order of rows.
    """
    groups = own_statements(view, tokenizer, [[edit] for edit in edits], statements)
    rows = [row for group in groups for row in group]
    if others:
        for edit in progress(edits, "looking for other subjects"):
            rows += _about_others(view, tokenizer, edit, others, seed)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    parts = [order[first : first + ROWS] for first in range(0, len(rows), ROWS)]
    return [_batch(view, [rows[n] for n in part], layer) for part in parts]


def other_subjects(
    view: ModelView, tokenizer: Any, subject: str, count: int, seed: int = 0
) -> list[str]:
    """Let the model name other subjects: it continues a list whose first entry is this one.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        subject: The first entry.
        count: Names wanted; there may be fewer.
        seed: Of the sampling.

    Returns:
        Different names, in the order in which they were drawn.
    """
    start = encode(tokenizer, [LIST.format(subject)]).input_ids
    generator = torch.Generator().manual_seed(seed)
    rows = start.repeat(CANDIDATES * count, 1)
    length = rows.shape[1] + NAME_TOKENS
    drawn = sample(view.model, tokenizer, rows, length, generator, top=TOP)
    texts = tokenizer.batch_decode(drawn[:, start.shape[1] :], skip_special_tokens=True)
    names = dict.fromkeys(_name_of(text) for text in texts)
    return [name for name in names if _is_other(name, subject)][:count]


def _name_of(text: str) -> str:
    """The entry of the list, whole: one that has not ended yet is none."""
    entry, end, _ = text.replace("\ufffd", "").partition("\n")
    return entry.strip(" ,.;:*-") if end else ""


def _is_other(name: str, subject: str) -> bool:
    one, other = name.casefold(), subject.casefold()
    said = any(letter.isalpha() for letter in name) and not set("{}") & set(name)
    return said and one not in other and other not in one


def _about_others(view: ModelView, tokenizer: Any, edit: Edit, count: int, seed: int) -> list[Row]:
    """The edit's prompt with other subjects, from the subject's last token on."""
    names = other_subjects(view, tokenizer, edit.subject, count, seed)
    about = [Edit(edit.prompt, name, edit.target) for name in names]
    return whole_rows(tokenizer, about, edit.prompt) if about else []


def _batch(view: ModelView, rows: Sequence[Row], layer: int) -> HeldBatch:
    places = [(n, at) for n, row in enumerate(rows) for at in range(row.lookup, len(row.ids))]
    numbers, columns = (torch.tensor(each) for each in zip(*places, strict=True))
    ids = [row.ids for row in rows]
    capture = capture_blocks(view, ids, [0] * len(ids), layer, arrangements=(whole,))
    with torch.no_grad():
        hidden = capture.run_blocks()
        hidden = hidden[numbers.to(hidden.device), columns.to(hidden.device)].clone()
    return HeldBatch(capture, numbers, columns, hidden)
