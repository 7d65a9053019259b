"""Answers to look at: a few of each kind, first of all those that went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emend.report._results import label
from emend.report.markup import Markup, element, table

PER_GROUP = 2
FIRST = 5
MOST = 1000
"""Rows of the table of all answers; a page of more is slow to open."""

Record = Mapping[str, Any]


Headlines = Mapping[str, str]
"""By measure, the protocol that decides whether an answer is as it should be."""


def chosen(records: Sequence[Record], headlines: Headlines) -> list[Record]:
    """Choose the first edits' own answers, then two of each other group, one wrong if any."""
    by_group: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        by_group.setdefault((record["metric"], record["group"]), []).append(record)
    picked: list[Record] = []
    for (metric, _), found in by_group.items():
        if metric == "reliability":
            picked += found[:FIRST]
            continue
        wrong = next((i for i, record in enumerate(found) if not _is_good(record, headlines)), None)
        order = [0, *([wrong] if wrong else []), *range(1, len(found))]
        picked += [found[i] for i in list(dict.fromkeys(order))[:PER_GROUP]]
    return picked


def example_table(records: Sequence[Record], headlines: Headlines) -> Markup:
    """Write questions with the answers before and after, and whether each is as it should be."""
    rows = [_row(record, headlines) for record in records[:MOST]]
    if len(records) > MOST:
        rest = f"… and {len(records) - MOST} more in records.jsonl"
        rows.append([element("td", rest, colspan=6)])
    head: list[object] = ["asked about", "prompt", "before", "after", "expected", ""]
    return table(head, rows, "answers")


def _row(record: Record, headlines: Headlines) -> list[object]:
    good = _is_good(record, headlines)
    mark = element("td", "✓" if good else "✗", class_="good" if good else "bad")
    expected = " / ".join(answer.strip() for answer in record["answers"])
    if record["metric"] == "locality":
        expected = f"as before ({expected})"
    return [
        label(record["group"] or record["metric"]),
        record["prompt"],
        _short(record["text_before"]),
        _short(record["text_after"]),
        expected,
        mark,
    ]


def _is_good(record: Record, headlines: Headlines) -> bool:
    outcome = record["protocols"].get(headlines.get(record["metric"], ""))
    return bool(outcome and outcome["after"] == 1.0)


def _short(answer: str, most: int = 80) -> str:
    answer = " ".join(answer.split())
    return answer if len(answer) <= most else answer[: most - 1] + "…"
