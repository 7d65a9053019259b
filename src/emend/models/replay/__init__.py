"""The partial forward: run part of a model again, exactly, for a change that reaches no more.

One recorded pass keeps what a model's blocks were called with; blocks are then called again for
fewer tokens, fewer rows or changed inputs. Tracing, keys, the value search, fine-tuning and
layerwise replay all run on it. No architecture is known by name: every replay is checked against
the pass that it came from.

    layout      how rows of different length are padded, and which columns are run again
    calls       one block's arguments and the key/value caches, cut to those columns and rows
    recording   the recorded pass, and the check of a replay against it
    capture     from one block up and one token on, for a change of a down-projection's output
"""

from __future__ import annotations

from emend.models.replay.calls import (
    BlockCall,
    CachePlace,
    KeysValues,
    PrefixCache,
    RecordingCache,
    Refused,
    Slot,
    cut,
    each_leaf,
    hidden_of,
    shared,
)
from emend.models.replay.capture import BlockCapture, adds_directly, capture_blocks
from emend.models.replay.layout import (
    ARRANGEMENTS,
    Arrange,
    Layout,
    Window,
    aligned,
    natural,
    padded_right,
    whole,
)
from emend.models.replay.recording import (
    FOREIGN,
    Recorder,
    Recording,
    Watch,
    agreement,
    agrees,
    cannot_replay,
    not_finite,
    run_layout,
    warn_uncached,
)

__all__ = [
    "ARRANGEMENTS",
    "FOREIGN",
    "Arrange",
    "BlockCall",
    "BlockCapture",
    "CachePlace",
    "KeysValues",
    "Layout",
    "PrefixCache",
    "Recorder",
    "Recording",
    "RecordingCache",
    "Refused",
    "Slot",
    "Watch",
    "Window",
    "adds_directly",
    "agreement",
    "agrees",
    "aligned",
    "cannot_replay",
    "capture_blocks",
    "cut",
    "each_leaf",
    "hidden_of",
    "natural",
    "not_finite",
    "padded_right",
    "run_layout",
    "shared",
    "warn_uncached",
    "whole",
]
