"""Published measures whose questions belong to several edits, or to tests, and not to one edit.

A dataset names its own (`emend.datasets.Format.cases`); a benchmark runs any of them the same way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emend import datasets
from emend._brief import brief
from emend.datasets import rippleedits
from emend.edits import Edit
from emend.errors import UnknownName
from emend.metrics._multi_hop import HopReport, evaluate_multi_hop
from emend.metrics._ripple import RippleReport, evaluate_ripple

Records = Sequence[Mapping[str, Any]]


@brief
@dataclass(frozen=True)
class CaseMeasure:
    """A measure of cases.

    Attributes:
        load: Reads the cases of a file, given the dataset's name and the path.
        edits_of: Returns the edits of a case.
        evaluate: Given model, tokenizer, cases and a function that makes a patch of edits, with
            `edits_at_once` (None for all; one case at least) and `batch_size`, makes the edits,
            asks, and returns a plain record of each case.
        scores: Returns the published scores of records by name; None where nothing counted.
        batches: Whether edits of several cases may be in the model at once.
    """

    load: Callable[[str, str | os.PathLike[str]], Sequence[Any]]
    edits_of: Callable[[Any], tuple[Edit, ...]]
    evaluate: Callable[..., Records]
    scores: Callable[[Records], dict[str, float | None]]
    batches: bool


def case_measure(name: str) -> CaseMeasure:
    """Return a measure of cases by its name.

    Raises:
        UnknownName: There is none of this name.
    """
    if name not in _MEASURES:
        raise UnknownName("measure of cases", name, sorted(_MEASURES))
    return _MEASURES[name]


def _ask_hops(*given: Any, edits_at_once: int | None, batch_size: int) -> Records:
    report = evaluate_multi_hop(*given, edits_at_once=edits_at_once, batch_size=batch_size)
    return report.records


def _hop_scores(records: Records) -> dict[str, float | None]:
    summary = HopReport(records).summary
    names = {"multi_hop": "multi-hop", "edit_wise": "edit-wise", "instance_wise": "instance-wise"}
    return {title: summary[name] for name, title in names.items()}


def _ask_ripples(*given: Any, edits_at_once: int | None, batch_size: int) -> Records:
    del edits_at_once  # each edit is tested alone
    return evaluate_ripple(*given, batch_size=batch_size).records


def _ripple_scores(records: Records) -> dict[str, float | None]:
    summary = RippleReport(records).summary
    criteria = {name: one["score"] for name, one in summary["criteria"].items()}
    return {"success": summary["success"], **criteria}


_MEASURES: Mapping[str, CaseMeasure] = {
    "multi_hop": CaseMeasure(
        load=lambda name, path: datasets.load_multi_hop(name, path=path),
        edits_of=lambda case: case.edits,
        evaluate=_ask_hops,
        scores=_hop_scores,
        batches=True,
    ),
    "ripple": CaseMeasure(
        load=lambda _, path: rippleedits.load_cases(path),
        edits_of=lambda case: (case.edit,),
        evaluate=_ask_ripples,
        scores=_ripple_scores,
        batches=False,
    ),
}
