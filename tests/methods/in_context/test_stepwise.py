"""The loop that answers in steps, with a model that speaks a script."""

from __future__ import annotations

import pytest

from emend import models
from emend.methods.in_context._steps import AGREES, CONTRADICTS, Step, Stepwise

FACTS = {"Who leads Oslo?": "Oslo is led by Bo.", "Who wed Bo?": "Bo wed Cy."}


class Scripted:
    """Answers a text by its last line and its question; stands in for `models.generate`."""

    def __init__(self, script: dict[str, str]) -> None:
        self.script = script
        self.rounds: list[list[str]] = []

    def __call__(self, model, tokenizer, texts, *, max_new_tokens, stop):
        assert "Retrieved fact:" in stop
        self.rounds.append(list(texts))
        return [self.script[text.rstrip("\n").rpartition("\n")[2]] for text in texts]


@pytest.fixture
def loop(monkeypatch):
    def make(script, **options):
        speaker = Scripted(script)
        monkeypatch.setattr(models, "generate", speaker)
        retrieve = options.pop("retrieve", lambda queries: [FACTS.get(q) for q in queries])
        return Stepwise(retrieve, "Worked.\n\n", **options), speaker

    return make


SCRIPT = {
    "Question: Who wed the leader of Oslo?": (
        "Subquestion: Who leads Oslo?\nGenerated answer: Oslo is led by Al.\n"
    ),
    "Retrieved fact: Oslo is led by Bo.": (
        f"{CONTRADICTS} Bo.\nSubquestion: Who wed Bo?\nGenerated answer: Bo wed Di.\n"
    ),
    "Retrieved fact: Bo wed Cy.": f"{CONTRADICTS} Cy.\nFinal answer: Cy.",
    "Question: Where is Rome?": "Subquestion: Is it?\nGenerated answer: It is.",
    "Retrieved fact: It is.": f"{AGREES} Italy.\nFinal answer: Italy.",
}


def test_questions_advance_together(loop) -> None:
    stepwise, speaker = loop(SCRIPT)
    first, second = stepwise.questions(
        None, None, ["Who wed the leader of Oslo?", "Where is Rome?"]
    )
    assert [len(texts) for texts in speaker.rounds] == [2, 2, 1]
    assert (first.answer, first.failure) == ("Cy", None)
    assert first.steps == [
        Step("Who leads Oslo?", "Oslo is led by Al.", "Oslo is led by Bo.", True, "Bo"),
        Step("Who wed Bo?", "Bo wed Di.", "Bo wed Cy.", True, "Cy"),
    ]
    assert first.text == (
        "Worked.\n\nQuestion: Who wed the leader of Oslo?\n"
        "Subquestion: Who leads Oslo?\nGenerated answer: Oslo is led by Al.\n"
        f"Retrieved fact: Oslo is led by Bo.\n{CONTRADICTS} Bo.\n"
        "Subquestion: Who wed Bo?\nGenerated answer: Bo wed Di.\n"
        f"Retrieved fact: Bo wed Cy.\n{CONTRADICTS} Cy.\n"
        "Final answer:"
    )
    # No fact was near: the model was shown its own answer, and the trace says so.
    assert second.steps == [Step("Is it?", "It is.", None, False, "Italy")]
    assert second.to_dict()["steps"][0]["retrieved"] is None


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "neither a subquestion"),
        ("I think it is Oslo.", "neither a subquestion"),
        ("Subquestion: Who?", "without an answer"),
        ("Subquestion: Who?\nSubquestion: Who?", "without an answer"),
    ],
)
def test_openings_that_cannot_be_read_are_failures(loop, written, reason) -> None:
    stepwise, _ = loop({"Question: Q?": written})
    (trace,) = stepwise.questions(None, None, ["Q?"])
    assert trace.answer is None
    assert reason in str(trace.failure)
    assert trace.text == "Worked.\n\nQuestion: Q?\n"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "no verdict"),
        ("Final answer: Oslo.", "no verdict"),
        (f"{AGREES} Oslo.", "neither a subquestion"),
        (f"{AGREES} Oslo.\nSo it is.", "neither a subquestion"),
    ],
)
def test_verdicts_that_cannot_be_read_are_failures(loop, written, reason) -> None:
    script = {
        "Question: Q?": "Subquestion: Who leads Oslo?\nGenerated answer: Al.",
        "Retrieved fact: Oslo is led by Bo.": written,
    }
    stepwise, speaker = loop(script)
    (trace,) = stepwise.questions(None, None, ["Q?"])
    assert reason in str(trace.failure)
    assert len(speaker.rounds) == 2
    assert len(trace.steps) == 1


def test_steps_come_to_an_end(loop) -> None:
    again = "Subquestion: Who leads Oslo?\nGenerated answer: Al."
    script = {
        "Question: Q?": again,
        "Retrieved fact: Oslo is led by Bo.": f"{AGREES} Al.\n{again}",
    }
    stepwise, speaker = loop(script, hops=3)
    (trace,) = stepwise.questions(None, None, ["Q?"])
    assert trace.failure == "no final answer after 3 steps"
    assert len(speaker.rounds) == 4
    assert len(trace.steps) == 3


def test_nothing_asked_is_nothing_run(loop) -> None:
    stepwise, speaker = loop({})
    assert stepwise.questions(None, None, []) == []
    assert not speaker.rounds
