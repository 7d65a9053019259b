"""KE as a method: it reads the edit's text, and edits are apart."""

from __future__ import annotations

from dataclasses import replace

from tests.methods.closed_form import relative
from tests.methods.hypernetwork.trained import TRAINING, trained_state
from tests.tiny import tiny_model

from emend.methods.hypernetwork.ke import ke


def test_edits_are_added_and_any_can_be_taken_out() -> None:
    model, tokenizer = tiny_model("llama")
    state = trained_state("ke", "llama")
    together = ke.edit(model, tokenizer, TRAINING, state=state)
    turned = ke.edit(model, tokenizer, TRAINING[::-1], state=state, batch_size=1)
    alone = ke.edit(model, tokenizer, TRAINING[1:2], state=state)
    assert ke.order_free
    for name in together.factors:
        assert relative(turned.delta(name), together.delta(name)) < 1e-4
        assert relative(together.only(TRAINING[1].id).delta(name), alone.delta(name)) < 1e-4


def test_what_the_model_said_before_is_read() -> None:
    model, tokenizer = tiny_model("llama")
    state = trained_state("ke", "llama")
    one = ke.edit(model, tokenizer, TRAINING[:1], state=state)
    other = ke.edit(model, tokenizer, [replace(TRAINING[0], original="Warsaw")], state=state)
    (name, *_) = one.factors
    assert relative(other.delta(name), one.delta(name)) > 1e-7


def test_one_row_more_than_the_gradient() -> None:
    model, tokenizer = tiny_model("gpt2")
    patch = ke.edit(model, tokenizer, TRAINING[:1], state=trained_state("ke", "gpt2"))
    tokens = len(tokenizer(TRAINING[0].text + " " + TRAINING[0].target)["input_ids"])
    assert 1 < patch.rank <= tokens
