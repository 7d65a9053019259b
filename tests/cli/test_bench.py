"""`emend bench` as it is typed."""

from __future__ import annotations

import json


def test_a_run_is_measured_once_shown_and_compared(emend, tmp_path):
    config, results = tmp_path / "plan.json", tmp_path / "results"
    plan = {
        "models": ["lab/gptneo"],
        "methods": ["rome"],
        "datasets": [{"name": "lab"}],
        "schedules": ["batch:2"],
        "metrics": ["reliability"],
    }
    config.write_text(json.dumps(plan))
    asked = ("bench", "--config", config, "--output_path", results, "--limit", 2)
    found = emend(*asked)
    assert found.status == 0
    assert "[1/1] lab/gptneo rome lab batch:2, 2 edits: " in found.out
    assert "CPU s" in found.out
    assert (results / "leaderboard.html").is_file()
    assert "edits a second" in found.out
    again = emend(*asked, "--seed", 0, "--log_samples")
    assert "2 edits: kept" in again.out
    assert again.err == ""
    (samples,) = (results / "samples").glob("*.jsonl")
    assert len(samples.read_text().splitlines()) == 2
    changed = emend(*asked, "--seed", 1)
    assert "changed since the latest run: seed: 0 before, 1 now" in changed.err
    data = emend("bench", "--output_path", results, "--compare", results, "--json").data
    point = data["points"][0]
    assert point["reliability"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert data["differences"][0]["difference"] == 0
    emend("bench", "--output_path", tmp_path / "no").is_one_line("holds no results")
    emend(*asked, "--shard", "2/2").is_one_line("expected I/N")
    emend(*asked, "--engine", "spark").is_one_line("expected local or ray")
    emend(*asked, "--gpus", 1).is_one_line("need --engine ray")
    emend("bench", "--output_path", results, "--limit", 2).is_one_line("--config FILE")


def test_tasks_of_the_harness_are_refused_early(emend, tmp_path):
    patch = ("--model", "lab/gptneo", "--patch", tmp_path / "no")
    asked = ("eval", *patch, "--include_path", tmp_path)
    emend(*asked).is_one_line("include_path and task_limit need tasks")
    emend(*asked[:-1], tmp_path / "no", "--tasks", "a").is_one_line("is no directory")


def test_a_judge_needs_realistic_evaluation(emend, tmp_path):
    asked = ("eval", "--model", "lab/gptneo", "--patch", tmp_path / "no", "--judge", "gpt2")
    emend(*asked).is_one_line("need --realistic")
    emend(*asked, "--realistic").is_one_line("judge is 'gpt2', expected openai:NAME")
