"""MEND as a method: apart, together, and by the trained networks of the lab."""

from __future__ import annotations

import pytest
import torch
from tests.methods.closed_form import relative
from tests.methods.hypernetwork.trained import TRAINING, trained_state
from tests.tiny import tiny_model

import emend
from emend import datasets, lab, metrics
from emend.methods.hypernetwork.mend import mend


def test_edits_are_added_and_any_can_be_taken_out() -> None:
    model, tokenizer = tiny_model("llama")
    state = trained_state("mend", "llama")
    together = mend.edit(model, tokenizer, TRAINING, state=state)
    turned = mend.edit(model, tokenizer, TRAINING[::-1], state=state, batch_size=1)
    alone = mend.edit(model, tokenizer, TRAINING[1:2], state=state)
    assert mend.order_free
    for name in together.factors:
        assert relative(turned.delta(name), together.delta(name)) < 1e-4
        assert relative(together.only(TRAINING[1].id).delta(name), alone.delta(name)) < 1e-4


def test_change_has_the_rank_of_the_tokens() -> None:
    model, tokenizer = tiny_model("gpt2")
    patch = mend.edit(model, tokenizer, TRAINING[:1], state=trained_state("mend", "gpt2"))
    tokens = len(tokenizer(TRAINING[0].text + " " + TRAINING[0].target)["input_ids"])
    assert 0 < patch.rank <= tokens
    assert len(patch.factors) == 6  # both matrices of the last three of four blocks


def test_nothing_is_drawn_at_random() -> None:
    """The same edits give the same patch, to the bit."""
    model, tokenizer = tiny_model("gpt2")
    state = trained_state("mend", "gpt2")
    one, two = (mend.edit(model, tokenizer, TRAINING, state=state) for _ in range(2))
    assert all(torch.equal(one.delta(name), two.delta(name)) for name in one.factors)


@pytest.mark.parametrize("name", lab.names())
def test_shipped_networks_edit_the_lab(name) -> None:
    if not (lab.path(name) / "mend").is_dir():
        pytest.skip(f"no network of mend ships with lab/{name}")
    model, tokenizer = emend.load(f"lab/{name}")
    edits = datasets.load("lab", limit=20, seed=1)
    patch = emend.edit(model, tokenizer, edits, method="mend")
    wanted = ["reliability", "generalization", "locality"]
    summary = metrics.evaluate_each(model, tokenizer, edits, patch, metrics=wanted).summary
    assert summary["reliability"]["after"] >= 0.85
    assert summary["generalization"]["after"] >= 0.8
    assert summary["locality"]["groups"]["neighborhood"]["after"] >= 0.85
