from __future__ import annotations

import pytest

from emend.metrics import Answer
from emend.metrics._protocols import (
    begins_with,
    exact_match,
    probability,
    same_answer,
    same_choices,
    teacher_forced,
)
from emend.models import Score


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        (" Cork", "Cork", True),
        (" Cork.", " Cork", True),
        (" cork, in Ireland", "Cork", True),
        (" Cork's harbour", "Cork", True),
        (" Corkville", "Cork", False),
        (" Cork-on-Sea", "Cork", False),
        (" the Cork", "Cork", False),
        ("", "Cork", False),
        (" New\n York City", "New York", True),
        (" Malmo\u0308 is", "Malm\u00f6", True),
        (" St. Ives", "St.", True),
    ],
)
def test_answer_must_end_where_its_last_word_ends(text, answer, right):
    assert begins_with(text, answer) is right


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
    ],
)
def test_locality_asks_for_the_same_not_the_right(before, after, kept):
    assert same_answer(Answer(before), Answer(after), ("Warsaw",)) == kept


def test_as_many_words_as_the_answer_has_are_compared():
    before, after = Answer(" New York"), Answer(" New Delhi")
    assert same_answer(before, after, ("Old Town",)) == 0.0
    assert same_answer(before, after, ("Paris",)) == 1.0


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
