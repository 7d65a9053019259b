from __future__ import annotations

import itertools

import pytest

from emend.editing.rows import TOKENS, pack, parts


def cost(groups, lengths, overhead):
    return sum(len(g) * max(lengths[n] for n in g) + overhead for g in groups)


def partitions(items):
    if not items:
        yield []
        return
    first, *rest = items
    for smaller in partitions(rest):
        yield [[first], *smaller]
        for index, group in enumerate(smaller):
            yield [*smaller[:index], [first, *group], *smaller[index + 1 :]]


@pytest.mark.parametrize("overhead", [0, 2, 5, 24])
@pytest.mark.parametrize("lengths", [[3, 1, 3, 7, 2], [5, 5, 5], [1, 9, 2, 8, 3, 9], [4]])
def test_no_partition_is_cheaper(lengths, overhead) -> None:
    groups = pack(lengths, overhead)
    assert sorted(itertools.chain(*groups)) == list(range(len(lengths)))
    best = min(cost(p, lengths, overhead) for p in partitions(list(range(len(lengths)))))
    assert cost(groups, lengths, overhead) == best


def test_order_is_kept_within_a_group() -> None:
    assert pack([2, 2, 2], 100) == [[0, 1, 2]]


def test_passes_are_bounded() -> None:
    lengths = [TOKENS // 3] * 10 + [TOKENS + 1] * 2 + [1] * 5
    found = parts(lengths)
    assert sorted(itertools.chain(*found)) == list(range(len(lengths)))
    assert all(len(p) == 1 or len(p) * max(lengths[n] for n in p) <= TOKENS for p in found)
    assert len(found) < len(lengths)
