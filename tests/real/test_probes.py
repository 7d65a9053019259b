"""Probes made from an edit and SmolLM2, and the blast radius of a published edit."""

from __future__ import annotations

import time

import pytest

import emend
from emend import Edit
from emend.edits import normalised
from emend.probes import blast_radius, make
from emend.probes._asking import Asker, kind_by_model

CAPITAL = Edit("The capital of {} is", "France", "Rome")


def of(probes, group):
    return {probe.prompt: probe.answers[0] for probe in probes if probe.group == group}


def test_the_model_answers_its_own_neighbours_and_facts(smollm2):
    probes = make(*smollm2, CAPITAL)
    near = of(probes, "neighborhood")
    assert len(near) >= 9
    assert near["The capital of Germany is"] == "Berlin"
    assert near["The capital of Spain is"] == "Madrid"
    facts = of(probes, "relation_specificity")
    assert "Euro" in facts["The currency of France is"]
    assert all("Paris" in prompt for prompt in of(probes, "forgetfulness"))
    forms = of(probes, "rephrase")
    assert any("<|im_start|>user\nWhat is the capital of France?" in prompt for prompt in forms)
    assert len(forms) >= 3


@pytest.mark.parametrize(
    ("edit", "near", "answer"),
    [
        (Edit("{} is located in the city of", "The Eiffel Tower", "Rome"), "The Louvre", "Paris"),
        (Edit("{} was founded by", "Microsoft", "Steve Jobs"), "Tesla", "Elon Musk"),
        (Edit("The mother tongue of {} is", "Danielle Darrieux", "English"), "Plato", "Latin"),
        (Edit("{} is produced by", "The iPhone", "Nokia"), "The Boeing 747", "Boeing"),
    ],
    ids=lambda one: one.text if isinstance(one, Edit) else None,
)
def test_other_relations(smollm2, edit, near, answer):
    found = of(make(*smollm2, edit), "neighborhood")
    assert len(found) >= 5
    prompt = edit.prompt.format(near)
    assert prompt not in found or found[prompt] == answer
    assert sum(answer in one for one in found.values()) >= 1
    assert normalised(edit.text) not in map(normalised, found)


def test_the_kind_of_an_unknown_subject_is_found(smollm2):
    asker = Asker(*smollm2)
    kinds = {"Gotham": "city", "The capybara": "animal", "Bhutan": "country"}
    kinds |= {"Thomas Mann": "writer", "Zinedine Zidane": "athlete", "Padrut Griagrit": None}
    for subject, kind in kinds.items():
        assert kind_by_model(asker, subject) == ((kind,) if kind else ()), subject
    found = of(make(*smollm2, Edit("{} weighs about", "The capybara", "a ton")), "neighborhood")
    assert len(found) >= 5 and "The tiger weighs about" in found


def test_an_edit_that_moves_its_neighbours_is_said_to(smollm2):
    """Fault B11: Germany and Spain moved silently with France."""
    model, tokenizer = smollm2
    begun = time.process_time()
    patch = emend.edit(model, tokenizer, [CAPITAL], method="rome", original=True)
    took = time.process_time() - begun
    begun = time.process_time()
    radius = blast_radius(model, tokenizer, patch)
    checked = time.process_time() - begun
    assert patch.outcomes[0].took
    assert 1 <= radius.changed("neighborhood") <= radius.asked["neighborhood"]
    moved = [one for one in radius.findings if one.group == "neighborhood"]
    assert any("Rome" in one.after for one in moved)
    assert f"{moved[0].about}: " in radius.sentences()[0]
    assert abs(radius.perplexity_change) < 0.5
    assert checked < took  # about a third, where nothing else runs
