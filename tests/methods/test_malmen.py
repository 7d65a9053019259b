"""MALMEN as a method: one change for all edits."""

from __future__ import annotations

import pytest
from tests.methods.closed_form import relative
from tests.methods.hypernetwork.trained import TRAINING, trained_state
from tests.tiny import tiny_model

from emend.errors import InvalidInput
from emend.methods.hypernetwork.malmen import malmen


def test_change_is_of_the_set_and_shared() -> None:
    model, tokenizer = tiny_model("llama")
    state = trained_state("malmen", "llama")
    together = malmen.edit(model, tokenizer, TRAINING, state=state)
    turned = malmen.edit(model, tokenizer, TRAINING[::-1], state=state, batch_size=1)
    first = malmen.edit(model, tokenizer, TRAINING[:2], state=state)
    both = malmen.edit(model, tokenizer, TRAINING[2:], state=state, previous=first)
    assert malmen.sequel() == "rebuild"
    for name in together.factors:
        assert relative(turned.delta(name), together.delta(name)) < 1e-4
        assert relative(both.delta(name), together.delta(name)) < 1e-4
    with pytest.raises(InvalidInput):
        together.only(TRAINING[0].id)
