"""Which measure asks what about which edit, and the records that come of the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from emend._registry import Registry
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.metrics._metric import Answer, Metric, Question, Record

ORDER = ("reliability", "generalization", "portability", "locality", "fluency", "efficiency")


class Item(NamedTuple):
    """One question of one measure about one edit."""

    edit: Edit
    metric: Metric
    question: Question


def registry() -> Registry[Metric]:
    """Return the measures there are, by name; third parties add to the group ``emend.metrics``."""
    return Registry("metric", ["emend.metrics"], "emend.metrics", of="emend.metrics._metric:Metric")


def chosen(names: Iterable[str] | None) -> list[Metric]:
    """The measures of these names, all of them for None, in the customary order.

    Raises:
        UnknownName: There is no such measure.
        InvalidInput: The list of names is empty.
    """
    known = registry().names()
    wanted = list(dict.fromkeys(known if names is None else names))
    if not wanted:
        raise InvalidInput("no metrics are named, expected at least one: leave it out for all")
    ranked = [*(name for name in ORDER if name in wanted), *(n for n in wanted if n not in ORDER)]
    return [registry().get(name) for name in ranked]


def items_of(edits: Iterable[Edit], metrics: Sequence[Metric]) -> list[Item]:
    """Every question of every measure, edit by edit."""
    return [Item(e, metric, q) for e in edits for metric in metrics for q in metric.ask(e)]


def records_of(
    items: Iterable[Item],
    before: Mapping[Question, Answer],
    after: Mapping[Question, Answer],
    schedule: str,
) -> list[Record]:
    """One plain record per item; see :class:`~emend.metrics.Report`."""
    return [_record(item, before[item.question], after[item.question], schedule) for item in items]


def _record(item: Item, before: Answer, after: Answer, schedule: str) -> Record:
    question = item.question
    outcomes = item.metric.judge(question, before, after)
    return {
        "edit": item.edit.id,
        "language": item.edit.language,
        "metric": item.metric.name,
        "group": question.group,
        "schedule": schedule,
        "prompt": question.prompt,
        "answers": list(question.answers),
        "rival": question.rival,
        "text_before": before.text,
        "text_after": after.text,
        "protocols": {name: {"before": old, "after": new} for name, (old, new) in outcomes.items()},
    }
