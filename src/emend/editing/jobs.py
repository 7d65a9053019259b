"""Group edits into optimisation problems: one per edit, or one per subject."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from emend.editing.preservation import own_statements
from emend.editing.rows import Row, context_rows, rephrase_rows, subject_rows, whole_rows
from emend.edits import Edit
from emend.models import ModelView
from emend.models.positions import pad_id, prompt_tokens
from emend.models.scoring import top1_of_rows

SURE = 0.5
"""Least probability of the model's next token for its answer to be preserved."""

ANSWER = 3
"""Tokens of such an answer that are preserved."""

TOKENS = 256
"""Most tokens, from the subjects' last on, run together: more gains nothing on a CPU."""


@dataclass(frozen=True)
class Anchor:
    """A position whose next-token distribution is preserved.

    Attributes:
        row: Row of the job.
        position: Position in that row.
        is_essence: Whether it is the published one, at the subject, or one of ``preserve``.
    """

    row: int
    position: int
    is_essence: bool


@dataclass(frozen=True)
class Job:
    """One value to optimise.

    Attributes:
        edits: Numbers of the edits that share the value.
        name: Their name in messages.
        rows: Contexts of all edits, C each, then rows of the anchors and rephrasings.
        contexts: Number of contexts: C for each edit.
        anchors: Positions that are preserved.
    """

    edits: tuple[int, ...]
    name: str
    rows: tuple[Row, ...]
    contexts: int
    anchors: tuple[Anchor, ...]

    @property
    def each(self) -> int:
        """C, the contexts of one edit."""
        return self.contexts // len(self.edits)

    @property
    def scored(self) -> int:
        """Number of rows whose targets are scored: the contexts and the rephrasings."""
        return sum(bool(row.targets) for row in self.rows)


def make_jobs(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    templates: Sequence[str],
    preserve: Sequence[str] = (),
    *,
    share_subject: bool = False,
    share_rows: bool = True,
    statements: int = 0,
    rephrasings: int = 0,
) -> list[Job]:
    """Make one job for each edit, or for each subject.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        edits: The edits.
        templates: Context templates.
        preserve: Further prompts, each with one "{}" for the subject, whose answers are preserved.
        share_subject: Whether edits of one subject are one job.
        share_rows: Whether an anchor may be read from a context that begins with its tokens.
        statements: Number of the model's own statements of the subject that are preserved.
        rephrasings: Most rephrase probes of an edit whose targets are scored too.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
    """
    contexts = context_rows(tokenizer, edits, templates)
    rephrased = rephrase_rows(tokenizer, edits, rephrasings)
    essences = subject_rows(tokenizer, edits)
    groups = subject_groups(edits, share_subject)
    grouped = [[edits[n] for n in group] for group in groups]
    answers = preserved_answers(view, tokenizer, grouped, preserve)
    stated = own_statements(view, tokenizer, grouped, statements)
    jobs: list[Job] = []
    for group, preserved, own in zip(groups, answers, stated, strict=True):
        rows = [row for number in group for row in contexts[number]]
        count, first = len(rows), group[0]
        anchors = [_essence(rows, essences[first], share_rows)]
        for each in preserved:
            row = each.row
            rows.append(row)
            places = range(len(row.ids) - len(each.answer), len(row.ids))
            anchors.extend(Anchor(len(rows) - 1, place, is_essence=False) for place in places)
        for row in own:
            rows.append(row)
            places = range(row.lookup, len(row.ids))
            anchors.extend(Anchor(len(rows) - 1, place, is_essence=False) for place in places)
        rows.extend(row for number in group for row in rephrased[number])
        jobs.append(Job(group, edits[first].id, tuple(rows), count, tuple(anchors)))
    return jobs


@dataclass(frozen=True)
class PreservedAnswer:
    """A prompt whose answer is preserved.

    Attributes:
        pattern: The prompt, with "{}" for the subject.
        prompt: Its tokens.
        answer: Tokens of the model's answer.
    """

    pattern: str
    prompt: Row
    answer: tuple[int, ...]

    @property
    def row(self) -> Row:
        """The prompt and the answer without its last token, as for a target."""
        return Row(self.prompt.ids + self.answer[:-1], self.prompt.lookup)


def preserved_answers(
    view: ModelView, tokenizer: Any, groups: Sequence[Sequence[Edit]], patterns: Sequence[str]
) -> list[list[PreservedAnswer]]:
    """Find for each group (edits of one subject, or one edit) the prompts to preserve.

    A prompt without a sure answer has nothing to preserve, and one that the model answers as it
    answers an edit's own prompt asks for the edited fact: both are left out.
    """
    found: list[list[PreservedAnswer]] = [[] for _ in groups]
    if not patterns:
        return found
    firsts = [group[0] for group in groups]
    rows = [row for pattern in patterns for row in whole_rows(tokenizer, firsts, pattern)]
    answers = _answers(view, tokenizer, [row.ids for row in rows], SURE)
    prompts = [edit.text for group in groups for edit in group]
    asked = [tuple(ids) for ids in prompt_tokens(tokenizer, prompts)]
    own = iter(_answers(view, tokenizer, asked, 0.0))
    changing = [[next(own) for _ in group] for group in groups]
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        group = number % len(groups)
        changes = any(own[: len(answer)] == answer for own in changing[group])
        if answer and not changes:
            pattern = patterns[number // len(groups)]
            found[group].append(PreservedAnswer(pattern, row, answer))
    return found


def _answers(
    view: ModelView, tokenizer: Any, rows: Sequence[tuple[int, ...]], least: float
) -> list[tuple[int, ...]]:
    """Generate greedily after each row, for as long as the probability is at least ``least``."""
    found: list[tuple[int, ...]] = [()] * len(rows)
    going = list(range(len(rows)))
    for _ in range(ANSWER):
        texts = [(*rows[number], *found[number]) for number in going]
        best = top1_of_rows(view.model, texts, pad_id(tokenizer))
        sure = [probability >= least for _, probability in best]
        for number, (token, _), goes_on in zip(going, best, sure, strict=True):
            if goes_on:
                found[number] += (token,)
        going = [number for number, goes_on in zip(going, sure, strict=True) if goes_on]
    return found


def subject_groups(edits: Sequence[Edit], share_subject: bool) -> list[tuple[int, ...]]:
    """Group the numbers of the edits by subject, in order of the first; or each edit alone."""
    if not share_subject:
        return [(number,) for number in range(len(edits))]
    found: dict[str, list[int]] = {}
    for number, edit in enumerate(edits):
        found.setdefault(edit.subject, []).append(number)
    return [tuple(group) for group in found.values()]


def _essence(rows: list[Row], anchor: Row, share_rows: bool) -> Anchor:
    """Add the anchor as a row of its own, unless a context begins with the same tokens."""
    for index, row in enumerate(rows):
        if share_rows and row.lookup == anchor.lookup and row.ids[: row.lookup + 1] == anchor.ids:
            return Anchor(index, row.lookup, is_essence=True)
    rows.append(anchor)
    return Anchor(len(rows) - 1, anchor.lookup, is_essence=True)


def chunks(jobs: Iterable[Job], size: int) -> list[list[Job]]:
    """Split jobs into chunks of similar length, to pad little.

    A chunk has about ``size`` edits, and fewer where the activations stored for the backward pass
    would be the peak of an edit's memory.
    """
    ordered = sorted(jobs, key=lambda job: (len(job.edits), *_extent(job.rows[0])))
    found: list[list[Job]] = []
    edits = tokens = 0
    for job in ordered:
        run = sum(_extent(row)[0] for row in job.rows)
        if not found or edits + len(job.edits) > size or tokens + run > TOKENS:
            found.append([])
            edits = tokens = 0
        found[-1].append(job)
        edits, tokens = edits + len(job.edits), tokens + run
    return found


def _extent(row: Row) -> tuple[int, int]:
    """Count the tokens of a row from the subject's last on, and in all."""
    return len(row.ids) - row.lookup, len(row.ids)
