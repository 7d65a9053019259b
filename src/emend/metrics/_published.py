"""A dataset's own scores, made of records: see `emend.datasets.Format.published`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emend.datasets import HarmonicMean, PublishedScore, Score
from emend.metrics._metric import Record
from emend.metrics._summary import mean_over_edits

MOMENTS = ("before", "after")


def published_scores(
    records: Sequence[Record], scores: Mapping[str, PublishedScore]
) -> dict[str, dict[str, float | None]]:
    """Compute the scores that a dataset was published with.

    Args:
        records: Of a report (`Report.records`).
        scores: The dataset's; a harmonic mean comes after the scores that it is of.

    Returns:
        By name ``before`` and ``after``: shares (of CounterFact's magnitudes differences of
        probabilities, of fluency bits x 100); None where nothing of it was measured.
    """
    found: dict[str, dict[str, float | None]] = {}
    for name, score in scores.items():
        if isinstance(score, HarmonicMean):
            parts = [found[part] for part in score.of]
            found[name] = {moment: _harmonic([p[moment] for p in parts]) for moment in MOMENTS}
        else:
            entry = mean_over_edits(records_of_score(records, score), score.protocol)
            found[name] = {moment: entry[moment] for moment in MOMENTS}
    return found


def records_of_score(records: Sequence[Record], score: Score) -> list[Record]:
    """Return the records that a score is a mean of."""
    return [
        record
        for record in records
        if record["metric"] == score.measure and score.group in (None, record["group"])
    ]


def _harmonic(values: Sequence[float | None]) -> float | None:
    """Return the harmonic mean; None where a value is missing, and 0 where one is 0."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return 0.0 if min(known) <= 0 else len(known) / sum(1 / value for value in known)
