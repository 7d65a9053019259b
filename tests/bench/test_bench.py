"""`emend bench`: plans, units that are measured once, and leaderboards."""

from __future__ import annotations

import dataclasses
import json

import pytest
from tests.endpoint_server import Server

from emend import datasets, report
from emend.bench import Board, Interval, Plan, Runner, Schedule, log_samples
from emend.bench._intervals import Parts
from emend.errors import BrokenFile, InvalidInput, MissingFile

PLAN = {
    "models": ["lab/gptneo"],
    "methods": ["rome", "rome:layer=99"],
    "datasets": [{"name": "lab", "last": 4}],
    "schedules": ["batch:2", "sequential:1"],
    "evaluate": "immediate",
    "metrics": ["reliability", "locality"],
}


def put(path, **changes):
    path.write_text(json.dumps({**PLAN, **changes}))
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A results folder of rome, and of rome at a layer that the model has not."""
    directory = tmp_path_factory.mktemp("bench")
    plan = Plan.read(put(directory / "plan.json"), limit=2)
    text = directory / "text.txt"
    text.write_text("Gekal Lerond works as a gardener. " * 4)
    plan = Plan.read(put(directory / "plan.json", perplexity="text.txt"), limit=2)
    results = Runner(plan, directory / "results").run()
    return directory, plan, results


def test_units_are_measured_once_and_errors_again(measured):
    directory, plan, results = measured
    assert [("error" in one, one["unit"]["schedule"]) for one in results] == [
        *((False, "batch:2"), (False, "sequential:1")),
        *((True, "batch:2"), (True, "sequential:1")),
    ]
    seen = []

    def tell(number, count, result):
        seen.append((number, count, "kept" in result))

    again = Runner(plan, directory / "results", on_unit=tell).run()
    assert seen == [(1, 4, True), (2, 4, True), (3, 4, False), (4, 4, False)]
    assert [one.get("records") for one in again] == [one.get("records") for one in results]


def test_parts_of_a_job_array_measure_what_the_whole_does(measured):
    directory, plan, results = measured
    parts = [Runner(plan, directory / "results").run(part, 2) for part in (0, 1)]
    assert {one["key"] for part in parts for one in part} == {one["key"] for one in results}


def test_a_sequence_is_evaluated_as_it_grows(measured):
    _, _, results = measured
    sequence = results[1]
    assert [step["made"] for step in sequence["curve"]] == [1, 2]
    asked = {record["edit"] for record in sequence["records"]}
    assert len(asked) == 2  # each right after it was made
    assert sequence["perplexity"]["before"] > 1


def test_a_leaderboard(measured, tmp_path):
    directory, plan, _ = measured
    board = Board.read(directory / "results", [unit.key for unit in plan.units()])
    (rome,) = (one for one in board.points if one.place[1::2] == ("rome", "batch:2"))
    (wrong,) = (one for one in board.points if one.place[1::2] == ("rome:layer=99", "batch:2"))
    assert rome.parts("reliability").mean_interval == Interval(1, 1, 1)
    assert rome.edits == 2
    assert wrong.edits == 0
    assert "99" in wrong.errors[0]
    page = report.write(board, tmp_path / "board.html").read_text()
    assert "rome" in page
    assert "<svg" in page
    text = report.write(board, tmp_path / "board.md").read_text()
    assert "100.0% [100, 100]" in text
    (same,) = [found for point, found in board.differences(board, "reliability") if point is rome]
    assert same == Interval(0, 0, 0)


def test_the_key_changes_with_everything_that_matters(tmp_path):
    def keys(**changes):
        return [unit.key for unit in Plan.read(put(tmp_path / "plan.json", **changes)).units()]

    whole = keys()
    assert len(whole) == len(set(whole)) == 6  # two batches and a sequence by each method
    assert not set(whole) & set(keys(metrics=["reliability"]))
    assert not set(whole) & set(keys(methods=["rome:layer=1"]))
    assert not set(whole) & set(keys(seed=1))
    both = set(whole) & set(keys(evaluate="final"))
    assert len(both) == 4  # batches do not depend on it
    assert set(whole) <= set(keys(methods=["rome", "rome:layer=99", "ft"]))


def test_the_scores_of_a_dataset_are_in_its_leaderboard(tmp_path):
    """MQuAKE's and RippleEdits' cases are units of their own, other files' scores come of edits."""
    names = ("mquake", "rippleedits", "counterfact")
    for name in names:
        record = json.dumps([datasets.format_of(name).example])
        (tmp_path / f"{name}.json").write_text(record)
    sources = [{"name": name, "path": f"{name}.json"} for name in names]
    given = {"methods": ["ft"], "datasets": sources, "schedules": ["single", "batch:2"]}
    plan = Plan.read(put(tmp_path / "plan.json", **given))
    results = Runner(plan, tmp_path / "results").run()
    measures = [(one["unit"]["dataset"], one["unit"].get("measure")) for one in results]
    assert measures.count(("mquake", "multi_hop")) == 2
    assert measures.count(("rippleedits", "ripple")) == 1  # each edit is tested alone
    board = Board.read(tmp_path / "results", [unit.key for unit in plan.units()])
    scores = {one.place[2:]: one.published for one in board.points}
    assert set(scores["mquake", "batch:2"]) == {"multi-hop", "edit-wise", "instance-wise"}
    assert scores["rippleedits", "single"]["success"]["after"] in (0, 1)
    assert scores["rippleedits", "batch:2"] == {}
    found = scores["counterfact", "single"]
    assert found["ES"]["after"] == 1.0
    assert found["EM"]["before"] < found["EM"]["after"]
    (point,) = (one for one in board.points if one.place[2:] == ("counterfact", "single"))
    assert [*point.by_edit("own EM").values()] == [found["EM"]["after"]]
    (same,) = (one for other, one in board.differences(board, "own NM") if other is point)
    assert same == Interval(0, 0, 0)
    assert set(found) == {"ES", "NS", "EM", "NM"}  # the plan asks nothing of generalization
    assert {one.cases for one in board.points} == {0, 1}
    page = report.write(board, tmp_path / "board.html").read_text()
    assert "counterfact, single: its own scores" in page
    text = report.write(board, tmp_path / "board.md").read_text()
    assert "100.0% [100, 100] (" in text
    without = Plan.read(put(tmp_path / "plan.json", published=False, **given))
    assert not any(unit.measure for unit in without.units())


def test_realistic_evaluation_with_a_judge(tmp_path):
    pytest.importorskip("openai")
    server = Server(lambda prompt, count, stop: "A")
    try:
        asked = {"realistic": True, "judge": "openai:judge", "judge_url": server.url}
        given = {"methods": ["ft"], "schedules": ["single", "batch:2"], **asked}
        plan = Plan.read(put(tmp_path / "plan.json", **given), limit=2)
        Runner(plan, tmp_path / "results").run()
    finally:
        server.close()
    board = Board.read(tmp_path / "results")
    assert {one.place[3] for one in board.points} == {"single", "batch:2"}
    for point in board.points:
        assert point.realistic["edit exact match"]["after"] == 1.0
        assert point.realistic["edit judge"]["before"] == 1.0  # as the stand-in finds everything
    assert (tmp_path / "results" / "verdicts.jsonl").is_file()
    text = report.write(board, tmp_path / "board.md").read_text()
    assert "realistic evaluation" in text
    with pytest.raises(BrokenFile, match="realistic is not true"):
        Plan.read(put(tmp_path / "plan.json", judge="openai:judge"))
    with pytest.raises(BrokenFile, match="judge is 'gpt2', expected openai:NAME"):
        Plan.read(put(tmp_path / "plan.json", realistic=True, judge="gpt2"))


def test_side_effects_are_measured_by_the_same_probes_for_every_dataset(tmp_path):
    given = {"methods": ["ft"], "schedules": ["single", "batch:2"], "side_effects": True}
    plan = Plan.read(put(tmp_path / "plan.json", **given), limit=2)
    Runner(plan, tmp_path / "results").run()
    keys = [unit.key for unit in plan.units()]
    board = Board.read(tmp_path / "results", keys)
    for point in board.points:
        assert point.drift.mean > 0
        assert {kind: 0 <= part <= whole for kind, (part, whole) in point.changed.items()} == {
            "neighbors": True,
            "other facts": True,
        }
    assert "drift" in board.to_dict()["points"][0]
    text = report.write(board, tmp_path / "board.md").read_text()
    assert "lab, single: side effects" in text
    assert "neighbors changed" in text
    without = Plan.read(put(tmp_path / "plan.json", **{**given, "side_effects": False}), limit=2)
    assert not set(keys) & {unit.key for unit in without.units()}


def test_a_changed_plan_is_noticed(measured, tmp_path):
    directory, plan, _ = measured
    assert Runner(plan, directory / "results").changes() == []
    assert Runner(plan, tmp_path / "new").changes() == []
    other = dataclasses.replace(plan, limit=1, schedules=(Schedule("single"),))
    found = Runner(other, directory / "results").changes()
    assert [line.partition(":")[0] for line in found] == ["limit", "schedules"]
    assert found[0] == "limit: 2 before, 1 now"
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(BrokenFile, match="no plan of a benchmark"):
        Runner(plan, tmp_path).changes()


def test_samples_hold_every_record(measured):
    directory, plan, results = measured
    paths = log_samples(directory / "results", [unit.key for unit in plan.units()])
    names = {path.name for path in paths}
    assert "lab-gptneo_rome_lab_batch-2.jsonl" in names
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    records = [record for one in results for record in one.get("records", ())]
    assert len(lines) == len(records) > 0
    assert {(one["edit"], one["prompt"], one["text_after"]) for one in lines} == {
        (one["edit"], one["prompt"], one["text_after"]) for one in records
    }
    assert {one["schedule"] for one in lines} == {"batch:2", "sequential:1"}


def test_an_interval_by_hand():
    assert Parts([{}]).mean_interval is None
    found = Parts([dict(enumerate([0.0, 1.0] * 50))]).mean_interval
    assert found.mean == 0.5
    assert 0.38 < found.low < 0.44 < 0.56 < found.high < 0.62


def test_schedules():
    assert str(Schedule.parse("batch:10")) == "batch:10"
    for text in ("batch", "single:2", "batch:0", "all", "sequential:x"):
        with pytest.raises(InvalidInput, match="expected single, batch:N or sequential:N"):
            Schedule.parse(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["romme"]}, r"methods\[0\].*rome"),
        ({"methods": ["rome:layer"]}, r"methods\[0\].*no value"),
        ({"models": []}, "models has 0 entries"),
        ({"schedules": ["all"]}, r"schedules\[0\].*single"),
        ({"metrics": ["speed"]}, r"metrics\[0\].*expected one of"),
        ({"evaluate": 0}, "evaluate is 0"),
        ({"published": "no"}, "published is .*, expected true or false"),
        ({"datasets": [{"path": "a.json"}]}, "name is missing"),
        ({"expected": [{"dataset": "a"}]}, "schedule is missing"),
        (
            {
                "expected": [
                    dict.fromkeys(("dataset", "schedule", "method", "source"), "a")
                    | {"values": {"ES": "high"}}
                ]
            },
            "has ES that is no number",
        ),
        ({"modells": ["gpt2"]}, "modells"),
    ],
)
def test_faults_of_a_plan_are_named(tmp_path, changes, message):
    with pytest.raises((BrokenFile, InvalidInput), match=message):
        Plan.read(put(tmp_path / "plan.json", **changes))


def test_a_folder_without_results(tmp_path):
    with pytest.raises(MissingFile, match="holds no results"):
        Board.read(tmp_path)
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "a.json").write_text("{")
    with pytest.raises(BrokenFile, match="no result of a benchmark"):
        Board.read(tmp_path)
