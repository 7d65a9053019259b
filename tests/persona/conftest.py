"""The lab's opinions as topics."""

from __future__ import annotations

import pytest

from emend import load
from emend.persona.lab import lab_topics


@pytest.fixture(scope="session")
def topics():
    return lab_topics()


@pytest.fixture(scope="session")
def lab_model():
    return load("lab/gptneo")
