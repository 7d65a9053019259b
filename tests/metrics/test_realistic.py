"""Realistic evaluation: free generation, and verdicts of a small local stand-in for an endpoint.

The stand-in (tests/endpoint_server.py) speaks the interface that OpenAI documents; no real language
model judges here.
"""

from __future__ import annotations

import pytest
from tests.endpoint_server import Server
from tests.patches.helpers import random_patch
from tests.tiny import tiny_model

from emend import models
from emend.bench import judge_of
from emend.edits import Edit, Probe
from emend.errors import EndpointFailure, InvalidInput
from emend.metrics import evaluate_realistic, realistic_scores

pytest.importorskip("openai")

EDIT = Edit(
    "{} was born in",
    "Marie Curie",
    "Lyon",
    id="one",
    probes=(
        Probe("rephrase", "The birthplace of Marie Curie is", ("Lyon", "Lyons")),
        Probe("neighborhood", "Anna Berg was born in", ("Aarhus",)),
    ),
)


@pytest.fixture(scope="module")
def tiny():
    return tiny_model("llama")


def serve(verdict, faults=()):
    return Server(lambda prompt, count, stop: verdict(prompt), faults)


def test_answers_are_generated_freely_up_to_a_stop(tiny):
    model, tokenizer = tiny
    with random_patch(model, "llama", scale=5).applied(model):
        report = evaluate_realistic(model, tokenizer, [EDIT], new_tokens=12)
        texts = models.generate(model, tokenizer, [EDIT.text], max_new_tokens=12, stop=(".", "\n"))
    own, rephrase = report.records
    assert [own["group"], rephrase["group"]] == ["edit", "rephrase"]
    assert own["after"]["text"] == texts[0]
    assert "." not in own["after"]["text"]
    assert own["before"]["text"] != own["after"]["text"]
    assert "judge" not in own["after"]
    assert set(report.summary) == {"edit exact match", "rephrase exact match"}


def test_a_judge_decides_and_its_verdicts_are_cached(tiny, tmp_path):
    model, tokenizer = tiny
    server = serve(lambda prompt: " **A**." if "birthplace" in prompt else "B")
    try:
        for _ in range(2):
            judge = judge_of("openai:judge", server.url, tmp_path / "verdicts.jsonl")
            with random_patch(model, "llama", scale=5).applied(model):
                report = evaluate_realistic(model, tokenizer, [EDIT], judge=judge, new_tokens=8)
            assert report.summary["rephrase judge"] == {"before": 1.0, "after": 1.0}
            assert report.summary["edit judge"] == {"before": 0.0, "after": 0.0}
            assert report.summary["unread"]["after"] == 0
        assert len(server.requests) == 4  # two questions before and after, asked once
        asked = [one["prompt"] for one in server.requests if "birthplace" in one["prompt"]]
        assert all("Gold answer: Lyon or Lyons\n" in prompt for prompt in asked)
        assert all(one["temperature"] == 0 for one in server.requests)
    finally:
        server.close()


def test_what_is_no_verdict_falls_back_to_exact_match_and_is_counted(tiny):
    model, tokenizer = tiny
    server = serve(lambda prompt: "Perhaps")
    try:
        judge = judge_of("openai:judge", server.url, None)
        report = evaluate_realistic(model, tokenizer, [EDIT], judge=judge, new_tokens=4)
    finally:
        server.close()
    assert report.summary["unread"]["after"] == 1.0
    assert report.summary["edit judge"] == report.summary["edit exact match"]


def test_a_judge_that_fails_and_bad_input_are_one_line(tiny):
    model, tokenizer = tiny
    server = serve(lambda prompt: "A", faults=[400])
    try:
        judge = judge_of("openai:judge", server.url, None)
        with pytest.raises(EndpointFailure, match="answers 400"):
            evaluate_realistic(model, tokenizer, [EDIT], judge=judge, new_tokens=4)
    finally:
        server.close()
    with pytest.raises(InvalidInput, match="expected openai:NAME"):
        judge_of("gpt2", None, None)
    with pytest.raises(InvalidInput, match="new_tokens is 0"):
        evaluate_realistic(model, tokenizer, [EDIT], new_tokens=0)
    with pytest.raises(InvalidInput, match="no chat template"):
        evaluate_realistic(model, tokenizer, [EDIT], in_chat=True)


def test_in_chat_the_template_is_put_around(tiny):
    model, tokenizer = tiny
    template = "{% for m in messages %}Q: {{ m['content'] }} A:{% endfor %}"
    tokenizer.chat_template = template
    try:
        report = evaluate_realistic(model, tokenizer, [EDIT], in_chat=True, new_tokens=6)
    finally:
        tokenizer.chat_template = None
    plain = f"Q: {EDIT.text} A:"
    texts = models.generate(model, tokenizer, [plain], max_new_tokens=6, stop=(".", "\n"))
    assert report.records[0]["after"]["text"] == texts[0]


def test_shares_by_hand():
    def record(group, before, after, verdict):
        outcome = {"text": "", "exact_match": after, "judge": verdict}
        return {
            "group": group,
            "before": {"text": "", "exact_match": before, "judge": 0.0},
            "after": outcome,
        }

    found = realistic_scores(
        [
            record("edit", 0.0, 1.0, 1.0),
            record("edit", 0.0, 0.0, 1.0),
            record("edit", 0.0, 1.0, None),
        ]
    )
    assert found["edit exact match"] == {"before": 0.0, "after": pytest.approx(2 / 3)}
    assert found["edit judge"] == {"before": 0.0, "after": 1.0}
    assert found["unread"]["after"] == pytest.approx(1 / 6)
