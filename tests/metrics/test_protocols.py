from __future__ import annotations

import pytest

from emend.edits import Edit, Probe
from emend.metrics import Answer
from emend.metrics._judging import (
    exact_match,
    probability,
    same_answer,
    same_choices,
    teacher_forced,
)
from emend.metrics.generalization import generalization
from emend.metrics.reliability import reliability
from emend.models import Score


def test_any_accepted_answer_counts():
    assert exact_match(Answer(" Lyon."), ("Paris", "Lyon")) == 1.0
    assert exact_match(Answer(" Lyon."), ("Paris", "Lille")) == 0.0


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (" Warsaw.", " Warsaw,", 1.0),
        (" Warsaw and then", " Warsaw but later", 1.0),
        (" Lodz.", " Lodz", 1.0),  # wrong but as before
        (" Warsaw.", " Lodz.", 0.0),
        (" Warsaw", " Warsaws", 0.0),
        ("", "", 1.0),
        (" “Warsaw”", " Warsaw", 1.0),
    ],
)
def test_locality_asks_for_the_same_not_the_right(before, after, kept):
    assert same_answer(Answer(before), Answer(after), ("Warsaw",)) == kept


def test_as_many_words_as_the_answer_has_are_compared():
    before, after = Answer(" New York"), Answer(" New Delhi")
    assert same_answer(before, after, ("Old Town",)) == 0.0
    assert same_answer(before, after, ("Paris",)) == 1.0


def test_locality_compares_scripts_without_spaces_by_character():
    """Fault 10: the whole texts were compared."""
    before, after = Answer("巴黎是首都"), Answer("巴黎。")
    assert same_answer(before, after, ("里昂",)) == 1.0
    assert same_answer(before, Answer("里昂是首都"), ("巴黎",)) == 0.0
    assert same_answer(Answer("ローマです"), Answer("ローマ"), ("パリ",)) == 1.0


@pytest.mark.parametrize("original", ["Paris", " paris", "“Paris”"])
def test_no_answer_is_more_probable_than_itself(original):
    """Fault 27: the protocol said 0 where the original is the target; it does not apply there."""
    edit = Edit("{} is in", "The tower", "Paris", original)
    (question,) = reliability.ask(edit)
    score = Score([1], [-0.1], [1])
    answer = Answer(" Paris.", {"Paris": score, original: score})
    outcomes = reliability.judge(question, answer, answer)
    assert "probability" not in outcomes
    assert outcomes["exact_match"] == (1.0, 1.0)
    other = Edit("{} is in", "The tower", "Paris", "Rome")
    (question,) = reliability.ask(other)
    answer = Answer(" Paris.", {"Paris": score, "Rome": Score([2], [-3.0], [1])})
    assert reliability.judge(question, answer, answer)["probability"] == (1.0, 1.0)


def test_accepted_answers_are_compared_as_answers_are():
    """Fault 27: " Paris" was no accepted answer where "Paris" is."""
    probe = Probe("rephrase", "The tower stands in", ("Paris",))
    edit = Edit("{} is in", "The tower", " Paris", "Rome", probes=(probe,))
    (question,) = generalization.ask(edit)
    assert question.rival == "Rome"


def test_teacher_forced_and_probability():
    good = Score(token_ids=[1, 2], log_probs=[-0.1, -0.3], greedy=[1, 9])
    bad = Score(token_ids=[3], log_probs=[-2.0], greedy=[4])
    long = Score(token_ids=[3, 3, 3, 3], log_probs=[-0.15] * 4, greedy=[3, 3, 3, 4])
    answer = Answer("", {"good": good, "bad": bad, "long": long})
    assert teacher_forced(answer, ("good", "bad")) == 0.5
    assert probability(answer, ("good",), "bad") == 1.0
    assert probability(answer, ("bad",), "good") == 0.0
    assert probability(answer, ("long",), "good") == 1.0  # by mean, not by total
    moved = Answer("", {"good": Score([1, 2], [-0.1, -0.3], [7, 9])})
    assert same_choices(answer, moved, "good") == 0.5
