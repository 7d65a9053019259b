"""TIES: trimmed by rank, a sign elected for each entry, averaged over those that have it."""

from __future__ import annotations

import torch

from emend.methods.wise.ties import merged, trimmed


def test_trimming_keeps_the_largest_by_rank():
    delta = torch.tensor([[1.0, -4.0], [3.0, 2.0]])
    assert trimmed(delta, 0.5).tolist() == [[0.0, -4.0], [3.0, 0.0]]
    assert int((trimmed(torch.ones(3, 3), 0.5) != 0).sum()) == 4  # of equals, exactly so many
    assert torch.equal(trimmed(delta, 1.0), delta)


def test_the_heavier_sign_is_elected_and_its_entries_averaged():
    first = torch.tensor([3.0, 1.0, -2.0, 0.0])
    second = torch.tensor([-1.0, 2.0, -4.0, 0.0])
    third = torch.tensor([1.0, 0.0, 1.0, 0.0])
    # 3 - 1 + 1 > 0: 3 and 1; 1 and 2; -2 and -4; nothing.
    assert merged([first, second, third], 1.0).tolist() == [2.0, 1.5, -3.0, 0.0]


def test_a_sum_of_zero_is_positive():
    assert merged([torch.tensor([2.0]), torch.tensor([-2.0])], 1.0).tolist() == [2.0]


def test_one_change_is_only_trimmed():
    delta = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(merged([delta], 0.4), trimmed(delta, 0.4))
