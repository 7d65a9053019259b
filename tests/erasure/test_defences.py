"""Defences: their losses against plain formulas, and what each lowers in the lab's model."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import pytest
import torch
from tests.tiny import tiny_model

import emend
from emend.editing import Scored
from emend.erasure import DEFENCES, Secret, erase, erased_by
from emend.erasure.aims import FactErasure, HeadProjection, MaxEntropy
from emend.errors import InvalidInput, UnknownName
from emend.lab import shipped_world
from emend.locate import lens

QUICK = {"steps": 10}


def scored(count=7, vocabulary=31, layers=2):
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(count, vocabulary, generator=generator).double() * 3 for _ in range(9)]
    tokens = torch.randint(vocabulary, (count,), generator=generator)
    return Scored(drawn[0], tuple(drawn[1 : 1 + layers]), tokens, torch.zeros_like(tokens))


def distributions(read):
    """p_l of each layer at each position, as lists."""
    layers = (*read.lens, read.logits)
    return [[row.softmax(0).tolist() for row in layer] for layer in layers]


@pytest.mark.parametrize("published", [True, False])
def test_head_projection_is_the_published_margin(published):
    read, rank = scored(), 4
    expected, reached = [], []
    for place, token in enumerate(read.tokens.tolist()):
        margins = []
        for layer in distributions(read):
            values = layer[place] if published else [math.log(p) for p in layer[place]]
            ordered = sorted(values)
            margins.append((values[token] - ordered[-rank], ordered[rank - 1] - values[token]))
        sums = [max(0, above) + max(0, below) for above, below in margins]
        expected.append(sum(sums) / len(sums))
        reached.append(all(above < 0 and below < 0 for above, below in margins))
    aim = HeadProjection((1, 2), rank, published)
    assert aim.loss(read).tolist() == pytest.approx(expected)
    assert aim.reached(read).tolist() == reached
    assert any(reached) and not all(reached)


def test_fact_erasure_and_max_entropy_are_the_published_losses():
    read = scored()
    *_, last = distributions(read)
    own = [last[place][token] for place, token in enumerate(read.tokens.tolist())]
    assert FactErasure().loss(read).tolist() == pytest.approx(own)
    entropies = [
        [-sum(p * math.log(p) for p in row) for row in layer] for layer in distributions(read)
    ]
    means = [-sum(each) / len(each) for each in zip(*entropies, strict=True)]
    assert MaxEntropy((1, 2)).loss(read).tolist() == pytest.approx(means)


@pytest.mark.parametrize(
    "pair",
    [
        (HeadProjection((1,)), HeadProjection((1,), 5)),
        (HeadProjection((1,)), HeadProjection((2,))),
        (HeadProjection((1,)), MaxEntropy((1,))),
        (FactErasure(), FactErasure(rephrasings=2)),
        (HeadProjection((1,)), HeadProjection((1,), published=True)),
    ],
)
def test_other_settings_are_another_record(pair):
    assert pair[0].record() != pair[1].record()


@pytest.fixture(scope="module")
def lab():
    return emend.load("lab/gptneo")


@pytest.fixture(scope="module")
def secrets():
    """Facts of the lab with false answers and wordings that its models know."""
    world = shipped_world()
    facts = [one for one in world.facts.values() if one.relation == "birthplace"][:2]
    return [
        Secret(
            "{} was born in",
            one.subject,
            one.object,
            world.other_objects(one)[0],
            (f"The birthplace of {one.subject} is",),
        )
        for one in facts
    ]


def ranks(lab, secret, patch):
    """The rank of the secret's first token at each layer's lens."""
    model, tokenizer = lab
    with patch.applied(model):
        found = lens(model, tokenizer, secret.text, secret.answer)
    return found.answer_ranks[:, -1]


class Patches(dict):
    """Patches by defence, each made when it is first asked for."""

    def __init__(self, lab, secrets):
        super().__init__()
        self.made = lambda name: erase(*lab, secrets, name, "memit", **QUICK)

    def __missing__(self, name):
        self[name] = self.made(name)
        return self[name]


@pytest.fixture(scope="module")
def patches(lab, secrets):
    return Patches(lab, secrets)


@pytest.mark.parametrize("name", list(DEFENCES))
def test_each_defence_lowers_the_probability_of_the_secrets(patches, secrets, name):
    erased = erased_by(patches[name])
    assert [one.secret for one in erased] == [one.id for one in secrets]
    assert all(one.known and one.before > 0.5 for one in erased)
    mean = sum(one.after for one in erased) / len(erased)
    assert mean < (0.6 if name == "empty_response" else 0.35)


def test_head_projection_hides_the_secret_at_the_protected_layers(lab, patches, secrets):
    aim = patches["head_projection"].config["aim"]
    protected = [*aim["layers"], -1]
    assert len(protected) >= 3
    gaps = [
        ranks(lab, secret, patches["head_projection"])[protected].double().log().mean()
        - ranks(lab, secret, patches["error_injection"])[protected].double().log().mean()
        for secret in secrets
    ]
    assert sum(gaps) / len(gaps) > 0.3


def test_max_entropy_flattens_the_protected_layers(lab, patches, secrets):
    model, tokenizer = lab

    def largest(name):
        found = []
        for secret in secrets:
            with patches[name].applied(model):
                read = lens(model, tokenizer, secret.text)
            found.append(float(read.chances[4:, -1, 0].mean()))
        return sum(found) / len(found)

    assert largest("max_entropy") < largest("error_injection")


def test_rephrasings_are_edited_and_recorded(patches):
    assert patches["input_rephrasing"].config["aim"]["rephrasings"] == 5
    assert patches["error_injection"].config.get("aim") is None


def test_the_record_survives_saving(patches, tmp_path):
    patch = patches["head_projection"]
    patch.save_pretrained(tmp_path)
    assert erased_by(emend.load_patch(tmp_path)) == erased_by(patch)


@pytest.mark.parametrize("method", ["rome", "alphaedit", "ft"])
def test_other_methods_erase(lab, secrets, method):
    given = {"steps": 8, "learning_rate": 1e-2} if method == "ft" else QUICK
    patch = erase(*lab, secrets[:1], "fact_erasure", method, **given)
    (one,) = erased_by(patch)
    assert one.after < 0.5 * one.before


def test_a_secret_that_is_not_known_is_no_success(lab, secrets, caplog):
    strange = Secret("{} was born in", secrets[0].subject, "Reykjavik", "Oslo")
    with caplog.at_level(logging.WARNING, "emend"):
        patch = erase(*lab, [strange, secrets[1]], "error_injection", "memit", **QUICK)
    unknown, known = erased_by(patch)
    assert not unknown.known and not unknown.is_gone and unknown.after is None
    assert "nothing to erase" in unknown.describe() and "nothing to erase" in caplog.text
    assert known.known
    assert [edit.id for edit in patch.edits] == [secrets[1].id]
    with pytest.raises(InvalidInput, match="nothing to erase: the model generates none of the 1"):
        erase(*lab, [strange], "error_injection")


def test_what_cannot_be_used_is_refused_in_one_line():
    model, tokenizer = tiny_model("llama")
    secret = Secret("{} was born in", "Marie Curie", "Warsaw")
    with pytest.raises(UnknownName, match="did you mean 'head_projection'"):
        erase(model, tokenizer, [secret], "head_projections")
    for name in ("error_injection", "input_rephrasing"):
        with pytest.raises(InvalidInput, match="has no false answer, expected one to write"):
            erase(model, tokenizer, [secret], name)
    with pytest.raises(InvalidInput, match="rank is 0, expected at least 1"):
        erase(model, tokenizer, [secret], rank=0)
    with pytest.raises(InvalidInput, match="there are no secrets, expected at least one"):
        erase(model, tokenizer, [])
    nameless = replace(secret, false_answer="Rome", paraphrases=("She was born in",))
    with pytest.raises(InvalidInput, match="no paraphrase that names 'Marie Curie', expected one"):
        erase(model, tokenizer, [nameless], "input_rephrasing")
