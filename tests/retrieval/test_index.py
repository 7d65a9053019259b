"""Texts are found by their words and by vectors; equal ones in their order."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from tests.retrieval.sentences import sentence_model
from tests.tiny import tiny_model

from emend.errors import InvalidInput, MissingExtra, MissingFile, UnknownName
from emend.models import ModelView
from emend.models.positions import prompt_tokens
from emend.models.start import front_ids
from emend.retrieval import DenseIndex, Hit, KeyEncoder, StateEncoder, WordIndex, build_index
from emend.retrieval.encoders import SentenceEncoder
from emend.retrieval.naming import check_description, encoder_of

TEXTS = [
    "Marie Curie was born in Paris.",
    "The spouse of Marie Curie is Tom Berg.",
    "Anna Berg works for Nordlicht.",
    "The capital of Norway is Bergen.",
]


def test_words_find_the_text_that_holds_them() -> None:
    index = WordIndex(TEXTS)
    found = index.search(["Where was Marie Curie born?", "Anna BERG's employer"], k=2)
    assert [hits[0].place for hits in found] == [0, 2]
    assert all(0 < hits[0].score < 1 for hits in found)
    assert found[0][0].score > found[0][1].score


def test_a_text_covers_itself_more_than_any_question_about_it() -> None:
    index = WordIndex(TEXTS)
    own, other = (hits[0].score for hits in index.search([TEXTS[0], "Was Zo Li born in Rome?"]))
    assert own > 0.3 > other > 0


def test_scores_are_bm25_over_the_weight_of_the_query() -> None:
    index = WordIndex(["a b", "a c c", "d"], k1=1.2, b=0.5)
    idf = {
        word: np.log(1 + (3 - held + 0.5) / (held + 0.5))
        for word, held in (("a", 2), ("c", 1), ("e", 0))
    }
    norm = 1.2 * (1 - 0.5 + 0.5 * 3 / 2)
    wanted = idf["a"] * 1 / (1 + norm) + idf["c"] * 2 / (2 + norm)
    (hit,) = index.search(["a c e"])[0]
    assert hit.place == 1
    assert hit.score == pytest.approx(wanted / sum(idf.values()), rel=1e-5)


def test_equal_texts_come_in_their_order() -> None:
    found = WordIndex(["x y", "z", "x y", "x y"]).search(["x"], k=3)[0]
    assert [hit.place for hit in found] == [0, 2, 3]


def test_nothing_in_common_and_nothing_at_all() -> None:
    assert WordIndex(TEXTS).search(["zzz"], k=2)[0] == [Hit(0, 0.0), Hit(1, 0.0)]
    assert WordIndex([]).search(["a"], k=2) == [[]]
    assert WordIndex(["..."]).search(["a"], k=2) == [[Hit(0, 0.0)]]


@pytest.mark.parametrize("encoder", ["bm25", "states"])
def test_k_below_one_is_refused(encoder) -> None:
    model, tokenizer = tiny_model("gpt2")
    index = build_index(TEXTS, encoder, model=model, tokenizer=tokenizer)
    with pytest.raises(InvalidInput, match="k is 0"):
        index.search(["a"], k=0)


def test_unknown_encoders_are_refused() -> None:
    with pytest.raises(UnknownName, match="bm25"):
        build_index(TEXTS, "bm24")
    with pytest.raises(InvalidInput, match="not at hand"):
        build_index(TEXTS, "states")


def test_sentence_transformers_are_an_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match=r"emend\[retrieval\]"):
        build_index(TEXTS, "sentence-transformers/all-MiniLM-L6-v2")


def test_sentence_transformers_encode(monkeypatch) -> None:
    sentence_model(monkeypatch, lambda text: [text.count(letter) + 0.0 for letter in "aeiou"])
    index = build_index(["aaa", "ooo", "aao"], "a/there")
    (hits,) = index.search(["ao"], k=3)
    assert [hit.place for hit in hits] == [2, 0, 1]
    assert hits[0].score == pytest.approx(3 / np.sqrt(10))
    with pytest.raises(MissingFile, match="cannot be loaded"):
        SentenceEncoder("a/missing")


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3"])
def test_states_do_not_depend_on_the_batch(architecture) -> None:
    model, tokenizer = tiny_model(architecture)
    model.train()
    alone = StateEncoder(model, tokenizer, batch_size=1).encode(TEXTS)
    together = StateEncoder(model, tokenizer).encode(TEXTS)
    assert model.training
    assert np.allclose(alone, together, atol=1e-5)
    assert np.allclose(np.linalg.norm(alone, axis=1), 1)
    index = build_index(TEXTS, "states", model=model, tokenizer=tokenizer)
    assert [hits[0].place for hits in index.search(TEXTS)] == [0, 1, 2, 3]


@pytest.mark.parametrize("words", ["bytes", "bytes_bos"])
def test_a_text_longer_than_the_context_is_read_in_windows(words) -> None:
    """Fault 21: a raw IndexError; now all of its tokens count alike."""
    model, tokenizer = tiny_model("gpt2", positions=16, tokenizer=words)
    encoder = StateEncoder(model, tokenizer, batch_size=2)
    long = " ".join(["Marie Curie was born in Warsaw, the capital of Poland."] * 3)
    found = encoder.encode(["Anna", long, "Tom"])
    (ids,) = prompt_tokens(tokenizer, [long])
    front = len(front_ids(tokenizer))
    assert (len(ids) > 32, front) == (True, int(words == "bytes_bos"))
    summed = torch.zeros(32)
    with torch.no_grad():
        for at in range(front, len(ids), 16 - front):
            window = torch.tensor([[*ids[:front], *ids[at : at + 16 - front]]])
            states = model.transformer(window, output_hidden_states=True).hidden_states
            summed += states[len(states) // 2][0, front:].sum(0)
    assert found[1] == pytest.approx((summed / summed.norm()).numpy(), abs=1e-5)
    assert found[[0, 2]] == pytest.approx(encoder.encode(["Anna", "Tom"]), abs=1e-5)
    assert encoder.encode([]).shape == (0, 0)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_keys_are_the_inputs_of_modules_at_the_last_token(architecture) -> None:
    model, tokenizer = tiny_model(architecture)
    view = ModelView(model)
    names = [view.name_of(view.down_projection(layer)) for layer in (1, 3)]
    found = KeyEncoder(model, tokenizer, names).encode(TEXTS)
    seen: list[torch.Tensor] = []
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
        for name in names
    ]
    for text, vector in zip(TEXTS, found, strict=True):
        seen.clear()
        with torch.no_grad():
            model(torch.tensor(prompt_tokens(tokenizer, [text])))
        last = [given.reshape(-1, given.shape[-1])[-1] for given in seen]
        expected = torch.cat([each / each.norm() for each in last])
        assert vector == pytest.approx(expected.numpy(), abs=1e-5)
    for hook in hooks:
        hook.remove()


def test_another_encoder_is_refused(monkeypatch) -> None:
    model, tokenizer = tiny_model("gpt2")
    other, _ = tiny_model("gpt2", seed=1)
    kept = StateEncoder(model, tokenizer).describe()
    check_description(StateEncoder(model, tokenizer).describe(), kept)
    with pytest.raises(InvalidInput, match="its vectors differ"):
        check_description(StateEncoder(other, tokenizer).describe(), kept)
    keys = [KeyEncoder(model, tokenizer, [name]).describe() for name in ("mlp.1", "mlp.0")]
    with pytest.raises(InvalidInput, match=r"encoder states of mlp\.1, but found states"):
        check_description(keys[1], keys[0])
    sentence_model(monkeypatch, [3.0, 4.0])
    kept = SentenceEncoder("some/encoder").describe()
    with pytest.raises(InvalidInput, match="made with encoder some/encoder"):
        check_description(keys[0], kept)
    assert encoder_of(kept, None, None).describe() == kept
    sentence_model(monkeypatch, [4.0, 3.0])
    with pytest.raises(InvalidInput, match="use that encoder"):
        encoder_of(kept, None, None)
    with pytest.raises(UnknownName, match="encoder"):
        encoder_of({"kind": "telepathy"}, None, None)
    assert isinstance(encoder_of(keys[0], model, tokenizer), KeyEncoder)


class Fixed:
    """An encoder that looks vectors up."""

    name = "fixed"

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def encode(self, texts):
        return self.vectors[[int(text) for text in texts]]


def fixed(count: int) -> Fixed:
    vectors = torch.randn(count, 16, generator=torch.Generator().manual_seed(0)).numpy()
    return Fixed(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_a_graph_finds_what_exact_search_does() -> None:
    pytest.importorskip("faiss")
    texts = [str(i) for i in range(500)]
    exact, graph = (DenseIndex(texts, fixed(500), large=large) for large in (500, 499))
    assert exact.exact
    assert not graph.exact
    wanted, found = (index.search(texts[:50], k=3) for index in (exact, graph))
    same = [a[0].place == b[0].place for a, b in zip(wanted, found, strict=True)]
    assert sum(same) == 50
    assert found[0][0].score == pytest.approx(1, abs=1e-4)


def test_without_faiss_search_stays_exact_and_says_so(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.warns(UserWarning, match="one by one"):
        index = DenseIndex(["0", "1", "2"], fixed(3), large=2)
    assert index.exact
    assert index.search(["2"])[0][0].place == 2
