"""SERAC: its scope classifier, its counterfactual model, what a patch refuses, shipped states."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.methods.hypernetwork import trained
from tests.retrieval.sentences import sentence_model
from tests.tiny import tiny_model

import emend
from emend import datasets, lab
from emend.edits import Edit
from emend.errors import InvalidInput, MissingFile
from emend.lab.consequences import without_edited
from emend.methods.serac._classifier import best_threshold, laid_out, scopes
from emend.methods.serac._patch import ScopePatch
from emend.models import generate, score, top1
from emend.patches import load_patch
from emend.retrieval.encoders import SentenceEncoder
from emend.retrieval.naming import encoder_of

EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris", id="one"),
    Edit("The mother tongue of {} is", "Tom Berg", "French", id="two"),
]
PROMPTS = ["Marie Curie was born in", "Anna Berg works for", "Lyon is in"]
TARGETS = ["Paris", "Nordlicht", "France"]


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


def made(model, tokenizer, edits=None, **given):
    """A memory by what was trained for two steps on the tiny model."""
    state = trained.trained_state("serac", "llama")
    return emend.edit(
        model, tokenizer, edits or EDITS, "serac", state=state, allow_other_base=True, **given
    )


def shares(patch, model, tokenizer, prompts):
    """How much each prompt is about the nearest edit."""
    with patch.applied(model):
        (attachment,) = emend.models.attachments(model)
        classifier = attachment.classifier(tokenizer)
        return classifier.best(prompts, patch.edits, patch.tensors["vectors"])


def test_scopes_are_one_at_the_edit_itself(llama):
    found = shares(made(*llama), *llama, [edit.text for edit in EDITS])
    assert [number for number, _ in found] == [0, 1]
    assert all(share == pytest.approx(1.0, abs=1e-4) for _, share in found)
    torch.testing.assert_close(scopes(torch.tensor([0.0, 1.0])), torch.tensor([1.0, 0.36787944]))


def test_in_scope_the_counterfactual_reads_the_edit_and_elsewhere_nothing_changes(llama):
    model, tokenizer = llama
    patch = made(model, tokenizer, threshold=0.999)
    clean = [score(model, tokenizer, PROMPTS, TARGETS), generate(model, tokenizer, PROMPTS)]
    read = laid_out(EDITS[0], PROMPTS[0])
    assert read == "New fact: Marie Curie was born in Paris.\nPrompt: Marie Curie was born in"
    adapter = emend.patches.WeightPatch(factors=patch.adapter)
    with adapter.applied(model):
        expected = [
            score(model, tokenizer, [read], TARGETS[:1])[0],
            generate(model, tokenizer, [read])[0],
            top1(model, tokenizer, [read])[0][0],
        ]
    with patch.applied(model):
        for size in (1, 8):
            told = score(model, tokenizer, PROMPTS, TARGETS, batch_size=size)
            texts = generate(model, tokenizer, PROMPTS, batch_size=size)
            assert told[0].log_probs == pytest.approx(expected[0].log_probs, abs=1e-4)
            assert texts == [expected[1], *clean[1][1:]]
            assert [one.greedy for one in told[1:]] == [one.greedy for one in clean[0][1:]]
        assert top1(model, tokenizer, PROMPTS)[0][0] == expected[2]


def test_softly_both_answer(llama):
    model, tokenizer = llama
    patch = made(model, tokenizer, soft=True)
    prompt = "Anna Curie was born in"
    ((number, share),) = shares(patch, model, tokenizer, [prompt])
    share_given = 0.3  # whatever the two steps of training made of it
    assert 0 <= share <= 1
    patch = replace(patch, tensors={**patch.tensors, **tuned(patch, model, tokenizer, prompt)})
    ((number, share),) = shares(patch, model, tokenizer, [prompt])
    assert share == pytest.approx(share_given, abs=1e-3)
    (own,) = score(model, tokenizer, [prompt], TARGETS[:1])
    with emend.patches.WeightPatch(factors=patch.adapter).applied(model):
        (other,) = score(model, tokenizer, [laid_out(EDITS[number], prompt)], TARGETS[:1])
    with patch.applied(model):
        (both,) = score(model, tokenizer, [prompt], TARGETS[:1])
    one, two, mixed = (torch.tensor(each.log_probs).exp() for each in (own, other, both))
    torch.testing.assert_close(mixed, (1 - share) * one + share * two, atol=1e-5, rtol=1e-3)


def tuned(patch, model, tokenizer, prompt):
    """W scaled so that the prompt is 0.3 in scope."""
    ((_, share),) = shares(patch, model, tokenizer, [prompt])
    wanted = (torch.tensor(0.3).log() / torch.tensor(share).log()).sqrt()
    return {"head": patch.tensors["head"] * wanted}


def test_the_cross_form_reads_edit_and_prompt_together(llama):
    model, tokenizer = llama
    patch = made(model, tokenizer)
    size = patch.tensors["head"].shape[1]
    cross = torch.randn(size + 1, generator=torch.Generator().manual_seed(0))
    both = replace(
        patch,
        tensors={**patch.tensors, "cross": cross},
        details={**patch.details, "form": "cross", "candidates": 2},
    )
    encoder = encoder_of(patch.details["encoder"], model, tokenizer)
    texts = [laid_out(edit, PROMPTS[1]) for edit in EDITS]
    expected = torch.sigmoid(torch.tensor(encoder.encode(texts)) @ cross[:-1] + cross[-1])
    ((number, share),) = shares(both, model, tokenizer, [PROMPTS[1]])
    assert number == int(expected.argmax())
    assert share == pytest.approx(float(expected.max()), abs=1e-5)


def test_grows_shrinks_and_is_saved(llama, tmp_path):
    model, tokenizer = llama
    first = made(model, tokenizer, EDITS[:1])
    both = emend.edit(model, tokenizer, EDITS[1:], "serac", previous=first)
    assert [edit.id for edit in both.edits] == ["one", "two"]
    once = made(model, tokenizer)
    torch.testing.assert_close(both.tensors["vectors"], once.tensors["vectors"])
    loaded = load_patch(both.save_pretrained(tmp_path / "p"))
    assert isinstance(loaded, ScopePatch)
    assert loaded.details == both.details
    clean = score(model, tokenizer, PROMPTS, TARGETS)
    with loaded.applied(model):
        assert score(model, tokenizer, PROMPTS, TARGETS) != clean
    with loaded.without("one", "two").applied(model):
        assert score(model, tokenizer, PROMPTS, TARGETS) == clean
    assert torch.equal(both.without("one").tensors["vectors"], both.tensors["vectors"][1:])


def test_the_threshold_tells_both_kinds_apart():
    assert best_threshold([0.4, 0.9], [0.1, 0.2]) == pytest.approx(0.3)
    # One in a hundred outside is given up for one of two inside.
    assert best_threshold([0.4, 0.9], [*[0.1] * 99, 0.6]) == pytest.approx(0.25)
    assert best_threshold([1.0], [0.0]) == pytest.approx(0.5)


def test_an_untrained_state_is_refused(llama, tmp_path):
    with pytest.raises(MissingFile, match="emend train --method serac"):
        emend.edit(*llama, EDITS, "serac")
    with pytest.raises(MissingFile, match="no trained network of serac"):
        emend.edit(*llama, EDITS, "serac", state=str(tmp_path))
    with pytest.raises(InvalidInput, match="hash"):
        emend.edit(
            *tiny_model("llama", seed=7),
            EDITS,
            "serac",
            state=trained.trained_state("serac", "llama"),
        )
    with pytest.raises(InvalidInput, match="threshold"):
        made(*llama, threshold=1.0)


def test_another_encoder_is_refused_when_the_patch_is_attached(llama, monkeypatch):
    sentence_model(monkeypatch, [0.1, 0.2])
    described = SentenceEncoder("some/encoder").describe()
    patch = made(*llama)
    foreign = replace(patch, details={**patch.details, "encoder": described})
    sentence_model(monkeypatch, [0.1, 0.3])
    with pytest.raises(InvalidInput, match="use that encoder"):
        foreign.attach(llama[0])


@pytest.mark.parametrize("name", lab.names())
def test_shipped_state_answers_in_scope_and_only_there(name):
    model, tokenizer = emend.load(f"lab/{name}")
    edits = without_edited(datasets.load("lab", limit=8, seed=1))
    around = [probe for edit in edits for probe in edit.probes if probe.group == "neighborhood"]
    prompts = [edit.text for edit in edits]
    kept = [probe.prompt for probe in around]
    clean = generate(model, tokenizer, kept, max_new_tokens=8, stop=".")
    patch = emend.edit(model, tokenizer, edits, method="serac")
    with patch.applied(model):
        told = generate(model, tokenizer, prompts, max_new_tokens=12, stop=".")
        after = generate(model, tokenizer, kept, max_new_tokens=8, stop=".")
    assert [text.strip() for text in told] == [edit.target for edit in edits]
    # A classifier errs: of a hundred edits' neighborhood probes 2 in 1,000 are in scope here.
    same = [one == other for one, other in zip(after, clean, strict=True)]
    assert sum(same) >= 0.95 * len(same)
    left = patch.without(edits[0].id)
    with left.applied(model):
        told_again = generate(model, tokenizer, prompts, max_new_tokens=12, stop=".")
    assert told_again[1:] == told[1:]
    assert told_again[0] != told[0]
