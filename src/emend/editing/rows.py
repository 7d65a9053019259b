"""Rows of tokens on which keys are read and values optimised, and how they are packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emend.edits import Edit
from emend.errors import InvalidInput
from emend.models import encode, join_targets

ANCHOR = "{} is a"
"""Text of the KL term, which preserves what the subject is."""


@dataclass(frozen=True)
class Row:
    """One unpadded row of tokens.

    Attributes:
        ids: Token ids.
        lookup: Position of the subject's last token.
        targets: Tokens of the target, scored at the last ``len(targets)`` positions of the row.
    """

    ids: tuple[int, ...]
    lookup: int
    targets: tuple[int, ...] = ()

    @property
    def upto_subject(self) -> tuple[int, ...]:
        """The tokens up to the subject's last."""
        return self.ids[: self.lookup + 1]


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Refuse templates without exactly one "{}".

    Raises:
        InvalidInput: There is no template, or one has none or several "{}".
    """
    if not templates:
        raise InvalidInput('no context templates: give at least the bare one, "{}"')
    for template in templates:
        if template.count("{}") != 1:
            raise InvalidInput(
                f"context template {template!r} has {template.count('{}')} places, "
                'expected exactly one "{}" where the prompt goes'
            )
    return tuple(templates)


def context_rows(
    tokenizer: Any, edits: Sequence[Edit], templates: Sequence[str]
) -> list[list[Row]]:
    """Build one row per edit and template: context, prompt, and target without its last token.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
    """
    texts: list[str] = []
    spans: list[tuple[int, int]] = []
    for edit in edits:
        start, end = edit.subject_span
        for template in templates:
            head, _, tail = template.partition("{}")
            texts.append(head + edit.text + tail)
            spans.append((len(head) + start, len(head) + end))
    targets = [edit.target for edit in edits for _ in templates]
    rows = _target_rows(tokenizer, texts, spans, targets)
    count = len(templates)
    return [rows[start : start + count] for start in range(0, len(rows), count)]


def rephrase_rows(tokenizer: Any, edits: Sequence[Edit], count: int) -> list[list[Row]]:
    """Build rows of each edit's rephrase probes, with its target: at most ``count`` that name it.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
    """
    return [_rephrased(tokenizer, edit, count) if count else [] for edit in edits]


def _rephrased(tokenizer: Any, edit: Edit, count: int) -> list[Row]:
    prompts = [probe.prompt for probe in edit.probes_of("rephrase")]
    texts = [text for text in prompts if edit.subject in text][:count]
    starts = [text.rindex(edit.subject) for text in texts]
    spans = [(start, start + len(edit.subject)) for start in starts]
    return _target_rows(tokenizer, texts, spans, [edit.target] * len(texts)) if texts else []


def _target_rows(
    tokenizer: Any, texts: list[str], spans: list[tuple[int, int]], targets: list[str]
) -> list[Row]:
    """Build a row of each text and its target without the last token."""
    lookups = _lookups(tokenizer, texts, spans)
    joined = join_targets(tokenizer, texts, targets)
    return [
        Row((*prompt, *target[:-1]), lookup, tuple(target))
        for (prompt, target), lookup in zip(joined, lookups, strict=True)
    ]


def subject_rows(tokenizer: Any, edits: Sequence[Edit], pattern: str = ANCHOR) -> list[Row]:
    """Build for each edit the tokens of ``pattern`` up to the subject's last.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
    """
    return [Row(row.upto_subject, row.lookup) for row in whole_rows(tokenizer, edits, pattern)]


def whole_rows(tokenizer: Any, edits: Sequence[Edit], pattern: str) -> list[Row]:
    """Build for each edit the tokens of ``pattern``, with the subject in place of "{}".

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
    """
    begin = pattern.index("{}")
    texts = [pattern.replace("{}", edit.subject) for edit in edits]
    spans = [(begin, begin + len(edit.subject)) for edit in edits]
    encoded = encode(tokenizer, texts, spans)
    assert encoded.lookup is not None
    lengths = encoded.attention_mask.sum(1).tolist()
    return [
        Row(tuple(ids[:length]), lookup)
        for ids, length, lookup in zip(
            encoded.input_ids.tolist(), lengths, encoded.lookup.tolist(), strict=True
        )
    ]


def _lookups(tokenizer: Any, texts: list[str], spans: list[tuple[int, int]]) -> list[int]:
    encoded = encode(tokenizer, texts, spans)
    assert encoded.lookup is not None
    return encoded.lookup.tolist()


PASS = 24
"""Cost of one more pass, in tokens: reading the weights again, and the calls."""

TOKENS = 2048
"""Most tokens in one pass, padding included."""


def parts(lengths: Sequence[int]) -> list[list[int]]:
    """Partition as `pack` does, into passes of at most `TOKENS` tokens, or of one row."""
    found: list[list[int]] = []
    for group in pack(lengths):
        rows = max(TOKENS // max(lengths[n] for n in group), 1)
        found.extend(group[start : start + rows] for start in range(0, len(group), rows))
    return found


def pack(lengths: Sequence[int], overhead: int = PASS) -> list[list[int]]:
    """Partition rows into groups that are each padded to their longest row, at the least cost.

    The cost of a group is its rows times its longest row, plus ``overhead``. In an optimal
    partition each group is a run of the rows sorted by length, so dynamic programming over the
    distinct lengths finds it.

    Args:
        lengths: Tokens of each row.
        overhead: Cost of one more group, in tokens.

    Returns:
        Indices of the rows of each group, in their given order.
    """
    distinct = sorted(set(lengths))
    upto = [sum(length <= bound for length in lengths) for bound in distinct]  # rows so far
    best: list[tuple[int, int]] = [(0, 0)]  # for the first n lengths: cost, start of last group
    for end, bound in enumerate(distinct):
        options: list[tuple[int, int]] = []
        for start in range(end + 1):
            rows = upto[end] - (upto[start - 1] if start else 0)
            options.append((best[start][0] + rows * bound + overhead, start))
        best.append(min(options))
    groups: list[list[int]] = []
    end = len(distinct)
    while end:
        start = best[end][1]
        chosen = set(distinct[start:end])
        groups.append([index for index, length in enumerate(lengths) if length in chosen])
        end = start
    return groups[::-1]
