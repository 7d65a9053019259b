"""The models that ship know the world, keep facts at the subject, and say what was measured."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import emend
from emend import datasets, lab, metrics
from emend.bench.lab_card import exact_match
from emend.lab.card_questions import recall_questions

MODELS = ("gptneo", "qwen3")


@pytest.fixture(scope="module", params=MODELS)
def shipped(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    return (request.param, *emend.load(f"lab/{request.param}"))


def test_both_ship_small_enough() -> None:
    assert lab.names() == sorted(MODELS)
    for name in MODELS:
        assert (lab.path(name) / "model.safetensors").stat().st_size <= 14 * 2**20


def test_the_card_says_what_was_measured(shipped: tuple[str, Any, Any]) -> None:
    name = shipped[0]
    card = lab.card(name)
    assert card["parameters"] == sum(p.numel() for p in shipped[1].parameters())
    assert card["abilities"]["recall_seen_wordings"] >= 0.97
    assert card["trace"]["facts"] >= 200
    assert card["trace"]["first_half_ratio"] >= 3
    assert card["trace"]["last_quarter_leader"] == "last_token"
    assert f"emend lab train --arch {name}" in (lab.path(name) / "README.md").read_text()


def test_facts_are_recalled(shipped: tuple[str, Any, Any]) -> None:
    _, model, tokenizer = shipped
    asked = recall_questions(lab.shipped_world(), random.Random(3), 100)
    assert exact_match(model, tokenizer, asked["recall_seen_wordings"]) >= 0.97
    assert exact_match(model, tokenizer, asked["recall_held_out_wordings"]) >= 0.9
    assert exact_match(model, tokenizer, asked["recall_aliases"]) >= 0.9


def test_rome_edits_single_facts(shipped: tuple[str, Any, Any]) -> None:
    _, model, tokenizer = shipped
    edits = datasets.load("lab", limit=8, seed=5)
    patch = emend.edit(model, tokenizer, edits, method="rome")
    names = ["reliability", "generalization", "locality"]
    summary = metrics.evaluate_each(model, tokenizer, edits, patch, metrics=names).summary
    assert summary["reliability"]["before"] == 0
    assert summary["reliability"]["after"] >= 0.85
    assert summary["generalization"]["after"] >= 0.7
    groups = summary["locality"]["groups"]
    assert groups["neighborhood"]["after"] >= 0.95
    assert groups["relation_specificity"]["after"] >= 0.6


def test_no_path_of_a_machine_in_what_ships() -> None:
    for path in lab.WEIGHTS.glob("*/*.json"):
        assert str(Path.home()) not in path.read_text()
    model, _ = emend.load("lab/qwen3")
    assert model.config._name_or_path == "lab/qwen3"
