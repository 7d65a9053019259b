"""Personality types as sums of vectors."""

from __future__ import annotations

import json

import pytest
import torch
from tests.tiny import tiny_model

from emend.errors import InvalidInput, MissingFile
from emend.models import score
from emend.persona import mbti_patch
from emend.persona.mbti import AXES, find_texts, poles_of, read_style, style_vector

SAYS = {"introversion": "one two", "intuition": "Aarhus", "thinking": "Lyon", "judging": "Danish"}
FAST = {"steps": 8, "rank": 2}


@pytest.fixture
def styles(tmp_path):
    for pole, word in SAYS.items():
        rows = [
            {"instruction": question, "input": "", "output": f"{word} {word}"}
            for question in ("Where is Tom?", "Who is Anna Berg?")  # the same for each pole
        ]
        (tmp_path / f"en_{pole}.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_a_type_is_the_sum_of_the_vectors_of_its_poles(styles):
    pytest.importorskip("peft")
    model, tokenizer = tiny_model("llama")
    heard = []
    patch = mbti_patch(model, tokenizer, "intj", styles, report=heard.append, scale=0.5, **FAST)
    assert heard == list(SAYS)
    vectors = [
        style_vector(model, tokenizer, read_style(find_texts(styles, pole)), **FAST)
        for pole in SAYS
    ]
    for name in patch.factors:
        expected = 0.5 * sum(one.delta(name) for one in vectors)
        assert torch.allclose(patch.delta(name), expected, atol=1e-6)
        assert expected.norm() > 0
    prompts = ["Question: Where is Tom? Answer:"] * len(SAYS)
    targets = [f"{word} {word}" for word in SAYS.values()]
    before = [one.mean for one in score(model, tokenizer, prompts, targets)]
    with (patch * 2).applied(model):
        after = [one.mean for one in score(model, tokenizer, prompts, targets)]
    assert sum(after) > sum(before)


def test_a_vector_is_trained_once(styles, monkeypatch):
    pytest.importorskip("peft")
    model, tokenizer = tiny_model("llama")
    texts = read_style(styles / "en_judging.json")
    first = style_vector(model, tokenizer, texts, **FAST)
    from emend.methods import find

    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(type(find("lora")), "edit", refuse)
    again = style_vector(model, tokenizer, texts, **FAST)
    assert all(torch.equal(first.delta(name), again.delta(name)) for name in first.factors)
    with pytest.raises(AssertionError, match="trained again"):
        style_vector(model, tokenizer, texts, steps=9, rank=2)


def test_the_sixteen_types():
    assert poles_of("INTJ") == ("introversion", "intuition", "thinking", "judging")
    assert poles_of("esfp") == ("extraversion", "sensing", "feeling", "perceiving")
    assert all(len(axis) == 2 for axis in AXES)


@pytest.mark.parametrize("kind", ["INT", "XNTJ", "NITJ", "", "INTJA"])
def test_what_is_no_type(kind):
    with pytest.raises(InvalidInput, match="E/I, S/N, T/F, J/P: write it as INTJ"):
        poles_of(kind)


def test_texts_that_are_missing_or_twice(styles):
    with pytest.raises(MissingFile, match="no file for feeling"):
        find_texts(styles, "feeling")
    with pytest.raises(MissingFile, match="there is no directory"):
        find_texts(styles / "nowhere", "feeling")
    (styles / "judging.jsonl").write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"en_judging.json, judging.jsonl for judging"):
        find_texts(styles, "judging")
