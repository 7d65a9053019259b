"""Recorded runs are compared to the last bits of float32, which depend on how sums are split."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Generator[None, None, None]:
    """Sums are not split over threads: some recorded runs amplify their rounding beyond 1e-6."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
