"""Which rows to run together, so that little is padded and few passes are made."""

from __future__ import annotations

from collections.abc import Sequence

PASS = 24
"""What one more pass costs, in tokens: reading the weights once more, and the calls."""

TOKENS = 2048
"""Tokens, padding included, of what is run at once where much has to be run."""


def parts(lengths: Sequence[int]) -> list[list[int]]:
    """As `pack`, but in passes of at most `TOKENS` tokens each, or of one row."""
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
        lengths: Tokens to be run of each row.
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
