"""What is sought together: the rows of one edit, or of all edits of one subject."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from emend.edits import Edit
from emend.keyvalue.rows import Row, context_rows, subject_rows, whole_rows


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
        tokenizer: The tokenizer.
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
    kept = [whole_rows(tokenizer, edits, pattern) for pattern in preserve]
    jobs: list[Job] = []
    for group in _groups(edits, share_subject):
        rows = [row for number in group for row in contexts[number]]
        count, first = len(rows), group[0]
        anchors = [_essence(rows, essences[first], share_rows)]
        for each in kept:
            rows.append(each[first])
            anchors.append(Anchor(len(rows) - 1, len(each[first].ids) - 1, is_essence=False))
        jobs.append(Job(group, edits[first].id, tuple(rows), count, tuple(anchors)))
    return jobs


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
