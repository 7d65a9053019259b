"""What an evaluation found: records, and the summary made of them."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emend._brief import count_text
from emend._io import split_lines, write_json, write_json_lines
from emend.errors import BrokenFile, InvalidInput, MissingFile, first_line
from emend.metrics._asking import chosen
from emend.metrics._metric import Record
from emend.metrics._summary import by_language, summarize
from emend.patches import Patch, describe_base

if TYPE_CHECKING:
    from torch import nn

RECORDS = "records.jsonl"
SUMMARY = "summary.json"


@dataclass(frozen=True, repr=False)
class Report:
    """Records of an evaluation and their summary, all plain JSON-able data.

    Attributes:
        records: One dict per (edit, metric, probe): ``edit`` (id), ``language`` (None where it is
            not known), ``metric``, ``group``, ``schedule``, ``prompt``, ``answers``, ``rival``,
            ``text_before``, ``text_after`` and ``protocols``, which maps each protocol to its
            ``before`` and ``after``.
        metrics: Names of the measures that were taken.
        settings: What was evaluated and how: model, method, schedule, versions.
        timing: Seconds and bytes that the edits took: ``per_edit``, ``precompute``,
            ``search``, ``peak_memory_bytes``, ``edits``.
    """

    records: Sequence[Record]
    metrics: Sequence[str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        edits = count_text(len({record["edit"] for record in self.records}), "edit")
        measures = count_text(len(self.metrics), "measure")
        return f"Report: {edits}, {measures}, {count_text(len(self.records), 'record')}"

    @cached_property
    def summary(self) -> dict[str, dict[str, Any]]:
        """The values by measure.

        ``summary["reliability"]["after"]`` is by exact match; ``["protocols"]`` has every
        protocol, ``["groups"]`` every group, ``n`` counts edits that were asked. ``["headline"]``
        names the protocol of the first two, ``["unit"]`` what they are: shares from 0 to 1 or
        another unit (fluency: bits x 100). Values are None where nothing was asked. Where edits
        have a language, ``["languages"]`` has before, after and n of each ("und": not known).
        """
        result: dict[str, dict[str, Any]] = {}
        for metric in chosen(self.metrics):
            records = [record for record in self.records if record["metric"] == metric.name]
            if metric.summarize is not None:
                entry = metric.summarize(records, self.timing)
            else:
                entry = summarize(records, metric.headline, grouped=metric.grouped)
                entry |= by_language(records, metric.headline)
            if metric.unit == "share":
                entry = {"before": None, "after": None, "n": 0, "protocols": {}, **entry}
            result[metric.name] = {**entry, "headline": metric.headline, "unit": metric.unit}
        return result

    def save(self, directory: str | Path) -> Path:
        """Write ``records.jsonl`` and ``summary.json``, each whole or not at all.

        Returns:
            The directory.

        Raises:
            InvalidInput: The path is a file, or cannot be written.
        """
        directory = results_directory(directory)
        write_json_lines(directory / RECORDS, self.records)
        # Last, so that a summary is there only where its records are.
        write_json(directory / SUMMARY, self.to_dict())
        return directory

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the records."""
        return {
            "summary": self.summary,
            "metrics": list(self.metrics),
            "settings": dict(self.settings),
            "timing": dict(self.timing),
        }

    @classmethod
    def load(cls, directory: str | Path) -> Report:
        """Read what :meth:`save` wrote.

        Raises:
            MissingFile: A file is not there.
            BrokenFile: A file is not what :meth:`save` writes.
        """
        directory = Path(directory)
        for name in (RECORDS, SUMMARY):
            if not (directory / name).is_file():
                raise MissingFile(
                    f"{directory} has no {name}, so it holds no results: give the directory "
                    "that an evaluation wrote"
                )
        try:
            about = json.loads((directory / SUMMARY).read_text("utf-8"))
            lines = split_lines((directory / RECORDS).read_bytes().decode())
            records = [json.loads(line) for line in lines]
            return cls(records, about["metrics"], about["settings"], about["timing"])
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenFile(
                f"{directory} holds results that cannot be read "
                f"({type(error).__name__}: {first_line(error)}): evaluate again"
            ) from None


_PACKAGES = ("emend", "torch", "transformers", "tokenizers")


def results_directory(path: str | Path) -> Path:
    """Return the directory to write results to.

    Raises:
        InvalidInput: The path is a file.
    """
    directory = Path(path)
    if directory.exists() and not directory.is_dir():
        raise InvalidInput(f"{directory} is a file, expected a directory: give another path")
    return directory


def settings_of(
    model: nn.Module, patches: Iterable[Patch], schedule: str, edits: int, batch_size: int
) -> dict[str, Any]:
    """Collect the settings of a report; see :class:`~emend.metrics.Report`."""
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
    """Return versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def joined_timing(timings: Sequence[Mapping[str, Any]], edits: int) -> dict[str, Any]:
    """Join the timing of several patches.

    Seconds are added up, ``per_edit`` is their mean over the edits, memory is the peak. What was
    read from the cache of values has the seconds that it took when it was optimised. The
    precomputation is what the first patch found undone; later ones reuse it, so it is added.
    """
    known = [timing for timing in timings if timing]
    if not known:
        return {}
    joined: dict[str, Any] = {"edits": edits}
    for name in ("search", "precompute", "saved_cpu"):
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
