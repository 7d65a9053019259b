"""Edits of SmolLM2, up to ten at once, by each method with its defaults; lenient thresholds."""

from __future__ import annotations

import pytest
from tests.real.test_editing import SUBJECT_FIRST

import emend
from emend.edits import Edit, states_answer
from emend.models import generate
from emend.probes import plain_perplexity

TEN = [
    *SUBJECT_FIRST,
    Edit("The capital of {} is", "Japan", "Madrid"),
    Edit("The mother tongue of {} is", "Danielle Darrieux", "English"),
    Edit("The official language of {} is", "Brazil", "German"),
    Edit("The currency of {} is the", "India", "dollar"),
]

NEIGHBOURS = {
    "The capital of Germany is": "Berlin",
    "The capital of France is": "Paris",
    "The capital of Spain is": "Madrid",
    "The official language of Mexico is": "Spanish",
    "The currency of Mexico is the": "peso",
    "The Statue of Liberty is located in the city of": "New York",
    "The Colosseum is located in the city of": "Rome",
    "Berlin is the capital of": "Germany",
    "Tesla was founded by": "Elon Musk",
    "Romeo and Juliet was written by": "William Shakespeare",
    "The mother tongue of Plato is": "Greek",
    "Water is made of hydrogen and": "oxygen",
}

LEAST = {
    # method: edits made, that took, neighbours that stay, perplexity at most times that before
    "memit": (10, 8, 6, 1.1),  # 10, 9, 1.018
    "ft": (4, 2, 5, 1.2),  # of ten 8, 8, 1.020; four, since it takes its time
    "grace": (10, 9, 2, 1.001),  # 10, 4, 1.000: neighbours of one wording are near its keys
}


@pytest.fixture(scope="module")
def before(smollm2):
    """What the model answers to neighbours, where it is right; and its perplexity."""
    said = generate(*smollm2, list(NEIGHBOURS), max_new_tokens=4)
    pairs = zip(NEIGHBOURS, said, strict=True)
    known = {prompt: text for prompt, text in pairs if states_answer(text, [NEIGHBOURS[prompt]])}
    return known, plain_perplexity(*smollm2)


def test_the_neighbours_are_known(before):
    assert len(before[0]) >= 9, before


@pytest.mark.parametrize("method", LEAST)
def test_edits_take_and_neighbours_stay(smollm2, before, method):
    model, tokenizer = smollm2
    count, took, stay, most = LEAST[method]
    (known, perplexity), patch = before, emend.edit(*smollm2, TEN[:count], method)
    outcomes = [one.describe() for one in patch.outcomes if not one.took]
    with patch.applied(model):
        said = generate(model, tokenizer, list(known), max_new_tokens=4)
        after = plain_perplexity(model, tokenizer)
    held = [
        states_answer(text, [NEIGHBOURS[prompt]]) for prompt, text in zip(known, said, strict=True)
    ]
    found = (count - len(outcomes), sum(held), after / perplexity)
    assert found[0] >= took, outcomes
    assert found[1] >= min(stay, len(known)), list(zip(known, said, strict=True))
    assert found[2] <= most
    assert generate(model, tokenizer, list(known), max_new_tokens=4) == list(known.values())
