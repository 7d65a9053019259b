"""Text classifiers: trained on a frozen encoder, saved, loaded, and any of transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.tiny import tiny_model, tiny_tokenizer

from emend.errors import BrokenFile, InvalidInput, MissingFile, UnknownName
from emend.metrics import (
    PretrainedClassifier,
    TrainedClassifier,
    label_shares,
    load_classifier,
    train_classifier,
)
from emend.metrics._trained_classifier import fit_logistic
from emend.patches import Dense, WeightPatch
from emend.retrieval import PooledEncoder, StateEncoder, named_encoder

ANIMALS = [f"the {size} {animal} eats" for size in ("old", "big") for animal in ("cat", "dog")]
PLACES = [f"a train to {city} left" for city in ("Lyon", "Paris", "Kraków", "Aarhus")]
TEXTS, LABELS = (
    [*ANIMALS, *PLACES] * 2,
    ["animal"] * 4 + ["place"] * 4 + ["animal"] * 4 + ["place"] * 4,
)


class Letters:
    """An encoder that counts vowels."""

    def describe(self):
        return {"kind": "letters"}

    def encode(self, texts):
        counts = [[text.count(letter) for letter in "aeiou"] for text in texts]
        return np.array(counts, np.float32).reshape(len(texts), 5)


def test_logistic_regression_is_at_the_minimum_of_its_loss():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 3, generator=generator, dtype=torch.float64) * 5 + 2
    targets = (vectors[:, 0] + vectors[:, 2] > 4).long()
    weight, bias = fit_logistic(vectors, targets, 2, penalty=0.1)

    def loss(weight, bias):
        logits = vectors @ weight + bias
        norm = (weight * vectors.std(0)[:, None]).square().sum()
        return torch.nn.functional.cross_entropy(logits, targets) + 0.05 * norm

    least = loss(weight, bias)
    for _ in range(20):
        step = torch.randn(weight.shape, generator=generator, dtype=torch.float64) * 1e-2
        assert loss(weight + step, bias) > least
    assert ((vectors @ weight + bias).argmax(-1) == targets).double().mean() > 0.9


def test_accuracy_is_that_of_texts_that_were_not_trained_on():
    texts = [word * count for word in ("aa", "oo") for count in range(1, 9)]
    found = train_classifier(Letters(), texts, ["a"] * 8 + ["o"] * 8)
    assert (found.held_out, found.trained_on, found.accuracy) == (4, 12, 1.0)
    # Labels that say nothing of the text are not predicted, however well they are fitted.
    drawn = torch.Generator().manual_seed(1)
    noise = [str(int(one)) for one in torch.randint(2, (64,), generator=drawn)]
    words = ["".join("aeiou"[i] for i in torch.randint(5, (6,), generator=drawn)) for _ in noise]
    assert train_classifier(Letters(), words, noise).accuracy < 0.8


def test_a_trained_classifier_survives_saving_and_reads_the_unedited_model(tmp_path):
    model, tokenizer = tiny_model("llama")
    found = train_classifier(StateEncoder(model, tokenizer), TEXTS, LABELS)
    probabilities = found.probabilities(TEXTS)
    assert probabilities.shape == (16, 2)
    assert torch.allclose(probabilities.sum(-1), torch.ones(16))
    assert found.accuracy == 1.0
    loaded = load_classifier(found.save(tmp_path / "c.safetensors"), model, tokenizer)
    assert isinstance(loaded, TrainedClassifier)
    assert (loaded.labels, loaded.accuracy) == (("animal", "place"), 1.0)
    assert torch.equal(loaded.probabilities(TEXTS), probabilities)
    name = "model.layers.0.mlp.down_proj"
    shape = model.get_submodule(name).weight.shape
    with WeightPatch({name: Dense(torch.ones(shape))}).applied(model):
        assert torch.equal(loaded.probabilities(TEXTS), probabilities)
    other, _ = tiny_model("llama", seed=5)
    with pytest.raises(InvalidInput, match="its vectors differ"):
        load_classifier(tmp_path / "c.safetensors", other, tokenizer)
    with pytest.raises(InvalidInput, match="states of a language model and none is given"):
        load_classifier(tmp_path / "c.safetensors")


def test_a_file_of_labelled_texts_trains_one(tmp_path):
    model, tokenizer = tiny_model("gpt2")
    lines = [json.dumps({"text": t, "label": one}) for t, one in zip(TEXTS, LABELS, strict=True)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = load_classifier(tmp_path / "texts.jsonl", model, tokenizer)
    assert found.labels == ("animal", "place")
    assert label_shares(found, [ANIMALS[0], " ", PLACES[0]], "animal") == [1.0, 0.5, 0.0]
    assert label_shares(found, [" "], "animal", empty=0.0) == [0.0]
    with pytest.raises(UnknownName, match="did you mean 'animal'"):
        label_shares(found, TEXTS, "animals")
    with pytest.raises(InvalidInput, match="text to classify is empty"):
        found.probabilities([""])


def classification_model(path, labels):
    """Write a tiny text-classification model of transformers and its tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = tiny_tokenizer()
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(tokenizer), intermediate_size=16, num_labels=len(labels), **size
    )
    config.id2label = dict(enumerate(labels))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(config).eval()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return model, tokenizer


@pytest.mark.parametrize("labels", [("calm", "rude", "odd"), ("toxic",)])
def test_a_classification_model_of_transformers_is_taken_by_its_folder(labels, tmp_path):
    model, tokenizer = classification_model(tmp_path, labels)
    found = load_classifier(str(tmp_path))
    assert isinstance(found, PretrainedClassifier)
    assert found.labels == (labels if len(labels) > 1 else ("not toxic", "toxic"))
    alone = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in TEXTS[:6]]
    if len(labels) > 1:
        expected = torch.stack(alone).softmax(-1)
    else:
        toxic = torch.stack(alone).sigmoid()
        expected = torch.cat([1 - toxic, toxic], dim=-1)
    assert torch.allclose(found.probabilities(TEXTS[:6]), expected, atol=1e-5)


def test_a_transformers_encoder_is_pooled_over_tokens_and_saved_by_name(tmp_path):
    model, tokenizer = classification_model(tmp_path / "encoder", ("a", "b"))
    encoder = named_encoder(str(tmp_path / "encoder"))
    assert isinstance(encoder, PooledEncoder)
    states = model.bert(**tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state[0]
    expected = torch.nn.functional.normalize(states.mean(0), dim=0).detach()
    found = torch.from_numpy(encoder.encode([TEXTS[4], TEXTS[0]]))[1]
    assert torch.allclose(found, expected, atol=1e-5)
    trained = train_classifier(encoder, TEXTS, LABELS)
    loaded = load_classifier(trained.save(tmp_path / "c.safetensors"))
    assert torch.equal(loaded.probabilities(TEXTS), trained.probabilities(TEXTS))


def test_what_is_missing_or_broken_is_one_line(tmp_path):
    for name, message in (
        ("no/such-model", "the classifier no/such-model cannot be loaded"),
        (tmp_path / "none.jsonl", "there is no file"),
        (tmp_path / "none.safetensors", "there is no classifier"),
    ):
        with pytest.raises(MissingFile, match=message) as caught:
            load_classifier(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(MissingFile, match="the encoder no/such-encoder cannot be loaded"):
        named_encoder("no/such-encoder")
    with pytest.raises(InvalidInput, match="the encoder is states and no model is given"):
        named_encoder("states")
    (tmp_path / "bad.safetensors").write_bytes(b"not tensors")
    with pytest.raises(BrokenFile, match="holds no classifier"):
        load_classifier(tmp_path / "bad.safetensors")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\nb\n', encoding="utf-8")
    with pytest.raises(BrokenFile) as caught:
        load_classifier(tmp_path / "bad.jsonl")
    assert "bad.jsonl:1: label is missing" in str(caught.value)
    assert "bad.jsonl:2:" in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a"], ["x", "y"], "1 texts and 2 labels"),
        (["a"] * 8, ["x"] * 8, "1 labels are given"),
        (["a"] * 7, ["x"] * 4 + ["y"] * 3, "label 'y' has 3 texts"),
        (["a", " "] * 4, ["x", "y"] * 4, "only white space"),
    ],
)
def test_texts_that_cannot_train_are_refused(texts, labels, message):
    with pytest.raises(InvalidInput, match=message):
        train_classifier(Letters(), texts, labels)
