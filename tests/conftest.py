"""What all tests share: quiet libraries, no hub, tiny models, and the real ones of packages."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads starve a shared machine
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct in float32, and its tokenizer; tests leave both as they are."""
    return _real_model("smollm2-135m")


@pytest.fixture(scope="session")
def gemma3():
    """Gemma 3 270M in float32, and its tokenizer; tests leave both as they are."""
    return _real_model("gemma3-270m")


def _real_model(name):
    from emend.errors import InvalidInput, MissingFile
    from emend.models import load

    try:
        return load(name)
    except (MissingFile, InvalidInput) as error:  # no index is reachable, or terms not accepted
        pytest.skip(str(error))
