"""Tasks of lm-evaluation-harness from a local file, by hand and as a merged checkpoint has them."""

from __future__ import annotations

import copy
import importlib.util
import json

import pytest
import torch
from tests.patches.helpers import random_patch
from tests.tiny import tiny_model

from emend import models, report
from emend.bench import Board, Plan, Runner, Tasks, tasks_of
from emend.edits import Edit
from emend.errors import InvalidInput, MissingExtra, UnsupportedModel

here = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not here, reason="lm-eval is not installed")

DOCUMENTS = [
    {"question": f"{name} plays the", "choices": choices, "answer": number % 2}
    for number, name in enumerate(("Anna Berg", "Tom Berg", "Marie Curie"))
    for choices in (["a", "e"], ["x", "y"], ["B", "C"])
]
TASK = """\
task: local_facts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture(scope="module")
def task_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tasks")
    path = directory / "facts.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in DOCUMENTS))
    (directory / "local_facts.yaml").write_text(TASK.format(path=path))
    return directory


@pytest.fixture(scope="module")
def tiny():
    return tiny_model("llama")


def accuracy(model, tokenizer, documents):
    """Share of documents whose answer has the largest sum of log-probabilities."""
    right = 0
    for one in documents:
        ids = tokenizer(one["question"])["input_ids"]
        sums = []
        for choice in one["choices"]:
            whole = tokenizer(f"{one['question']} {choice}")["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            sums.append(sum(float(logits[i - 1, whole[i]]) for i in range(len(ids), len(whole))))
        right += sums.index(max(sums)) == one["answer"]
    return right / len(documents)


@needs_harness
def test_values_are_those_by_hand_and_of_a_merged_checkpoint(tiny, task_directory):
    model, tokenizer = tiny
    tasks = tasks_of(["local_facts"], str(task_directory))
    seeds = range(40)
    patch = next(  # one that changes the accuracy, else the test shows nothing
        one
        for one in (random_patch(model, "llama", seed=seed, scale=50) for seed in seeds)
        if _edited(model, tokenizer, one) != accuracy(model, tokenizer, DOCUMENTS)
    )
    padding = tokenizer.pad_token
    with patch.applied(model):
        found = tasks.compare(model, tokenizer)
    wanted = accuracy(model, tokenizer, DOCUMENTS), _edited(model, tokenizer, patch)
    assert found == {"local_facts acc": {"before": wanted[0], "after": wanted[1]}}
    assert tokenizer.pad_token == padding
    merged = copy.deepcopy(model)
    patch.merge_into(merged)
    assert tasks.run(merged, tokenizer) == {"local_facts": {"acc": wanted[1]}}
    first = tasks_of(["local_facts"], str(task_directory), 1).run(model, tokenizer)
    assert first == {"local_facts": {"acc": accuracy(model, tokenizer, DOCUMENTS[:1])}}


def _edited(model, tokenizer, patch):
    with patch.applied(model):
        return accuracy(model, tokenizer, DOCUMENTS)


@needs_harness
def test_a_benchmark_has_them_before_and_after(task_directory, tmp_path):
    plan = {
        "models": ["lab/gptneo"],
        "methods": ["ft", "grace"],
        "datasets": [{"name": "lab", "last": 2}],
        "schedules": ["batch:2"],
        "metrics": ["reliability"],
        "tasks": ["local_facts"],
        "include_path": str(task_directory),
    }
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    read = Plan.read(path)
    ft, grace = Runner(read, tmp_path / "results").run()
    assert set(ft["tasks"]["local_facts acc"]) == {"before", "after"}
    assert "acts where a prompt ends" in grace["tasks_left_out"]
    board = Board.read(tmp_path / "results")
    assert {p.method: bool(p.tasks) for p in board.points} == {"ft": True, "grace": False}
    text = report.write(board, tmp_path / "board.md").read_text()
    assert "general ability" in text
    (facts,) = task_directory.glob("*.yaml")
    before = [unit.key for unit in read.units()]
    changed = facts.read_text()
    facts.write_text(changed + "# another version\n")
    assert not set(before) & {unit.key for unit in read.units()}
    facts.write_text(changed)


@needs_harness
def test_an_unknown_task_is_one_line(tiny, task_directory):
    with pytest.raises(InvalidInput, match="cannot run no_such_task"):
        tasks_of(["no_such_task"], str(task_directory)).run(*tiny)


def test_what_cannot_be_run_is_refused(tiny, tmp_path):
    with pytest.raises(InvalidInput, match="no tasks are named"):
        Tasks(())
    with pytest.raises(InvalidInput, match="need tasks"):
        tasks_of([], str(tmp_path))
    with pytest.raises(InvalidInput, match="is no directory"):
        tasks_of(["x"], str(tmp_path / "no"))
    assert tasks_of([]) is None


@pytest.mark.skipif(here, reason="lm-evaluation-harness is installed")
def test_without_the_harness_the_extra_is_named(tiny):
    with pytest.raises(MissingExtra, match=r"emend\[lmeval\]"):
        tasks_of(["x"]).run(*tiny)


def test_a_patch_of_prompts_is_refused(tiny, task_directory):
    model, tokenizer = tiny
    from emend import edit

    patch = edit(model, tokenizer, [Edit("{} is in", "The tower", "Rome")], method="ike", k=0)
    with patch.applied(model), pytest.raises(UnsupportedModel, match="acts where a prompt ends"):
        tasks_of(["local_facts"], str(task_directory)).run(model, tokenizer)
    assert not models.attachments(model)
