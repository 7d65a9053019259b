"""Edits of SmolLM2: faults B1 and B2, and other languages."""

from __future__ import annotations

import pytest

import emend
from emend.edits import Edit, states_answer
from emend.models import generate, start_of

SUBJECT_FIRST = [
    Edit("{} was founded by", "Microsoft", "Steve Jobs"),
    Edit("{} is the capital of", "Paris", "Italy"),
    Edit("{} is located in", "London", "Canada"),
    Edit("{} was written by", "Hamlet", "Charles Dickens"),
    Edit("{} was founded by", "Apple Inc", "Bill Gates"),
    Edit("{} is located in the city of", "The Eiffel Tower", "Rome"),
]


def test_the_start_token_is_found_and_facts_are_read_at_the_start(smollm2):
    """Fault B1: bare, the model says "the United States" and "the late-20th"."""
    model, tokenizer = smollm2
    prompts = ["Paris is the capital of", "Hamlet was written by"]
    said = generate(model, tokenizer, prompts, max_new_tokens=4)
    assert start_of(tokenizer).text == "<|endoftext|>"
    assert said[0].strip().startswith("France")
    assert said[1].strip().startswith("William Shakespeare")


@pytest.fixture(scope="module")
def together(smollm2):
    """One patch of all six: the same search as of each alone, once."""
    return emend.edit(*smollm2, SUBJECT_FIRST, method="memit")


def test_edits_of_subjects_at_the_start_take(smollm2, together):
    """Fault B1: with the start token and with a phrase before; and what a bare call generates."""
    model, tokenizer = smollm2
    assert all(one.took for one in together.outcomes), [o.describe() for o in together.outcomes]
    assert all(one.bare for one in together.outcomes)
    assert together.base["start_token"] == "<|endoftext|>"
    phrase = ["In Europe, " + edit.text for edit in SUBJECT_FIRST]
    with together.applied(model):
        said = generate(model, tokenizer, phrase, max_new_tokens=4)
    pairs = zip(said, SUBJECT_FIRST, strict=True)
    held = [states_answer(text, [edit.target]) for text, edit in pairs]
    assert sum(held) >= 5, said


def test_the_published_form_fails_there_and_says_why(smollm2):
    """Faults B1 and B2: nothing is silent."""
    model, _ = smollm2
    _, tokenizer = emend.load("smollm2-135m", start_token="none")
    # A covariance of samples would be collected anew for texts without a start token.
    settings = {"method": "rome", "original": True, "texts": ["It was a quiet day."]}
    with pytest.warns(UserWarning, match="give more texts"):
        patch = emend.edit(
            model, tokenizer, SUBJECT_FIRST[1:2], ablation={"ridge": 1.0}, **settings
        )
    (outcome,) = patch.outcomes
    assert not outcome.took
    assert "position 0" in outcome.reason
    assert outcome.remedy


OTHER_LANGUAGES = [
    Edit("La capital de {} es", "Francia", "Roma"),
    Edit("{}的首都是", "法国", "罗马"),
    Edit("{}の首都は", "フランス", "ローマ"),
]


def test_other_languages_take_or_are_reported(smollm2):
    """Fault B2: the outcome is what the edited model generates on the exact text."""
    model, tokenizer = smollm2
    patch = emend.edit(model, tokenizer, OTHER_LANGUAGES, method="memit")
    texts = [edit.text for edit in OTHER_LANGUAGES]
    with patch.applied(model):
        said = generate(model, tokenizer, texts, max_new_tokens=12)
    for edit, text, outcome in zip(OTHER_LANGUAGES, said, patch.outcomes, strict=True):
        assert outcome.took == states_answer(text, [edit.target])
        assert outcome.took or (outcome.reason and outcome.remedy)
        assert outcome.after > outcome.before
