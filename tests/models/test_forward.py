"""Batches of similar length."""

from __future__ import annotations

import pytest

from emend.errors import InvalidInput
from emend.models._forward import batches


def test_the_shortest_first_and_all_of_them():
    lengths = [5, 1, 9, 1, 30, 6]
    found = list(batches(lengths, 4))
    assert found == [[1, 3, 0, 5], [2, 4]]


def test_lengths_in_a_batch_stay_near():
    lengths = [5, 1, 9, 1, 30, 6]
    for batch in batches(lengths, 64, spread=4):
        chosen = [lengths[index] for index in batch]
        assert max(chosen) - min(chosen) <= 4
    assert [len(batch) for batch in batches(lengths, 64, spread=4)] == [3, 2, 1]


def test_bad_size_and_nothing():
    assert list(batches([], 4)) == []
    with pytest.raises(InvalidInput, match="batch_size"):
        list(batches([1], 0))
