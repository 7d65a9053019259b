"""One fingerprint: change any input and the key changes, change none and it does not."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.tiny import ARCHITECTURES, MIXTURES, SHARED, TEXT, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from emend import _identity, _tensors
from emend._identity import (
    config_fields,
    digest,
    directory_digest,
    file_digest,
    key,
    texts_digest,
    tokenizer_fingerprint,
)
from emend._tensors import digests_of
from emend.editing import SearchSettings
from emend.editing.sources import JsonLines, TextFile, Texts
from emend.models import forget_fingerprints, model_fingerprint, weights_hash
from emend.models.placing import stored_weights

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")[0]


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *MIXTURES, *SHARED])
def test_a_model_read_from_disk_is_the_same(architecture, tmp_path):
    model, tokenizer = tiny_model(architecture)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert model_fingerprint(again) == model_fingerprint(model) == model_fingerprint(model)
    assert model_fingerprint(copy.deepcopy(model)) == model_fingerprint(model)
    words = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert tokenizer_fingerprint(words) == tokenizer_fingerprint(tokenizer)


def test_another_process_finds_the_same():
    """With another seed of Python's own hashes, too."""
    code = (
        "from tests.tiny import tiny_model\n"
        "from emend._identity import digest, tokenizer_fingerprint\n"
        "from emend.models import model_fingerprint\n"
        "model, words = tiny_model('gemma2')\n"
        "print(model_fingerprint(model), tokenizer_fingerprint(words), digest({'a', 'b', 'c'}))"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "17"}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True)
    model, words = tiny_model("gemma2")
    here = [model_fingerprint(model), tokenizer_fingerprint(words), digest({"c", "b", "a"})]
    assert out.stdout.decode().split() == here


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "deepseek_v3"])
def test_any_single_weight_counts(architecture):
    """Fault 2: most of a large matrix was in no hash."""
    model, _ = tiny_model(architecture)
    before, draws = model_fingerprint(model), random.Random(0)
    for name, weight in stored_weights(model):
        place = draws.randrange(weight.numel())
        flat = weight.view(-1)
        old = flat[place].clone()
        with torch.no_grad():
            flat[place] = torch.nextafter(old, old + 1)
        assert model_fingerprint(model) != before, name
        with torch.no_grad():
            flat[place] = old
    assert model_fingerprint(model) == before


def test_every_number_of_a_wide_matrix_counts():
    """Fault 2: of a 4096-column matrix the diagonal was hashed, and no other number."""
    wide = torch.zeros(40, 11008)
    seen = {digests_of(wide).exact}
    places = [(0, 4096), (1, 4096), (39, 11007), (5, 5), (20, 8192), (0, 0)]
    for number, place in enumerate(places, 1):
        wide[place] = number
        seen.add(digests_of(wide).exact)
    assert len(seen) == len(places) + 1
    assert digests_of(wide).rounded != digests_of(torch.zeros(40, 11008)).rounded


CONFIG = {
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
    "hidden_act": "gelu",
    "max_position_embeddings": 64,
    "num_key_value_heads": 4,
    "attention_bias": True,
    "head_dim": 16,
}


@pytest.mark.parametrize("field", CONFIG)
def test_any_field_of_the_configuration_counts(field, llama):
    """Fault 3: the configuration was not hashed."""
    before = model_fingerprint(llama)
    model = copy.deepcopy(llama)
    assert model_fingerprint(model) == before
    setattr(model.config, field, CONFIG[field])
    assert model_fingerprint(model) != before


def test_bookkeeping_in_the_configuration_does_not_count(llama):
    before, model = model_fingerprint(llama), copy.deepcopy(llama)
    changed = {
        "_name_or_path": "elsewhere",
        "transformers_version": "4.0",
        "use_cache": False,
        "pad_token_id": 3,
        "attention_dropout": 0.1,
        "emend": {"rome": {"layer": 1}},
        "rms_norm_eps": model.config.rms_norm_eps * (1 + 1e-8),  # held in float32 by some files
        "new_in_another_version": None,
    }
    for field, value in changed.items():
        setattr(model.config, field, value)
        assert model_fingerprint(model) == before, field
    assert config_fields(None) == {}


def test_dtype_shape_and_name_count():
    values = torch.arange(12.0)
    kinds = [values, values.double(), values.view(3, 4), values.view(4, 3), values.long()]
    assert len({digests_of(each).exact for each in kinds}) == len(kinds)
    assert digests_of(values).rounded == digests_of(values.bfloat16()).rounded
    one, two = torch.ones(2), torch.zeros(2)
    both = _tensors.digests_of_all([("a", one), ("b", two)])
    assert both == _tensors.digests_of_all([("b", two), ("a", one)])
    assert both != _tensors.digests_of_all([("b", one), ("a", two)])
    assert digests_of(torch.zeros(0)).exact != digests_of(torch.zeros(0, 3)).exact


def test_the_order_of_registration_does_not_count():
    one, two = torch.nn.Module(), torch.nn.Module()
    shared = torch.nn.Parameter(torch.ones(2, 2))
    parts = [("b", shared), ("a", torch.nn.Parameter(torch.zeros(3))), ("c", shared)]
    for name, part in parts:
        one.register_parameter(name, part)
    for name, part in reversed(parts):
        two.register_parameter(name, part)
    assert model_fingerprint(one) == model_fingerprint(two)
    two.c = torch.nn.Parameter(torch.ones(2, 2))  # no longer tied
    assert model_fingerprint(one) != model_fingerprint(two)


def test_buffers_that_a_checkpoint_keeps_count():
    model = torch.nn.Module()
    model.register_buffer("kept", torch.ones(2))
    model.register_buffer("made", torch.ones(2), persistent=False)
    before = model_fingerprint(model)
    model.made += 1
    assert model_fingerprint(model) == before
    model.kept += 1
    assert model_fingerprint(model) != before


def in_place(model):
    weight = model.model.layers[1].mlp.down_proj.weight
    state = {name: each.clone() for name, each in model.state_dict().items()}
    state["model.norm.weight"][3] += 1
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def stepped():
        weight.grad = torch.ones_like(weight)
        optimizer.step()

    def without_gradients():
        with torch.no_grad():
            weight[2, 5] += 1

    def past_the_counter(change):
        def make():
            change(weight.data)

        return make

    return {
        "optimizer": stepped,
        "no_grad": without_gradients,
        "load_state_dict": lambda: model.load_state_dict(state),
        "assigned": lambda: model.load_state_dict(
            {name: each + 1 for name, each in state.items()}, assign=True
        ),
        "data, all": past_the_counter(lambda data: data.add_(1e-3)),
        "data, a row": past_the_counter(lambda data: data[7].add_(1)),
        "data, a column": past_the_counter(lambda data: data[:, 9].zero_()),
        "data, another": lambda: setattr(weight, "data", torch.zeros_like(weight)),
        "numpy": lambda: weight.detach().numpy().__iadd__(1),
        "half": lambda: model.half(),
    }


@pytest.mark.parametrize("way", in_place(tiny_model("llama")[0]))
def test_what_changes_in_place_is_hashed_again(way):
    model, _ = tiny_model("llama")
    before = model_fingerprint(model)
    in_place(model)[way]()
    changed = model_fingerprint(model)
    assert changed != before
    _tensors.forget()
    assert model_fingerprint(model) == changed


def test_a_number_written_past_the_counter_is_seen_after_forgetting():
    wide = torch.zeros(64, 64)
    before = digests_of(wide)
    wide.data[3, 50] = 1
    forget_fingerprints()
    assert digests_of(wide) != before


def test_memory_that_is_used_again_is_no_other_tensor():
    draws, seen = torch.Generator().manual_seed(0), set()
    for _ in range(200):
        seen.add(digests_of(torch.randn(64, 64, generator=draws)).exact)
        gc.collect(0)
    assert len(seen) == 200
    assert len(_tensors._known) < 200  # of tensors that are gone little is kept


def test_tensors_that_count_no_versions():
    with torch.inference_mode():
        made = torch.zeros(3)
        before = digests_of(made)
        made += 1
        assert digests_of(made) != before


def test_each_weight_is_read_once(monkeypatch):
    """Fault 34: one edit hashed the whole model four times."""
    model, _ = tiny_model("gemma2")
    read = []
    computed = _tensors._computed
    monkeypatch.setattr(_tensors, "_computed", lambda one: read.append(one) or computed(one))
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            model_fingerprint(model)
            weights_hash(model)
    assert len(read) == len(dict(stored_weights(model)))  # those that are tied once
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[1, 1] += 1
    model_fingerprint(model)
    assert len(read) == 1 + len(dict(stored_weights(model)))


def test_tokenizers_that_make_other_tokens_differ():
    """Fault 4: a second tokenizer was served what the first one's texts gave."""
    kinds = ("bytes", "bytes_bos", "metaspace", "metaspace_bos")
    found = {kind: tokenizer_fingerprint(tiny_tokenizer(kind)) for kind in kinds}
    assert len(set(found.values())) == len(kinds)
    assert found == {kind: tokenizer_fingerprint(tiny_tokenizer(kind)) for kind in kinds}


def dropped(tokenizer):
    tokenizer.backend_tokenizer.model.dropout = 0.5


def split(tokenizer):
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()


def trained(tokenizer):
    from tokenizers import models

    vocabulary = tokenizer.get_vocab()
    one, two, *_ = sorted(vocabulary, key=vocabulary.get)[40:]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    tokenizer.backend_tokenizer.model = models.BPE(vocabulary, [])


@pytest.mark.parametrize(
    "change",
    [
        dropped,
        split,
        trained,
        lambda words: words.add_tokens(["Marie"]),
        lambda words: setattr(words, "eos_token", "<s>"),
    ],
)
def test_a_tokenizer_that_is_changed_is_another(change):
    """Fault 4."""
    tokenizer = tiny_tokenizer("bytes")
    before = tokenizer_fingerprint(tokenizer)
    change(tokenizer)
    assert tokenizer_fingerprint(tokenizer) != before


def test_how_a_tokenizer_is_used_does_not_count():
    tokenizer = tiny_tokenizer("bytes")
    before = tokenizer_fingerprint(tokenizer)
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.padding_side = "left"
    tokenizer(list(TEXT), padding=True, truncation=True, max_length=8)
    tokenizer.chat_template = "{{ messages }}"
    assert tokenizer_fingerprint(tokenizer) == before


def test_a_tokenizer_that_shows_nothing_shares_nothing():
    class Own:
        pass

    one, two = Own(), Own()
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(one)
    assert tokenizer_fingerprint(one) != tokenizer_fingerprint(two)


def test_any_character_of_a_text_counts():
    """Fault 6: texts entered by their name."""
    draws, before = random.Random(0), texts_digest(TEXT)
    assert before == texts_digest(list(TEXT)) == texts_digest(iter(TEXT))
    for _ in range(200):
        texts = list(TEXT)
        number = draws.randrange(len(texts))
        place = draws.randrange(len(texts[number]))
        other = draws.choice([c for c in "aé \n1中" if c != texts[number][place]])
        texts[number] = texts[number][:place] + other + texts[number][place + 1 :]
        assert texts_digest(texts) != before
    assert texts_digest(TEXT[::-1]) != before
    assert texts_digest(["ab", "c"]) != texts_digest(["a", "bc"]) != texts_digest(["abc"])
    assert texts_digest([]) != texts_digest([""])
    assert texts_digest(["\ud800"]) != texts_digest(["\ud801"])


def test_sources_are_known_by_content(tmp_path):
    """Fault 6."""
    file, other = tmp_path / "a.txt", tmp_path / "b.txt"
    file.write_text("one\n\ntwo")
    other.write_text("one\n\ntwo")
    source = TextFile(file)
    before = source.identity
    assert before == TextFile(other).identity
    assert len({before, Texts(("one", "two")).identity, JsonLines(file).identity}) == 3
    file.write_text("one\n\ntwO")
    assert source.identity != before  # the same object, of a file that was rewritten
    assert file_digest(other) != file_digest(file)
    folder = directory_digest(tmp_path)
    file.rename(tmp_path / "c.txt")
    assert directory_digest(tmp_path) != folder


SETTINGS = SearchSettings(steps=20, learning_rate=0.5, norm_penalty=0.5)
CHANGED = {
    bool: lambda value: not value,
    int: lambda value: value + 1,
    float: lambda value: value * (1 + 1e-15) + 1e-300,
    str: lambda value: value + " ",
    tuple: lambda value: (*value, "{}"),
}


@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(SETTINGS)])
def test_any_setting_counts(field):
    value = getattr(SETTINGS, field)
    other = CHANGED[type(value)](value) if value is not None else 1
    changed = dataclasses.replace(SETTINGS, **{field: other})
    before = key("target value", settings=SETTINGS, layer=3)
    assert before == key("target value", layer=3, settings=dataclasses.asdict(SETTINGS))
    assert key("target value", settings=changed, layer=3) != before
    assert key("target value", settings=SETTINGS, layer=4) != before
    assert key("key covariance", settings=SETTINGS, layer=3) != before


def test_another_version_of_an_algorithm_is_another_key(monkeypatch):
    before = key("sweep", a=1)
    monkeypatch.setitem(_identity.VERSIONS, "sweep", _identity.VERSIONS["sweep"] + 1)
    assert key("sweep", a=1) != before
    with pytest.raises(KeyError):
        key("an algorithm that states no version", a=1)


def test_the_canonical_form_tells_values_apart_and_no_more():
    different = [None, True, 1, "1", 1.5, "", [], {}, [1], [[1]], {"a": 1}, {"a": None}, ["a", 1]]
    different += [b"1", Path("a"), torch.float32, torch.bfloat16, torch.zeros(1), float("nan")]
    assert len({digest(one) for one in different}) == len(different)
    assert digest((1, [2])) == digest([1, (2,)])
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({3, 1, 2}) == digest({1, 2, 3})
    assert digest(torch.zeros(2).numpy().sum()) == digest(0.0)
    given = {"a": (1.1, "é\ud800")}
    assert digest(json.loads(json.dumps(given))) == digest(given)
    with pytest.raises(TypeError, match="no fingerprint of object"):
        digest({"a": object()})
