"""The engine, and ROME on it, reproduce the recordings of the published ROME."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from functools import lru_cache

import pytest
import torch
from tests.parity.recorded import LAYER, NAMES, SITES, TAGS, recorded, relative

from emend.editing import SearchSettings, Value, collect_covariance, optimise_values, subject_keys
from emend.edits import Edit
from emend.methods.rome import published_updates, rome
from emend.models import ModelView
from emend.patches import WeightPatch


def edit_of(name: str, tag: str) -> Edit:
    request = recorded(name).runs[tag]["request"]
    return Edit(request["prompt"], request["subject"], request["target_new"]["str"])


def steps_of(tag: str) -> int:
    return 5 if tag.startswith("cov5") else 20


@lru_cache(maxsize=64)
def value_of(name: str, tag: str, published: bool) -> Value:
    facts = recorded(name)
    settings = SearchSettings(steps=steps_of(tag), clamp=3.0, published_order=published)
    view = ModelView(facts.model)
    return optimise_values(
        view, facts.tokenizer, [edit_of(name, tag)], facts.templates, LAYER, settings
    )[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tag", TAGS)
def test_value(name: str, tag: str) -> None:
    facts, value = recorded(name), value_of(name, tag, published=True)
    assert relative(value.keys, facts.tensor(tag, "k_each")) < 1e-5
    assert relative(value.keys.mean(0), facts.tensor(tag, "k_mean")) < 1e-5
    assert relative(value.initial, facts.tensor(tag, "v_init")) < 1e-5
    tolerance = 1e-5 if steps_of(tag) == 5 else 5e-4
    assert relative(value.target, facts.tensor(tag, "v_star")) < tolerance
    assert value.losses == pytest.approx(facts.runs[tag]["losses"], abs=2e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tag", ["cov.0", "cov.1", "cov.3", "cov.4"])
def test_value_in_the_fast_order(name: str, tag: str) -> None:
    found = value_of(name, tag, published=False)
    assert relative(found.target, recorded(name).tensor(tag, "v_star")) < 5e-4


@pytest.mark.parametrize("name", NAMES)
def test_values_sought_together(name: str) -> None:
    facts = recorded(name)
    tags = [f"cov.{number}" for number in range(5)]
    edits = [edit_of(name, tag) for tag in tags]
    settings = SearchSettings(clamp=3.0)
    view = ModelView(facts.model)
    found = optimise_values(view, facts.tokenizer, edits, facts.templates, LAYER, settings)
    for tag, value in zip(tags, found, strict=True):
        assert relative(value.target, facts.tensor(tag, "v_star")) < 5e-4


@pytest.mark.parametrize("name", NAMES)
def test_keys(name: str) -> None:
    facts = recorded(name)
    tags = [f"cov.{number}" for number in range(5)]
    edits = [edit_of(name, tag) for tag in tags]
    view = ModelView(facts.model)
    sites = subject_keys(view, facts.tokenizer, edits, facts.templates, [LAYER])[LAYER]
    for index, tag in enumerate(tags):
        assert relative(sites.keys[index], facts.tensor(tag, "k_each")) < 1e-5
        assert relative(sites.keys[index, 0], facts.tensor(tag, "cur_input")) < 1e-5
        assert relative(sites.outputs[index, 0], facts.tensor(tag, "cur_output")) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_second_moment(name: str) -> None:
    facts = recorded(name)
    view = ModelView(facts.model)
    found = collect_covariance(view, facts.tokenizer, facts.texts, [LAYER])[LAYER]
    assert relative(found.matrix, facts.tensors["mom2_moment"]) < 1e-5


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Generator[None, None, None]:
    """A cache of its own, so that the key covariance is taken once for all runs of a model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMEND_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tag", TAGS)
def test_change_of_the_weights(name: str, tag: str) -> None:
    facts = recorded(name)
    edits = [edit_of(name, tag)]
    settings = {"layer": LAYER, "steps": steps_of(tag), "clamp": 3.0}
    settings["ablation"] = {"norm_penalty": 0.5}
    settings |= {"templates": facts.templates, "texts": facts.texts}
    patch = rome.edit(facts.model, facts.tokenizer, edits, original=True, **settings)
    assert isinstance(patch, WeightPatch)
    assert list(patch.factors) == [SITES[name]]
    if tag.startswith("nocov"):  # the recorded run took the identity for C
        values = [value_of(name, tag, published=True)]
        change = published_updates(values, lambda keys: keys.double(), [edits[0].id])
        patch = dataclasses.replace(patch, factors={SITES[name]: change})
    (factor,) = patch.factors.values()
    u, v = facts.tensor(tag, "left_u"), facts.tensor(tag, "right_v")
    assert relative(factor.matrices()[0][0], u) < 5e-5
    assert relative(patch.delta(SITES[name]), torch.outer(v, u)) < 5e-4
    if f"{tag}.delta_W" in facts.tensors:
        change = facts.tensor(tag, "delta_W")
        change = change.T if name == "gpt2" else change  # Conv1D keeps (in, out)
        assert relative(patch.delta(SITES[name]), change) < 5e-4
