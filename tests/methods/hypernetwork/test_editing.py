"""Hypernetworks as methods: apart, together, and by the trained networks of the lab."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.methods.closed_form import difference, relative
from tests.methods.hypernetwork.trained import NAMES, TRAINING, trained_state
from tests.tiny import tiny_model

import emend
from emend import datasets, lab, metrics
from emend.errors import InvalidInput
from emend.methods import registry
from emend.methods.hypernetwork import _apply


def made(name, edits=TRAINING, architecture="llama", **settings):
    model, tokenizer = tiny_model(architecture)
    state = trained_state(name, architecture)
    return registry().get(name).edit(model, tokenizer, edits, state=state, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_order_and_batches_make_the_same_change(name, monkeypatch) -> None:
    together = made(name)
    monkeypatch.setattr(_apply, "BATCH", 1)
    assert difference(made(name, TRAINING[::-1]), together) < 1e-4
    assert registry().get(name).order_invariant


@pytest.mark.parametrize("name", ["ke", "mend"])
def test_edits_are_added_and_any_can_be_taken_out(name) -> None:
    alone = made(name, TRAINING[1:2])
    assert difference(made(name).only(TRAINING[1].id), alone) < 1e-4


def test_malmen_makes_one_change_of_all_edits() -> None:
    together = made("malmen")
    both = made("malmen", TRAINING[2:], previous=made("malmen", TRAINING[:2]))
    assert registry().get("malmen").continues == "joint"
    assert difference(both, together) < 1e-4
    with pytest.raises(InvalidInput):
        together.only(TRAINING[0].id)


@pytest.mark.parametrize(("name", "least"), [("mend", 1), ("ke", 2)])
def test_change_has_the_rank_of_the_tokens(name, least) -> None:
    patch = made(name, TRAINING[:1], "gpt2")
    _, tokenizer = tiny_model("gpt2")
    tokens = len(tokenizer(TRAINING[0].text + " " + TRAINING[0].target)["input_ids"])
    assert least <= patch.rank <= tokens
    assert len(patch.factors) == 6  # both matrices of the last three of four blocks


def test_ke_reads_the_answer_of_before() -> None:
    one = made("ke", TRAINING[:1])
    other = made("ke", [replace(TRAINING[0], original="Warsaw")])
    (name, *_) = one.factors
    assert relative(other.delta(name), one.delta(name)) > 1e-7


def test_nothing_is_drawn_at_random() -> None:
    """The same edits give the same patch, to the bit."""
    one, two = (made("mend", architecture="gpt2") for _ in range(2))
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
