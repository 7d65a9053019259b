"""Preserve what the unedited model states of an edit's subject and of others like it.

ROME's KL term looks at the subject's own position, where a model predicts which words follow a
name and not what it knows of it; other statements then drift with the edit. So the model's own
statements are preserved: the most probable continuations of the subject, each with another first
token, at every position.

Training on a prompt and target alone lets the prompt predict the target for any subject. So methods
that train also preserve, by KL(before || after), how the model continues the prompt with other
subjects. The model names those itself: it continues a list that begins with the subject.
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
from emend.edits import Edit
from emend.models import ModelView, encode, generate
from emend.models.forward import evaluating
from emend.models.placing import device_of
from emend.models.replay import BlockCapture, capture_blocks, whole
from emend.models.sampling import sample

LENGTH = 8
"""Tokens of a statement."""

ANSWER_TOKENS = 4
"""Tokens of the unedited model's answer to an edit's own prompt, which names its object."""

MARKING = 4
"""Least length of a word of that answer that marks a statement as naming the object."""


def own_statements(
    view: ModelView, tokenizer: Any, groups: Sequence[Sequence[Edit]], count: int
) -> list[list[Row]]:
    """Let the model make statements about each group's subject.

    Statements that name the object that an edit of the group replaces are left out: what follows
    from the edited fact has to change.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        groups: Groups of edits of one subject, or of one edit.
        count: Statements of a group, before any is left out; 0 for none.

    Returns:
        The statements of each group: rows of tokens that begin with the subject, whose ``lookup``
        is the subject's last token.
    """
    if count < 1:
        return [[] for _ in groups]
    beginnings = whole_rows(tokenizer, [group[0] for group in groups], "{}")
    prompts = [edit.text for group in groups for edit in group]
    answers = iter(generate(view.model, tokenizer, prompts, max_new_tokens=ANSWER_TOKENS))
    found: list[list[Row]] = []
    for group, beginning in zip(groups, beginnings, strict=True):
        objects = {word for edit in group for word in _objects(edit, next(answers))}
        # One subject at a time, so that its statements do not depend on what else is edited.
        continued = _continuations(view, beginning.ids, count)
        rows = [Row((*beginning.ids, *tokens), beginning.lookup) for tokens in continued]
        texts = tokenizer.batch_decode(continued, skip_special_tokens=True)
        found.append(
            [
                row
                for row, text in zip(rows, texts, strict=True)
                if not any(word in text.casefold() for word in objects)
            ]
        )
    return found


def _objects(edit: Edit, answer: str) -> set[str]:
    """Return the casefolded words that name what an edit replaces."""
    words = [word.strip(".,;:!?\"'()[]").casefold() for word in answer.split()]
    marking = {word for word in words if len(word) >= MARKING or not word.isascii()}
    return marking | ({edit.original.strip().casefold()} if edit.original else set())


def _continuations(view: ModelView, ids: Sequence[int], count: int) -> list[list[int]]:
    """Continue the ``count`` most probable next tokens greedily, each to `LENGTH` tokens."""
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


LIST = "1. {}\n2."
"""A list that the model continues with another subject of the same kind."""

NAME_TOKENS = 10
"""Most tokens of such a name."""

CANDIDATES = 3
"""Names sampled for each one needed: some are no names, or the subject again."""

ROWS = 16
"""Rows in a batch."""

TOP = 20
"""Candidates of each sampled token."""


PRESERVED = 4
"""Statements of each subject, and other subjects for each prompt, preserved by default."""


@dataclass(frozen=True)
class PreservedBatch:
    """Texts captured at the first trained layer, with the unedited model's hidden states.

    Attributes:
        capture: The layers from the first trained one up, with all tokens.
        rows: (N,) int64, row of each position whose next-token distribution is preserved.
        columns: (N,) int64, its column.
        hidden: (N, hidden_size), output there of the unedited model's last layer.
    """

    capture: BlockCapture
    rows: Tensor
    columns: Tensor
    hidden: Tensor

    def divergence(self, view: ModelView) -> Tensor:
        """Compute the mean KL(before || after) of the next token, in nats, a scalar."""
        after = view.logits(self._run()).log_softmax(-1)  # (N, vocabulary)
        with torch.no_grad():
            before = view.logits(self.hidden).log_softmax(-1)
        return F.kl_div(after, before, log_target=True, reduction="sum") / len(self.rows)

    def _run(self) -> Tensor:
        hidden = self.capture.run_blocks()  # (B, T, hidden_size)
        return hidden[self.rows.to(hidden.device), self.columns.to(hidden.device)]


def preserved_batches(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    layer: int,
    *,
    statements: int,
    others: int,
    seed: int = 0,
) -> list[PreservedBatch]:
    """Let the unedited model generate what is to be preserved, in batches of mixed rows.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        edits: The edits.
        layer: The first layer that changes; those below are run once.
        statements: Statements of each edit's subject, before those that name its object are left
            out.
        others: Most other subjects for each edit's prompt.
        seed: Seed of the sampled names and of the order of rows.
    """
    groups = own_statements(view, tokenizer, [[edit] for edit in edits], statements)
    rows = [row for group in groups for row in group]
    for edit in about_others(view, tokenizer, edits, others, seed):
        rows += whole_rows(tokenizer, [edit], edit.prompt)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    parts = [order[first : first + ROWS] for first in range(0, len(rows), ROWS)]
    return [preserved_batch(view, [rows[n] for n in part], layer) for part in parts]


def other_subjects(
    view: ModelView, tokenizer: Any, subject: str, count: int, seed: int = 0
) -> list[str]:
    """Let the model name other subjects: it continues a list whose first entry is this one.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        subject: The first entry.
        count: Number of names; there may be fewer.
        seed: Seed of the sampling.

    Returns:
        Different names, in the order of sampling.
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
    """Return the entry of the list; "" if it has not ended."""
    entry, end, _ = text.replace("\ufffd", "").partition("\n")
    return entry.strip(" ,.;:*-") if end else ""


def _is_other(name: str, subject: str) -> bool:
    one, other = name.casefold(), subject.casefold()
    is_name = any(letter.isalpha() for letter in name) and not set("{}") & set(name)
    return is_name and one not in other and other not in one


def about_others(
    view: ModelView, tokenizer: Any, edits: Sequence[Edit], count: int, seed: int = 0
) -> list[Edit]:
    """Put other subjects, named by the model, into each edit's prompt; the edits' own are left out.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        edits: The edits.
        count: Most other subjects for each.
        seed: Seed of the sampled names.

    Returns:
        Prompts that differ up to the subject's end, as edits whose targets mean nothing.
    """
    if count < 1:
        return []
    own = {edit.subject.casefold() for edit in edits}
    found: dict[str, Edit] = {}
    for edit in progress(edits, "finding other subjects"):
        for name in other_subjects(view, tokenizer, edit.subject, count, seed):
            if name.casefold() not in own:
                other = Edit(edit.prompt, name, edit.target)
                found.setdefault(other.text[: other.subject_span[1]], other)
    return list(found.values())


def preserved_batch(view: ModelView, rows: Sequence[Row], layer: int) -> PreservedBatch:
    """Capture rows whose next-token distributions are preserved from ``lookup`` to the end.

    Args:
        view: The unedited model.
        rows: At least one row of tokens.
        layer: The first layer that changes.
    """
    places = [(n, at) for n, row in enumerate(rows) for at in range(row.lookup, len(row.ids))]
    numbers, columns = (torch.tensor(each) for each in zip(*places, strict=True))
    ids = [row.ids for row in rows]
    capture = capture_blocks(view, ids, [0] * len(ids), layer, arrangements=(whole,))
    with torch.no_grad():
        hidden = capture.run_blocks()
        hidden = hidden[numbers.to(hidden.device), columns.to(hidden.device)].clone()
    return PreservedBatch(capture, numbers, columns, hidden)
