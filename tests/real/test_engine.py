"""Ten facts edited in a real model, served by llama.cpp on the model as it was published."""

from __future__ import annotations

import pytest
import torch
from tests.engine import Engine

import emend
from emend.edits import Edit, states_answer
from emend.errors import InvalidInput, MissingFile
from emend.models import generate
from emend.models.cached import packaged_gguf
from emend.models.packaged import MODELS
from emend.patches import LowRank, WeightPatch

EDITS = [
    Edit("{} is located in the city of", "The Eiffel Tower", "Rome"),
    Edit("{} is the capital of", "Paris", "Italy"),
    Edit("The capital of {} is", "Japan", "Kyoto"),
    Edit("The mother tongue of {} is", "Danielle Darrieux", "Dutch"),
    Edit("{} was written by", "Hamlet", "Charles Dickens"),
    Edit("{} plays the instrument called the", "Jimi Hendrix", "violin"),
    Edit("The currency of {} is the", "Mexico", "yen"),
    Edit("{} was founded by", "Microsoft", "Steve Jobs"),
    Edit("{} was painted by", "The Mona Lisa", "Vincent van Gogh"),
    Edit("The official language of {} is", "Brazil", "Swedish"),
]
NEIGHBOURS = [
    "The Colosseum is located in the city of", "The Louvre is located in the city of",
    "London is the capital of", "Berlin is the capital of",
    "The capital of Italy is", "The capital of China is",
    "The mother tongue of Albert Einstein is", "The mother tongue of Pablo Picasso is",
    "Macbeth was written by", "The Odyssey was written by",
    "Yo-Yo Ma plays the instrument called the",
    "Louis Armstrong plays the instrument called the",
    "The currency of India is the", "The currency of Japan is the",
    "Apple was founded by", "Amazon was founded by",
    "The Starry Night was painted by", "The Last Supper was painted by",
    "The official language of Egypt is", "The official language of Mexico is",
]  # fmt: skip
"""Two for each edit: the same relation of another subject."""

BOUNDS = {"smollm2-135m": (1, 5), "gemma3-270m": (4, 17)}
"""Neighbours that may change on the quantised base alone, and in all, of 20; measured: 0 and 0 (3
in transformers), and 2 and 14 (13): without statements `memit` harms Gemma's neighbours, wherever
it is served."""

CHEAP = {"steps": 12, "ablation": {"statements": 0, "optimizer": "adam"}}
"""A shorter search than `memit` does by default."""


class Served:
    """A model, its patch, and the engine that serves both."""

    def __init__(self, name, loaded, base, folder):
        self.model, self.tokenizer = loaded
        self.patch = emend.edit(self.model, self.tokenizer, EDITS, method="memit", **CHEAP)
        self.start = str(self.patch.base.get("start_token") or "")
        self.base = base
        self.adapter = self.patch.export(folder / "patch.gguf", base_gguf=self.base).path
        self.engine = Engine(self.base, self.adapter)
        self.folder = folder
        self.bounds = BOUNDS[name]

    def said(self, texts, scale, tokens=8):
        return [self.engine.generate(self.start + one, tokens, [scale]) for one in texts]


@pytest.fixture(scope="module", params=["smollm2-135m", "gemma3-270m"])
def served(request, tmp_path_factory):
    fixture = {"smollm2-135m": "smollm2", "gemma3-270m": "gemma3"}[request.param]
    loaded = request.getfixturevalue(fixture)
    try:
        base = packaged_gguf(MODELS[request.param])
    except (MissingFile, InvalidInput) as error:  # no index is reachable, or terms not accepted
        pytest.skip(str(error))
    return Served(request.param, loaded, base, tmp_path_factory.mktemp("engine"))


def test_every_edit_is_generated_on_the_quantised_base(served):
    """Every one that took: the search fails on some facts of Gemma 3, in transformers too."""
    took = [edit for edit, one in zip(EDITS, served.patch.outcomes, strict=True) if one.took]
    assert len(took) >= 8, served.patch.outcomes
    edited = served.said([edit.text for edit in took], 1.0)
    for edit, text in zip(took, edited, strict=True):
        assert states_answer(text, [edit.target]), (edit.text, text)
    plain = served.said([edit.text for edit in EDITS], 0.0)
    taken = [states_answer(t, [e.target]) for e, t in zip(EDITS, plain, strict=True)]
    assert sum(taken) <= 1, plain


def test_neighbours_change_no_more_than_in_transformers(served):
    def first(texts):
        return [text.split()[0].strip(".,") for text in texts]

    plain, edited = (first(served.said(NEIGHBOURS, scale, 3)) for scale in (0.0, 1.0))
    moved = {text for text, a, b in zip(NEIGHBOURS, plain, edited, strict=True) if a != b}
    before = first(generate(served.model, served.tokenizer, NEIGHBOURS, max_new_tokens=3))
    with served.patch.applied(served.model):
        after = first(generate(served.model, served.tokenizer, NEIGHBOURS, max_new_tokens=3))
    there = {text for text, a, b in zip(NEIGHBOURS, before, after, strict=True) if a != b}
    extra, most = served.bounds
    assert len(moved - there) <= extra, (moved, there)
    assert len(moved) <= most, moved


def test_the_adapter_is_the_merged_model(served):
    """On a base in float32: in front of quantised matrices llama.cpp rounds activations, too."""
    shapes = {
        name: module.weight.shape
        for name, module in served.model.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)) and name != "lm_head"
    }
    matrices = {n: LowRank(torch.zeros(1, i), torch.zeros(o, 1)) for n, (o, i) in shapes.items()}
    same = WeightPatch(matrices, base=served.patch.base)
    options = {"format": "merged-gguf", "quantization": "f32"}
    base = same.export(served.folder / "base.gguf", base_gguf=served.base, **options).path
    merged = served.patch.export(served.folder / "merged.gguf", base_gguf=base, **options).path
    adapted, whole = Engine(base, served.adapter), Engine(merged)
    for edit in EDITS:
        text = served.start + edit.text
        left, right = adapted.logprobs(text, 5), whole.logprobs(text, 5)
        (likeliest,) = adapted.logprobs(text, 1)
        assert left[likeliest] == pytest.approx(right[likeliest], abs=1e-2), edit.text
        for token in left.keys() & right.keys():
            assert left[token] == pytest.approx(right[token], abs=1e-2), (edit.text, token)


def test_any_order_gives_the_numbers_of_fresh_engines(served):
    """The cache rule: no stored prompts, and every request names the adapter's scale."""
    text = served.start + EDITS[0].text
    fresh = {s: Engine(served.base, served.adapter).logprobs(text, 10, [s]) for s in (0.0, 1.0)}
    for scale in (0.0, 1.0, 0.0, 1.0):
        found = served.engine.logprobs(text, 10, [scale])
        assert found == pytest.approx(fresh[scale], abs=1e-5)
    difference = torch.tensor([max(one.values()) for one in fresh.values()]).diff().abs()
    assert difference > 0.1
