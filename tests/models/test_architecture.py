"""Architectures that are not found by watching them run: their parts are named."""

from __future__ import annotations

import sys

import pytest
import torch
from tests.tiny import tiny_model
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

import emend
from emend.errors import BrokenFile, UnsupportedModel
from emend.models import Architecture, ModelView, generate

NAMES = {"attention": "core.mixing", "mlp": "core.feed", "norm": "closing"}
EDIT = emend.Edit("A city that is named after {}", "Marie Curie", "P", id="one")


class ParcelConfig(PretrainedConfig):
    model_type = "parcel"

    def __init__(self, vocab_size=300, hidden_size=32, num_hidden_layers=3, **rest):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers = num_hidden_layers
        super().__init__(**rest)


class Mixing(nn.Module):
    """Attention of one head."""

    def __init__(self, size):
        super().__init__()
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)

    def forward(self, hidden):
        query, key, value = self.qkv(hidden).chunk(3, -1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed)


class Feed(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.up, self.down = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, hidden):
        return self.down(torch.relu(self.up(hidden)))


class Core(nn.Module):
    """Both in one child of the layer, which is what the search by behaviour misses."""

    def __init__(self, size):
        super().__init__()
        self.before, self.between = nn.LayerNorm(size), nn.LayerNorm(size)
        self.mixing, self.feed = Mixing(size), Feed(size)

    def forward(self, hidden):
        hidden = hidden + self.mixing(self.before(hidden))
        return hidden + self.feed(self.between(hidden))


class Layer(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.core = Core(size)

    def forward(self, hidden):
        return self.core(hidden)


class Closing(nn.Module):
    """A norm with an unusual second step, so that its parts alone are not what it does."""

    def __init__(self, size):
        super().__init__()
        self.norm = nn.LayerNorm(size)

    def forward(self, hidden):
        return self.norm(hidden) * 2


class Parcel(PreTrainedModel):
    config_class = ParcelConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.places = nn.Embedding(512, config.hidden_size)
        self.layers = nn.ModuleList(
            Layer(config.hidden_size) for _ in range(config.num_hidden_layers)
        )
        self.closing = Closing(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.embedding

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, use_cache=False):
        first = 0 if past_key_values is None else past_key_values[0].shape[1]
        ids = (
            input_ids if past_key_values is None else torch.cat([past_key_values[0], input_ids], 1)
        )
        hidden = self.embedding(ids) + self.places(torch.arange(ids.shape[1]))
        for layer in self.layers:
            hidden = layer(hidden)
        logits = self.head(self.closing(hidden[:, first:]))
        return CausalLMOutputWithPast(logits=logits, past_key_values=(ids,) if use_cache else None)


def parcel(seed=0):
    _, tokenizer = tiny_model("gpt2")
    torch.manual_seed(seed)
    model = Parcel(ParcelConfig(vocab_size=len(tokenizer))).eval()
    with torch.no_grad():  # MLPs that decide what is generated
        for layer in model.layers:
            layer.core.feed.down.weight.mul_(30)
    return model, tokenizer


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """A package that registers the names, as `pip install` would put it there."""

    def register(value):
        (tmp_path / "their_parcel.py").write_text(
            f"from emend.models import Architecture\n\nparcel = {value}\n"
        )
        information = tmp_path / "parcel-1.0.dist-info"
        information.mkdir(exist_ok=True)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(
            "[emend.architectures]\nparcel = their_parcel:parcel\n"
        )
        monkeypatch.syspath_prepend(tmp_path)

    yield register
    sys.modules.pop("their_parcel", None)


def test_it_is_missed_without_names():
    model, _ = parcel()
    with pytest.raises(UnsupportedModel, match="name its parts"):
        ModelView(model)


def test_its_parts_are_those_named():
    model, _ = parcel()
    view = ModelView(model, **NAMES)
    assert view.attention(1) is model.layers[1].core.mixing
    assert view.mlp(1) is model.layers[1].core.feed
    assert view.down_projection(1) is model.layers[1].core.feed.down
    assert view.final_norm is model.closing
    assert (view.num_layers, view.hidden_size, view.intermediate_size(0)) == (3, 32, 64)


@pytest.mark.filterwarnings("ignore:Parcel does not take cached keys")
def test_a_registered_one_is_edited_end_to_end(registered):
    registered(f"Architecture(**{NAMES})")
    model, tokenizer = parcel()
    assert ModelView(model).mlp(0) is model.layers[0].core.feed
    patch = emend.edit(model, tokenizer, [EDIT], method="rome", layer=1)
    assert [*patch.factors] == ["layers.1.core.feed.down"]
    before = generate(model, tokenizer, [EDIT.text], max_new_tokens=5)
    assert not before[0].startswith(" P")
    with patch.applied(model):
        assert generate(model, tokenizer, [EDIT.text], max_new_tokens=5)[0].startswith(" P")
    assert generate(model, tokenizer, [EDIT.text], max_new_tokens=5) == before


def test_arguments_come_before_what_is_registered(registered):
    registered("Architecture(attention='core.mixing', mlp='core.mixing', norm='closing')")
    model, _ = parcel()
    assert ModelView(model).mlp(0) is model.layers[0].core.mixing
    assert ModelView(model, mlp="core.feed").mlp(0) is model.layers[0].core.feed


def test_of_several_names_the_first_that_is_there_counts():
    model, _ = parcel()
    view = ModelView(model, **{**NAMES, "mlp": ("core.experts", "core.feed")})
    assert view.mlp(2) is model.layers[2].core.feed


def test_wrong_names_are_refused(registered):
    model, _ = parcel()
    with pytest.raises(UnsupportedModel, match=r"no submodule feed, .* its mlp.*it holds core"):
        ModelView(model, **{**NAMES, "mlp": "feed"})
    with pytest.raises(UnsupportedModel, match="expected a ModuleList"):
        ModelView(model, layers="closing", **NAMES)
    registered("{'mlp': 'core.feed'}")
    with pytest.raises(BrokenFile, match=r"expected a Architecture"):
        ModelView(model)


def test_names_of_a_known_architecture_change_nothing():
    model, _ = tiny_model("gpt2", layers=2)
    found = ModelView(model)
    named = ModelView(model, layers="transformer.h", attention="attn", mlp="mlp")
    assert named.down_projection(1) is found.down_projection(1)
    assert named.attention(1) is found.attention(1)
    assert Architecture() == Architecture(layers=None)
