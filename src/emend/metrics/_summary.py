"""From records to a summary: means over probes, then groups, then edits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from emend.edits import GROUPS
from emend.metrics._metric import Record

UNKNOWN_LANGUAGE = "und"
"""The tag of BCP 47 for a language that is not known."""


def summarize(
    records: Sequence[Record], headline: str, *, grouped: bool = False, apart: Sequence[str] = ()
) -> dict[str, Any]:
    """Summarise one measure.

    Args:
        records: Its records.
        headline: The protocol whose values are the summary's "before" and "after".
        grouped: Whether to add "groups".
        apart: Protocols to leave out of "protocols".

    Returns:
        ``before``, ``after``, ``n`` (edits that have it), ``protocols`` (the same of each), and
        with ``grouped`` ``groups`` (the same of each group, with its own protocols). Values are
        None where nothing was asked.
    """
    names = dict.fromkeys(p for record in records for p in record["protocols"] if p not in apart)
    entry = mean_over_edits(records, headline)
    entry["protocols"] = {name: mean_over_edits(records, name) for name in names}
    if grouped:
        groups = sorted({record["group"] for record in records}, key=_place)
        entry["groups"] = {
            group: summarize([r for r in records if r["group"] == group], headline, apart=apart)
            for group in groups
        }
    return entry


def by_language(records: Sequence[Record], headline: str) -> dict[str, Any]:
    """Return the values of each language under "languages"; nothing where no record has one."""
    names = sorted({record.get("language") or UNKNOWN_LANGUAGE for record in records})
    if names in ([], [UNKNOWN_LANGUAGE]):
        return {}
    parts = {
        name: [one for one in records if (one.get("language") or UNKNOWN_LANGUAGE) == name]
        for name in names
    }
    return {"languages": {name: mean_over_edits(part, headline) for name, part in parts.items()}}


def mean_over_edits(records: Iterable[Record], protocol: str) -> dict[str, Any]:
    """Mean of the means of each edit's groups, so that an edit with many probes counts once.

    Returns:
        ``before`` and ``after`` (None without records) and ``n``, the number of edits.
    """
    values = values_by_edit(records, protocol)
    entry = {
        moment: _mean(one[moment] for one in values.values()) if values else None
        for moment in ("before", "after")
    }
    return {**entry, "n": len(values)}


def values_by_edit(records: Iterable[Record], protocol: str) -> dict[str, dict[str, float]]:
    """Return ``before`` and ``after`` of each edit that has the protocol: means of its groups."""
    by_edit: dict[str, dict[str, list[dict[str, float]]]] = {}
    for record in records:
        if protocol in record["protocols"]:
            groups = by_edit.setdefault(record["edit"], {})
            groups.setdefault(record["group"], []).append(record["protocols"][protocol])
    return {
        edit: {
            moment: _mean(
                _mean(outcome[moment] for outcome in probes) for probes in groups.values()
            )
            for moment in ("before", "after")
        }
        for edit, groups in by_edit.items()
    }


def _place(group: str) -> tuple[int, str]:
    """Sort groups in their customary order, unknown ones after them."""
    known = [name for family in GROUPS.values() for name in family]
    return (known.index(group) if group in known else len(known)), group


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
