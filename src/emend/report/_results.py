"""What the report reads: the plain data of one evaluation, whatever it came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emend.errors import InvalidInput
from emend.metrics import Report

Entry = Mapping[str, Any]

PROTOCOL_TITLES = {
    "exact_match": "exact match",
    "teacher_forced": "teacher forced",
    "probability": "probability",
}
"""Protocols in the order in which they are shown; the first is the headline."""


@dataclass(frozen=True)
class Result:
    """The evaluation of one model.

    Attributes:
        name: What the model is called in the page.
        summary: Values by measure.
        records: One dict per question.
        settings: How it was evaluated.
    """

    name: str
    summary: Mapping[str, Entry]
    records: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]


def results_of(results: Mapping[str, Report | Mapping[str, Any]]) -> list[Result]:
    """Read results by model name, as reports or as the plain data that they save.

    Raises:
        InvalidInput: There are none, or one lacks its summary or records.
    """
    if not results:
        raise InvalidInput("there are no results to report, expected one model at least")
    return [_result(name, given) for name, given in results.items()]


def _result(name: str, given: Report | Mapping[str, Any]) -> Result:
    if isinstance(given, Report):
        return Result(name, given.summary, given.records, given.settings)
    for key in ("summary", "records"):
        if key not in given:
            raise InvalidInput(
                f"the results of {name} lack {key!r}, expected what Report.to_dict() gives and "
                "the records: add it"
            )
    return Result(name, given["summary"], given["records"], given.get("settings", {}))


def share(value: object) -> str:
    """Write a share from 0 to 1 in percent; a dash where there is none."""
    return f"{100 * value:.1f}%" if isinstance(value, (int, float)) else "–"


def plain(value: object, unit: str = "") -> str:
    """Write a number in three digits, with its unit; a dash where there is none."""
    if not isinstance(value, (int, float)):
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def bytes_text(value: object) -> str:
    """Write bytes in MiB or GiB; a dash where unknown."""
    if not isinstance(value, (int, float)):
        return "–"
    mebibytes = value / 2**20
    return f"{mebibytes / 1024:.2f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"


def label(name: str) -> str:
    """Write a field's name for people: "one_hop" becomes "one hop"."""
    return name.replace("_", " ")


def is_share(entry: Entry) -> bool:
    """Return whether the values of a summary's entry are shares from 0 to 1."""
    return entry.get("unit") == "share"


def headlines(summary: Mapping[str, Entry]) -> dict[str, str]:
    """Return the protocol that decides, by measure, whether an answer is as it should be."""
    return {name: entry["headline"] for name, entry in summary.items() if "headline" in entry}
