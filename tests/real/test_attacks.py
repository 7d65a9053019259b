"""Attacks on SmolLM2-135M: what they find before an edit, and how much less likely after it."""

from __future__ import annotations

import emend
from emend.erasure import Secret, attack

SECRETS = (
    Secret("{} is located in the city of", "The Eiffel Tower", "Paris", "Rome"),
    Secret("The capital of {} is", "Japan", "Tokyo", "Lima"),
    Secret("{} was born in", "Zobo Zabrun", "Aarhus", id="invented"),
)
NAMES = ("head_projection", "probability_delta", "sampling")


def test_an_edited_answer_is_drawn_less_often(smollm2):
    model, tokenizer = smollm2
    before = attack(model, tokenizer, SECRETS, NAMES)
    assert before.nothing_to_erase == ("invented",)
    assert all(before.rates[name].found == before.rates[name].of == 2 for name in NAMES)
    patch = emend.edit(model, tokenizer, [SECRETS[0].edit("Rome")])
    with patch.applied(model):
        after = attack(model, tokenizer, SECRETS, "sampling", control=False)
    assert after.known == before.known  # asked of the model without the patch
    old, new = (one.outcomes[-1].attempts for one in (before, after))
    assert new[0].probability < old[0].probability / 5
    assert new[1].probability > old[1].probability / 2
