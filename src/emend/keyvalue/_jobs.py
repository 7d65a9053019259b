"""What is sought together: the rows of one edit, or of all edits of one subject."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from emend.edits import Edit
from emend.keyvalue.rows import Row, context_rows, subject_rows, whole_rows
from emend.models import ModelView, likeliest

SURE = 0.5
"""Probability from which on the model's next token is an answer worth keeping."""


@dataclass(frozen=True)
class Anchor:
    """Where something must stay as it was.

    Attributes:
        row: Row of the job.
        position: Position in that row whose next token's distribution is kept.
        is_essence: Whether it is the published one, at the subject, or one of ``preserve``.
    """

    row: int
    position: int
    is_essence: bool


@dataclass(frozen=True)
class Job:
    """One value to be sought.

    Attributes:
        edits: Numbers of the edits that it shall serve.
        name: What to call them in a message.
        rows: The contexts of all edits, C each, and the rows of the anchors.
        contexts: Number of rows whose targets are scored: C for each edit.
        anchors: Where something must stay as it was.
    """

    edits: tuple[int, ...]
    name: str
    rows: tuple[Row, ...]
    contexts: int
    anchors: tuple[Anchor, ...]

    @property
    def each(self) -> int:
        """Contexts of one edit, C."""
        return self.contexts // len(self.edits)


def make_jobs(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    templates: Sequence[str],
    preserve: Sequence[str] = (),
    *,
    share_subject: bool = False,
    share_rows: bool = True,
) -> list[Job]:
    """One job for each edit, or for each subject.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        edits: The edits.
        templates: Context templates.
        preserve: Further prompts, each with one "{}" for the subject, whose answers are kept.
        share_subject: Whether edits of one subject are one job.
        share_rows: Whether an anchor may be read from a context that begins with its tokens.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
    """
    contexts = context_rows(tokenizer, edits, templates)
    essences = subject_rows(tokenizer, edits)
    groups = _groups(edits, share_subject)
    kept = _preserved(view, tokenizer, [[edits[n] for n in group] for group in groups], preserve)
    jobs: list[Job] = []
    for group, preserved in zip(groups, kept, strict=True):
        rows = [row for number in group for row in contexts[number]]
        count, first = len(rows), group[0]
        anchors = [_essence(rows, essences[first], share_rows)]
        for row in preserved:
            rows.append(row)
            anchors.append(Anchor(len(rows) - 1, len(row.ids) - 1, is_essence=False))
        jobs.append(Job(group, edits[first].id, tuple(rows), count, tuple(anchors)))
    return jobs


def _preserved(
    view: ModelView, tokenizer: Any, groups: Sequence[Sequence[Edit]], patterns: Sequence[str]
) -> list[list[Row]]:
    """For each group the rows of the prompts that are to keep their answers.

    Prompts that the model has no sure answer to have nothing to keep, and one that it answers as
    it answers an edit's own prompt asks for what is to change.
    """
    firsts = [group[0] for group in groups]
    every = [whole_rows(tokenizer, firsts, pattern) for pattern in patterns]
    asked = [[pattern.replace("{}", edit.subject) for edit in firsts] for pattern in patterns]
    sure = [likeliest(view.model, tokenizer, texts) for texts in asked] if firsts else []
    own = [
        {token for token, _ in likeliest(view.model, tokenizer, [edit.text for edit in group])}
        if patterns
        else set[int]()
        for group in groups
    ]
    return [
        [
            rows[number]
            for rows, answers in zip(every, sure, strict=True)
            if answers[number][1] >= SURE and answers[number][0] not in own[number]
        ]
        for number in range(len(groups))
    ]


def _groups(edits: Sequence[Edit], share_subject: bool) -> list[tuple[int, ...]]:
    if not share_subject:
        return [(number,) for number in range(len(edits))]
    found: dict[str, list[int]] = {}
    for number, edit in enumerate(edits):
        found.setdefault(edit.subject, []).append(number)
    return [tuple(group) for group in found.values()]


def _essence(rows: list[Row], anchor: Row, share_rows: bool) -> Anchor:
    """The anchor is a row of its own, unless a context begins with the very same tokens."""
    for index, row in enumerate(rows):
        if share_rows and row.lookup == anchor.lookup and row.ids[: row.lookup + 1] == anchor.ids:
            return Anchor(index, row.lookup, is_essence=True)
    rows.append(anchor)
    return Anchor(len(rows) - 1, anchor.lookup, is_essence=True)


def chunks(jobs: Iterable[Job], size: int) -> list[list[Job]]:
    """Jobs to seek together: of about ``size`` edits, neighbours in length, so as to pad little."""
    ordered = sorted(jobs, key=lambda job: (len(job.edits), *_extent(job.rows[0])))
    found: list[list[Job]] = []
    held = size
    for job in ordered:
        if held + len(job.edits) > size:
            found.append([])
            held = 0
        found[-1].append(job)
        held += len(job.edits)
    return found


def _extent(row: Row) -> tuple[int, int]:
    """Tokens of a row from the subject's last on, and in all."""
    return len(row.ids) - row.lookup, len(row.ids)
