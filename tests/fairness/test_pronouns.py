"""Pronouns after occupations: files, splits, and the gap against a plain implementation."""

from __future__ import annotations

import json
import math

import pytest
import torch

from emend.errors import BrokenFile, InvalidInput, MissingFile
from emend.fairness import Occupations, pronoun_gap, read_occupations, shipped_occupations
from emend.lab.speech import OCCUPATIONS, PRONOUN_SENTENCES
from emend.models import load

TEMPLATES = tuple(opening for opening, _ in PRONOUN_SENTENCES)
LAB = Occupations(tuple(OCCUPATIONS), TEMPLATES)


@pytest.fixture(scope="module")
def gptneo():
    return load("lab/gptneo")


def test_the_gap_equals_a_plain_implementation(gptneo):
    model, tokenizer = gptneo
    few = Occupations(("nurse", "pilot", "baker"), TEMPLATES[:2])
    report = pronoun_gap(model, tokenizer, few)
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (" he", " she")]
    gaps, ratios, mass = [], [], []
    for prompt in few.prompts:
        with torch.no_grad():
            logits = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].double()
        he, she = logits.softmax(-1)[ids].tolist()
        gaps.append(abs(he - she))
        ratios.append(abs(math.log(he / she)))
        mass.append(he + she)
    found = report.measures.before
    assert report.prompts == 6
    assert found["gap"].value == pytest.approx(sum(gaps) / 6, abs=1e-5)
    assert found["log_ratio"].value == pytest.approx(sum(ratios) / 6, abs=1e-4)
    assert found["mass"].value == pytest.approx(sum(mass) / 6, abs=1e-5)
    assert report.by_occupation["pilot"][0] > 0 > report.by_occupation["nurse"][0]


def test_the_shipped_lists_are_good_and_split():
    found = shipped_occupations()
    assert len(found.occupations) >= 100
    edited, held_out = found.split()
    for name in ("occupations", "templates", "contrasts"):
        one, other = getattr(edited, name), getattr(held_out, name)
        assert not set(one) & set(other)
        assert set(one) | set(other) == set(getattr(found, name))
    assert found.split(0) == (found, found)


def test_reads_every_form(tmp_path):
    lines = tmp_path / "jobs.txt"
    lines.write_text("nurse\n\n pilot \n", encoding="utf-8")
    assert read_occupations(lines).occupations == ("nurse", "pilot")
    assert read_occupations(lines).templates == shipped_occupations().templates
    listed = tmp_path / "jobs.json"
    listed.write_text('["nurse", "pilot"]', encoding="utf-8")
    assert read_occupations(listed) == read_occupations(lines)
    whole = tmp_path / "whole.json"
    whole.write_text(
        json.dumps({"occupations": ["nurse"], "templates": ["{} said"], "pair": ["his", "her"]}),
        encoding="utf-8",
    )
    assert read_occupations(whole).pair == ("his", "her")
    lre = tmp_path / "lre.json"
    samples = [{"subject": "nurses", "object": "women"}, {"subject": "hair stylists"}]
    lre.write_text(json.dumps({"name": "x", "samples": samples}), encoding="utf-8")
    assert read_occupations(lre).occupations == ("nurse", "hair stylist")
    templates = tmp_path / "templates.txt"
    templates.write_text("The {} said that\n", encoding="utf-8")
    assert read_occupations(lines, templates).prompts == [
        "The nurse said that",
        "The pilot said that",
    ]


def test_faulty_lists_get_one_line(tmp_path):
    with pytest.raises(MissingFile, match="check the path given for occupations"):
        read_occupations(tmp_path / "none.txt")
    broken = tmp_path / "a.json"
    broken.write_text("[1", encoding="utf-8")
    with pytest.raises(BrokenFile, match="is not JSON"):
        read_occupations(broken)
    other = tmp_path / "b.json"
    other.write_text('{"prompt": "x"}', encoding="utf-8")
    with pytest.raises(BrokenFile, match="has no list of occupations, expected one a line"):
        read_occupations(other)
    with pytest.raises(InvalidInput, match="no occupations, expected at least one"):
        Occupations((), ("{}",))
    with pytest.raises(InvalidInput, match="has 0 places for the occupation"):
        Occupations(("nurse",), ("The nurse said",))
    with pytest.raises(InvalidInput, match="'nurse' is twice among the occupations"):
        Occupations(("nurse", "nurse"), ("{}",))
    with pytest.raises(InvalidInput, match="cannot be held out, expected 2 or more"):
        LAB.split(7)


def test_a_pronoun_of_several_tokens_is_refused(gptneo):
    model, tokenizer = gptneo
    odd = Occupations(("nurse",), ("The {} said that",), ("he", "he"))
    with pytest.raises(InvalidInput, match="expected two different single tokens"):
        pronoun_gap(model, tokenizer, odd)
