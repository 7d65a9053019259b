"""Bootstrap intervals of scores: against a plain way with numpy, and of the harmonic mean."""

from __future__ import annotations

import json

import numpy as np
import pytest

from emend import report
from emend.bench import Board, Interval, Point
from emend.bench._intervals import Parts, interval_of_cases


def drawn(seed, count=40):
    values = np.random.default_rng(seed).random(count).round(3)
    return {f"e{number}": float(value) for number, value in enumerate(values)}


def plain(parts, draws=4000):
    """Harmonic means of means over edits that are drawn with replacement."""
    edits = sorted({edit for part in parts for edit in part})
    rng = np.random.default_rng(5)
    found = []
    for _ in range(draws):
        chosen = [edits[at] for at in rng.integers(len(edits), size=len(edits))]
        means = [np.mean([part[edit] for edit in chosen if edit in part]) for part in parts]
        found.append(len(means) / sum(1 / mean for mean in means))
    return np.percentile(found, [2.5, 97.5])


@pytest.mark.parametrize("count", [1, 3])
def test_an_interval_is_that_of_a_plain_bootstrap(count):
    parts = [drawn(seed) for seed in range(count)]
    del parts[-1]["e3"]  # an edit without a probe of the last part
    found = Parts(parts).mean_interval
    means = [np.mean([*part.values()]) for part in parts]
    assert found.mean == pytest.approx(count / sum(1 / mean for mean in means))
    assert (found.low, found.high) == pytest.approx(tuple(plain(parts)), abs=0.015)


def test_a_difference_is_over_the_edits_that_both_have_and_paired():
    ours = [drawn(seed) for seed in range(3)]
    theirs = [{edit: value / 2 for edit, value in part.items()} for part in ours]
    assert Parts(ours).difference(Parts(ours)) == Interval(0, 0, 0)
    found = Parts(ours).difference(Parts(theirs))
    assert found.mean == pytest.approx(Parts(theirs).mean_interval.mean)
    assert 0 < found.low < found.mean < found.high
    del theirs[0]["e0"]
    del ours[0]["e0"]
    assert Parts(ours).difference(Parts(theirs)) != found
    assert Parts(ours).difference(Parts([])) is None
    assert Parts([{}]).mean_interval is None
    zero = Parts([{"a": 0.0}, {"a": 1.0}]).mean_interval
    assert zero == Interval(0, 0, 0)


def test_an_interval_over_cases_draws_cases():
    records = [{"right": number % 4 == 0} for number in range(60)]

    def scores(some):
        return {"share": sum(one["right"] for one in some) / len(some), "none": None}

    found = interval_of_cases(records, scores)
    assert found["none"] is None
    assert found["share"].mean == 0.25
    low, high = plain([{str(at): float(one["right"]) for at, one in enumerate(records)}])
    assert (found["share"].low, found["share"].high) == pytest.approx((low, high), abs=0.03)


def record(edit, metric, group, new, old=1.0):
    protocols = {"probability": {"before": old, "after": new}}
    return {"edit": edit, "metric": metric, "group": group, "protocols": protocols}


def counterfact_point(share):
    """CounterFact's scores of 20 edits, of which a share takes."""
    measures = [("reliability", ""), ("generalization", "rephrase"), ("locality", "neighborhood")]
    records = [
        record(f"e{number}", metric, group, float(number < 20 * share))
        for number in range(20)
        for metric, group in measures
    ]
    result = {
        "unit": {"edits": 20, "form": "counterfact"},
        "records": records,
        "metrics": ["reliability"],
        "settings": {},
        "cpu_seconds": 1.0,
        "timing": {},
    }
    return Point("m", "rome", "counterfact", "batch:20", [result])


def test_tables_and_comparisons_give_intervals_of_the_harmonic_mean(tmp_path):
    better, worse = (Board([counterfact_point(share)], "0") for share in (0.75, 0.5))
    (point,) = better.points
    assert point.published["S"]["after"] == pytest.approx(0.75)
    own = point.published_intervals
    assert set(own) == {"ES", "PS", "NS", "S"}
    ends = (own["S"].low, own["S"].high)  # each edit's three values are the same here
    assert ends == pytest.approx((own["ES"].low, own["ES"].high))
    assert own["S"].low < 0.75 < own["S"].high
    ((_, found),) = better.differences(worse, "own S")
    assert found.mean == pytest.approx(0.25)
    assert 0 < found.low < found.high < 0.5
    text = report.write(better, tmp_path / "board.md").read_text()
    assert f"75.0% [{100 * own['S'].low:.0f}, {100 * own['S'].high:.0f}] (100.0%)" in text
    assert json.loads(json.dumps(better.to_dict()))["points"][0]["published_intervals"]["S"]
