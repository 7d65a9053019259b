"""What a benchmark asked and what was generated, as files for people and other programs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from emend._io import write_json_lines
from emend.bench.running import UNITS, read_result

SAMPLES = "samples"
"""The folder of a results folder that holds what was asked and generated, where logged."""


def log_samples(directory: str | Path, keys: Collection[str] | None = None) -> list[Path]:
    """Write what was asked and generated, a file for each model, method, dataset and schedule.

    A line is a record of `emend.metrics.Report`, or of a case of MQuAKE or RippleEdits or of
    realistic evaluation (`measure` names it), with its place.

    Args:
        directory: The results folder; the files are `samples/PLACE.jsonl`.
        keys: Of the units that are taken; None for all.

    Returns:
        The files.

    Raises:
        BrokenFile: A result cannot be read.
    """
    paths = sorted((Path(directory) / UNITS).glob("*.json"))
    results = [read_result(path) for path in paths if keys is None or path.stem in keys]
    places: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        unit = result["unit"]
        place = {name: unit[name] for name in ("model", "method", "dataset", "schedule")}
        measure = {"measure": unit["measure"]} if "measure" in unit else {}
        lines = places.setdefault(_file_name(place.values()), [])
        for kind in ("records", "cases", "realistic"):
            named = {"measure": kind} if kind == "realistic" else measure
            for one in result.get(kind, ()):
                lines.append({**place, **named, **one, "schedule": place["schedule"]})
    folder = Path(directory) / SAMPLES
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.jsonl" for name in places]
    for path, lines in zip(paths, places.values(), strict=True):
        write_json_lines(path, lines)
    return paths


def _file_name(parts: Iterable[str]) -> str:
    """Make a file name of parts; what is no letter or number becomes a dash."""
    return "_".join(re.sub(r"[^\w.=-]+", "-", part) for part in parts)
