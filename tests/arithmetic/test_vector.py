"""Vectors of two checkpoints: streamed equals in memory, and what does not fit is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.arithmetic.checkpoints import save_base, save_tuned, tensors_of

from emend.arithmetic import load_vector, scaled, tensor_files, vector
from emend.errors import BrokenFile, EmendError, InvalidInput, MissingFile, NumericalFailure
from emend.models import load, weights_hash
from emend.patches import WeightPatch, load_patch


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("checkpoints") / "base", shards=True)


@pytest.fixture(scope="module")
def tuned(base):
    return save_tuned(base, base.parent / "tuned", 1)


@pytest.fixture(scope="module")
def low_rank(base):
    return save_tuned(base, base.parent / "low_rank", 2, rank=2)


def test_a_streamed_vector_is_the_difference_in_memory(base, tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_files, "CHUNK", 100)  # several parts of each tensor
    made = vector(base, tuned, tmp_path / "v")
    expected = {name: new - tensors_of(base)[name] for name, new in tensors_of(tuned).items()}
    found = tensors_of(tmp_path / "v", "vector")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert made.norm == pytest.approx(sum(float(one.norm()) ** 2 for one in found.values()) ** 0.5)
    assert len([*(tmp_path / "v").glob("*.safetensors")]) == len([*base.glob("*.safetensors")])
    opened = load_vector(tmp_path / "v")
    assert all(torch.equal(opened.delta(name), expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])  # tied, transposed, plain
def test_the_base_is_identified_as_the_loaded_model_is(name, tmp_path):
    base = save_base(tmp_path / "base", name, dtype=torch.bfloat16)
    made = vector(base, save_tuned(base, tmp_path / "tuned", 1), tmp_path / "v")
    assert made.base["hash"] == weights_hash(load(str(base))[0])


def test_base_plus_vector_is_the_tuned_checkpoint_bit_for_bit(tmp_path):
    base = save_base(tmp_path / "base", dtype=torch.bfloat16)
    tuned = save_tuned(base, tmp_path / "tuned", 1)
    vector(base, tuned, tmp_path / "v")
    model, _ = load(str(base))
    before = {name: one.clone() for name, one in model.state_dict().items()}
    with scaled(model, load_vector(tmp_path / "v"), 1.0):
        expected = tensors_of(tuned)
        assert all(torch.equal(model.state_dict()[name], one) for name, one in expected.items())
    assert all(torch.equal(model.state_dict()[name], one) for name, one in before.items())


@pytest.mark.parametrize("name", ["llama", "gpt2"])  # gpt2 stores matrices as (in, out)
def test_a_compressed_vector_is_a_patch_for_the_base(name, tmp_path):
    base = save_base(tmp_path / "base", name)
    tuned = save_tuned(base, tmp_path / "tuned", 1, rank=2)
    made = vector(base, tuned, tmp_path / "p", rank=2)
    assert made.error < 1e-5 or made.left_out  # gpt2's positions are no linear layer
    patch = load_patch(tmp_path / "p")
    assert isinstance(patch, WeightPatch)
    assert patch.rank == 2
    model, _ = load(str(base))
    other, _ = load(str(tuned))
    ids = torch.arange(12)[None] % 50
    if not made.left_out:
        with patch.applied(model), torch.no_grad():  # the base's hash fits
            assert torch.allclose(model(ids).logits, other(ids).logits, atol=1e-3)


def test_the_error_of_a_compressed_vector_counts_what_is_left_out(base, tuned, tmp_path):
    made = vector(base, tuned, tmp_path / "p", rank=3)
    assert "model.embed_tokens.weight" in made.left_out
    patch = load_patch(tmp_path / "p")
    lost = 0.0
    for name, new in tensors_of(tuned).items():
        delta = new - tensors_of(base)[name]
        module = name.removesuffix(".weight")
        if module in patch.factors:
            delta = delta - patch.delta(module)
        lost += float(delta.double().norm()) ** 2
    assert made.error == pytest.approx(lost**0.5 / made.norm, rel=1e-4)


def test_a_tolerance_gives_the_rank(base, low_rank, tmp_path):
    made = vector(base, low_rank, tmp_path / "p", tolerance=1e-4)
    assert made.error < 1e-4
    assert load_patch(tmp_path / "p").rank == 2
    with pytest.raises(InvalidInput, match="relative error"):
        vector(base, low_rank, tmp_path / "q", rank=1, tolerance=1e-4)
    assert not (tmp_path / "q").exists()


def test_an_adapter_becomes_a_patch_of_a_rank(base, low_rank, tmp_path):
    vector(base, low_rank, tmp_path / "p", rank=2)
    made = vector(base, output_path=tmp_path / "q", adapter=tmp_path / "p", rank=1)
    assert load_patch(tmp_path / "q").rank == 1
    assert 0 < made.error < 1


def altered(base, folder, change, config=None):
    """Copy a checkpoint in one file, with its tensors changed by a function."""
    folder.mkdir()
    tensors = tensors_of(base)
    change(tensors)
    for path in base.iterdir():
        if path.suffix != ".safetensors" and "index" not in path.name:
            (folder / path.name).write_bytes(path.read_bytes())
    if config:
        settings = json.loads((folder / "config.json").read_bytes())
        (folder / "config.json").write_text(json.dumps({**settings, **config}))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


NORM, EMBEDDING = "model.norm.weight", "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(NORM), f"lacks the tensor {NORM}"),
        (lambda t: t.update(extra=torch.ones(2)), "lacks the tensor extra"),
        (lambda t: t.update({NORM: torch.ones(31)}), rf"{NORM} has shape \[32\] .* \[31\]"),
        (lambda t: t.pop("lm_head.weight"), "lm_head.weight is a tensor of its own .* and tied"),
        (lambda t: t.update({NORM: torch.ones(32).int()}), f"{NORM} is of .*int32"),
    ],
)
def test_other_tensors_are_refused_in_one_line_with_the_name(base, tmp_path, change, said):
    refused(base, altered(base, tmp_path / "other", change), tmp_path, said)


def refused(base, other, tmp_path, said, kind=InvalidInput):
    with pytest.raises(kind, match=said) as caught:
        vector(base, other, tmp_path / "v")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, EmendError)
    assert not (tmp_path / "v").exists()
    assert not [*tmp_path.glob(".v.*")]


def test_another_vocabulary_is_refused(base, tmp_path):
    size = json.loads((base / "config.json").read_bytes())["vocab_size"] + 8

    def grow(tensors):
        for name in (EMBEDDING, "lm_head.weight"):
            tensors[name] = torch.zeros(size, 32)

    other = altered(base, tmp_path / "larger", grow, {"vocab_size": size})
    refused(base, other, tmp_path, "different vocabularies")


def test_another_tokenizer_of_the_same_size_is_refused(base, tmp_path):
    other = altered(base, tmp_path / "other", lambda tensors: None)
    path = other / "tokenizer.json"
    words = json.loads(path.read_bytes())
    vocabulary = words["model"]["vocab"]
    first, second = sorted(vocabulary)[:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(words))
    refused(base, other, tmp_path, "different vocabularies: token")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused_with_its_tensor(base, tmp_path, value):
    def spoil(tensors):
        tensors[NORM] = tensors[NORM].clone()
        tensors[NORM][3] = value

    other = altered(base, tmp_path / "other", spoil)
    refused(base, other, tmp_path, f"{NORM} of .*other holds NaN or infinity", NumericalFailure)


def test_equal_checkpoints_are_refused(base, tmp_path):
    refused(base, base, tmp_path, "has the weights of")


def test_broken_files_are_refused(base, tuned, tmp_path):
    other = altered(base, tmp_path / "other", lambda tensors: None)
    file = other / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    refused(base, other, tmp_path, "is cut short", BrokenFile)
    file.write_bytes(b"no tensors at all")
    refused(base, other, tmp_path, "is cut short or not a safetensors file", BrokenFile)
    shard = next(tuned.glob("*.safetensors"))
    away = shard.rename(tmp_path / "away")
    try:
        refused(base, tuned, tmp_path, "lacks the shard", MissingFile)
    finally:
        away.rename(shard)


def test_a_directory_of_others_is_left_alone(base, tuned, tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "mine.txt").write_text("mine")
    with pytest.raises(InvalidInput, match=r"mine\.txt, which we did not write"):
        vector(base, tuned, tmp_path / "v")
    assert (tmp_path / "v" / "mine.txt").read_text() == "mine"


def test_an_old_vector_stays_where_a_new_one_fails(base, tuned, tmp_path):
    vector(base, tuned, tmp_path / "v")
    before = load_vector(tmp_path / "v").digest

    def spoil(tensors):
        tensors[NORM] = tensors[NORM] * float("nan")

    with pytest.raises(NumericalFailure):
        vector(base, altered(base, tmp_path / "other", spoil), tmp_path / "v")
    assert load_vector(tmp_path / "v").digest == before
    vector(base, tuned, tmp_path / "v", dtype="bfloat16")  # one of ours is replaced
    assert load_vector(tmp_path / "v").digest != before
    assert load_file(next((tmp_path / "v").glob("*.safetensors"))).popitem()[1].dtype is (
        torch.bfloat16
    )


def test_written_files_are_read_by_safetensors(tmp_path):
    planned = [
        tensor_files.Planned("a", torch.float32, (2, 3)),
        tensor_files.Planned("b", torch.bfloat16, ()),
        tensor_files.Planned("c", torch.bool, (0, 4)),
    ]
    tensors = [torch.randn(2, 3), torch.tensor(1.5).bfloat16(), torch.zeros(0, 4).bool()]
    with tensor_files.written(tmp_path / "x.safetensors", planned) as writer:
        for tensor in tensors:
            writer.write(tensor)
    found = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(found[p.name], t) for p, t in zip(planned, tensors, strict=True))
    places = tensor_files.read_header(tmp_path / "x.safetensors")
    assert all(torch.equal(places[p.name].read(), t) for p, t in zip(planned, tensors, strict=True))
