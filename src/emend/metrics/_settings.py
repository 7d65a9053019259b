"""What a report says of how it came about: model, patches, versions, what the edits took."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from emend.patches import Patch, describe_base

if TYPE_CHECKING:
    from torch import nn

_PACKAGES = ("emend", "torch", "transformers", "tokenizers")


def settings_of(
    model: nn.Module, patches: Iterable[Patch], schedule: str, edits: int, batch_size: int
) -> dict[str, Any]:
    """Settings of a report; see :class:`~emend.metrics.Report`."""
    methods = {patch.method: dict(patch.config) for patch in patches if patch.method}
    return {
        "model": describe_base(model),
        "methods": methods,
        "schedule": schedule,
        "edits": edits,
        "batch_size": batch_size,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def joined_timing(timings: Sequence[Mapping[str, Any]], edits: int) -> dict[str, Any]:
    """The timing of several patches together.

    Seconds are added up, ``per_edit`` is their mean over the edits, memory is the peak. The
    precomputation is what the first patch found undone; later ones reuse it, so it is added.
    """
    known = [timing for timing in timings if timing]
    if not known:
        return {}
    joined: dict[str, Any] = {"edits": edits}
    for name in ("search", "precompute"):
        values = [timing[name] for timing in known if timing.get(name) is not None]
        if values:
            joined[name] = sum(values)
    per_edit = [
        (timing["per_edit"], timing.get("edits") or 1)
        for timing in known
        if timing.get("per_edit") is not None
    ]
    if per_edit:
        counted = sum(count for _, count in per_edit)
        joined["per_edit"] = sum(seconds * count for seconds, count in per_edit) / counted
    peaks = [timing["peak_memory_bytes"] for timing in known if timing.get("peak_memory_bytes")]
    if peaks:
        joined["peak_memory_bytes"] = max(peaks)
    return joined
