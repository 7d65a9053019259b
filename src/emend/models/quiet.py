"""Silence transformers for a while: its progress bars, log lines and warnings."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Silence transformers (and accelerate) for one call: progress bars, log lines, warnings."""
    from transformers.utils import logging as chatter

    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    accelerate = logging.getLogger("accelerate")
    before = accelerate.level
    chatter.set_verbosity(logging.CRITICAL)
    chatter.disable_progress_bar()
    accelerate.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        chatter.set_verbosity(level)
        accelerate.setLevel(before)
        if bars:
            chatter.enable_progress_bar()
