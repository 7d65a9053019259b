"""MQuAKE's measures on answers that are known, and the command that takes them."""

from __future__ import annotations

import json

import pytest
from tests.endpoint_server import Server

from emend import models
from emend.cli import run
from emend.edits import Edit, MultiHop, SingleHop
from emend.errors import InvalidInput
from emend.lab import shipped_world
from emend.lab.consequences import draw_multi_hop
from emend.metrics import _multi_hop as multi_hop
from emend.metrics import evaluate_multi_hop
from emend.metrics._multi_hop import edits_of, grouped


def instance(number: int, edits: int = 1) -> MultiHop:
    made = tuple(Edit("{} is in", f"S{number}-{i}", f"T{number}") for i in range(edits))
    return MultiHop(
        id=f"i{number}",
        edits=made,
        questions=(f"First {number}?", f"Second {number}?", f"Third {number}?"),
        answers=(f"New {number}", f"N{number}"),
        old_answers=(f"Old {number}",),
        hops=(
            SingleHop("?", made[0].text, (made[0].target,), edited=True),
            SingleHop("?", f"Then {number}", (f"New {number}",), edited=False),
        ),
    )


class Patch:
    """Stands in for a patch: notes what it was made of and when it acts."""

    def __init__(self, edits, log) -> None:
        self.edits, self.log = edits, log

    def applied(self, model):
        from contextlib import nullcontext

        self.log.append(len(self.edits))
        return nullcontext(model)


@pytest.fixture
def said(monkeypatch):
    """Lets prompts be answered by a mapping, and by nothing where it has none."""

    def use(answers):
        def generate(model, tokenizer, prompts, **_):
            assert len(set(prompts)) == len(prompts)
            return [answers.get(prompt, " nothing") for prompt in prompts]

        monkeypatch.setattr(models, "generate", generate)
        monkeypatch.setattr(models, "attachments", lambda model: ())
        monkeypatch.setattr(multi_hop, "describe_base", lambda model: {})

    return use


def test_measures(said) -> None:
    said(
        {
            "Question: Second 0? Answer:": " n0 .",  # an alias, to one form only
            "Question: First 1? Answer:": " Old 1, I think",
            "Question: Third 1? Answer:": " New 10",  # begins like the answer
            "S0-0 is in": " T0.",
            "S1-0 is in": " T1.",
            "Then 0": " New 0",
        }
    )
    log: list[int] = []
    report = evaluate_multi_hop(
        None, None, [instance(0), instance(1)], lambda edits: Patch(edits, log)
    )
    assert log == [2]
    assert report.summary == {
        "n": 2,
        "multi_hop": 0.5,
        "questions": 1 / 6,
        "edit_wise": 1.0,
        "instance_wise": 0.5,
        "old_answer": 0.5,
        "by_hops": {"2": {key: report.summary[key] for key in report.summary if key != "by_hops"}},
    }
    assert [record["edits_at_once"] for record in report.records] == [2, 2]


def test_instances_are_taken_together_as_long_as_their_edits_fit() -> None:
    instances = [instance(0), instance(1), instance(2, edits=3), instance(3)]
    sizes = {most: [len(group) for group in grouped(instances, most)] for most in (1, 2, 4, None)}
    assert sizes == {1: [1, 1, 1, 1], 2: [2, 1, 1], 4: [2, 2], None: [4]}
    assert len(edits_of([instance(0), instance(0)])) == 1


def test_misuse_is_refused(said) -> None:
    said({})
    with pytest.raises(InvalidInput, match="no instances"):
        evaluate_multi_hop(None, None, [], Patch)
    with pytest.raises(InvalidInput, match="edits_at_once is 0"):
        evaluate_multi_hop(None, None, [instance(0)], Patch, edits_at_once=0)


def speaks(instances):
    """An endpoint's model that answers every question in steps, and right."""
    chains = {question: one for one in instances for question in one.questions}
    by_subquestion = {hop.question: hop for one in instances for hop in one.hops}

    def step(hop) -> str:
        return f"Subquestion: {hop.question}\nGenerated answer: {hop.cloze} unknown.\n"

    def answer(prompt: str, *_) -> str:
        text = prompt.rpartition("Question: ")[2]
        one = chains.get(text.partition("\n")[0])
        if one is None:
            return " nothing"
        if text.endswith("Final answer:"):
            return f" {one.answers[0]}."
        done = [by_subquestion[line.removeprefix("Subquestion: ")]
                for line in text.splitlines() if line.startswith("Subquestion: ")]  # fmt: skip
        if not done:
            return step(one.hops[0])
        verdict = ("Retrieved fact contradicts the generated answer, so the intermediate answer "
                   f"is: {done[-1].answers[0]}.\n")  # fmt: skip
        if len(done) == len(one.hops):
            return f"{verdict}Final answer: {one.answers[0]}."
        return verdict + step(one.hops[len(done)])

    return answer


def test_the_command_with_an_endpoint(tmp_path, capsys) -> None:
    pytest.importorskip("openai")
    server = Server(speaks(draw_multi_hop(shipped_world(), 3, seed=0)))
    command = ["multihop", "--model", "openai:lab", "--base_url", server.url, "--limit", "3"]
    command += ["--output_path", str(tmp_path), "--log_samples", "--json"]
    try:
        assert run(command) == 0
        first, asked = json.loads(capsys.readouterr().out), len(server.requests)
        assert run(command) == 0
    finally:
        server.close()
    assert json.loads(capsys.readouterr().out)["summary"] == first["summary"]
    assert len(server.requests) == asked  # all of it is known from the first run
    assert first["summary"]["multi_hop"] == first["summary"]["questions"] == 1
    assert first["summary"]["answered_in_steps"] == 9
    assert first["summary"]["failures"] == 0
    traces = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    assert {len(trace["steps"]) for trace in traces} == {2, 3, 4}
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 3
    assert json.loads((tmp_path / "summary.json").read_text())["settings"]["method"] == "mello"


def test_the_command_says_what_is_amiss(tmp_path, capsys) -> None:
    assert run(["multihop", "--model", "lab/qwen3", "--log_samples"]) == 2
    assert "--log_samples is given without --output_path" in capsys.readouterr().err
    assert run(["multihop", "--model", "lab/qwen3", "--dataset", "mquake"]) == 2
    assert "does not ship" in capsys.readouterr().err
