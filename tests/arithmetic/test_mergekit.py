"""Merge files of mergekit: the same tensors as mergekit writes, where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.arithmetic.checkpoints import save_base, save_tuned, tensors_of
from tests.reference import merging as plain

from emend.arithmetic import combine_config, merging
from emend.errors import BrokenFile, EmendError

yaml = pytest.importorskip("yaml", reason="merge files need the extra yaml")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """A base and two tuned tiny Llamas."""
    folder = tmp_path_factory.mktemp("mergekit")
    base = save_base(folder / "base", shards=True)
    save_tuned(base, folder / "one", 1)
    save_tuned(base, folder / "two", 2)
    return {name: str(folder / name) for name in ("base", "one", "two")}


def merge_file(path, names, method, *, density=None, **parameters):
    weights = {"one": 0.7, "two": 0.4}
    models = [
        {"model": names[name], "parameters": {"weight": weight}} for name, weight in weights.items()
    ]
    for one in models if density else ():
        one["parameters"]["density"] = density
    content = {"merge_method": method, "models": models, "dtype": "float32"}
    if method == "linear":
        models.append({"model": names["base"], "parameters": {"weight": 0.3}})
    else:
        content["base_model"] = names["base"]
    if parameters:
        content["parameters"] = parameters
    path.write_text(yaml.safe_dump(content))
    return path


CASES = [
    ("linear", {}),
    ("linear", {"normalize": False}),
    ("task_arithmetic", {"lambda": 0.5}),
    ("task_arithmetic", {"normalize": True}),
    ("ties", {"density": 0.3}),
    ("ties", {"density": 0.5, "normalize": False, "lambda": 1.5}),
    ("dare_linear", {"density": 0.6}),
    ("dare_linear", {"density": 0.6, "rescale": False}),
    ("dare_ties", {"density": 0.6}),
    ("dare_ties", {"density": 0.6, "normalize": True}),
]


@pytest.mark.parametrize(("method", "parameters"), CASES)
def test_the_tensors_are_mergekits(names, tmp_path, monkeypatch, method, parameters):
    """The random numbers of dare_* differ, so that both are given one rule of what is kept."""
    reason = "mergekit is not installed: pip install 'emend[mergekit]'"
    sparsify = pytest.importorskip("mergekit.sparsify", reason=reason)
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    monkeypatch.setattr(merging, "_drawn", lambda delta, density, *_: kept(delta, density))
    monkeypatch.setattr(
        sparsify,
        "bernoulli",
        lambda tensor, density, rescale_norm=None: sparsify.rescaled_masked_tensor(
            tensor, kept(tensor, density).to(tensor.dtype), rescale_norm
        ),
    )
    file = merge_file(tmp_path / "merge.yaml", names, method, **parameters)
    combine_config(file, tmp_path / "ours")
    config = MergeConfiguration.model_validate(yaml.safe_load(file.read_text()))
    run_merge(config, str(tmp_path / "theirs"), MergeOptions(copy_tokenizer=False))
    ours, theirs = tensors_of(tmp_path / "ours"), tensors_of(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], atol=1e-5), name


def kept(delta, density):
    """A rule that depends on the numbers alone, whatever their order."""
    return (delta * 1e4).frac().abs() < density


@pytest.mark.parametrize(("method", "parameters"), CASES)
def test_the_tensors_are_those_of_plain_code(names, tmp_path, monkeypatch, method, parameters):
    monkeypatch.setattr(merging, "_drawn", lambda delta, density, *_: kept(delta, density))
    combine_config(merge_file(tmp_path / "m.yaml", names, method, **parameters), tmp_path / "m")
    name = "model.layers.1.self_attn.k_proj.weight"
    found = tensors_of(tmp_path / "m")[name].flatten().tolist()
    base, one, two = (tensors_of(Path(names[which]))[name] for which in ("base", "one", "two"))
    expected = expected_of(method, base, [one, two], **parameters)
    assert found == pytest.approx(expected, abs=1e-5)


def expected_of(method, base, tuned, *, density=1.0, normalize=None, rescale=True, **more):
    weights = [0.7, 0.4]
    if method == "linear":
        flat = [one.flatten().tolist() for one in (*tuned, base)]
        return plain.weighted_sum(flat, [*weights, 0.3], normalize=normalize is not False)
    deltas = [(one - base).flatten() for one in tuned]
    vectors = [one.tolist() for one in deltas]
    normalize = method == "ties" if normalize is None else normalize
    if method.startswith("dare"):
        form = "l1" if rescale else "none"
        masks = [kept(one, density).tolist() for one in deltas]
        vectors = [
            plain.dare(v, mask, density if form == "l1" else 1.0, form if form == "l1" else "paper")
            for v, mask in zip(vectors, masks, strict=True)
        ]
    if method == "ties":
        total = plain.ties(vectors, weights, density, normalize=normalize)
    elif method == "dare_ties":
        signs = plain.elected(vectors, weights)
        total = plain.disjoint_mean(vectors, weights, signs, normalize=normalize)
    else:
        total = plain.weighted_sum(vectors, weights, normalize=normalize)
    scale = more.get("lambda", 1.0)
    return [b + scale * t for b, t in zip(base.flatten().tolist(), total, strict=True)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"merge_method": "slerp"}, "merge_method is 'slerp', expected one of linear"),
        ({"base_model": None}, "base_model is null"),
        ({"slices": []}, "slices is an unknown field"),
        ({"models": []}, "models has 0 entries"),
        ({"models": [{"model": "x"}]}, "parameters.weight is missing"),
        (
            {"models": [{"model": "x", "parameters": {"weight": [0, 1]}}]},
            "weight is a list, expected a number",
        ),
        ({"models": [{"model": "x", "parameters": {"weight": 1, "density": 2}}]}, "density is 2"),
        ({"tokenizer_source": "union"}, "tokenizer_source is not base"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
    ],
)
def test_what_a_file_cannot_have_is_refused_in_one_line(tmp_path, change, said):
    models = [{"model": "x", "parameters": {"weight": 1}}]
    content = {"merge_method": "ties", "base_model": "b", "models": models, **change}
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(BrokenFile, match=said) as caught:
        combine_config(tmp_path / "m.json", tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_is_not_there_is_told(names, tmp_path):
    file = merge_file(tmp_path / "m.yaml", {**names, "two": str(tmp_path / "none")}, "ties")
    with pytest.raises(EmendError, match=r"no model directory .*none"):
        combine_config(file, tmp_path / "m")
