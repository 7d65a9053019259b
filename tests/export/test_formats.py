"""What exports write, what they refuse, and that nothing is half-written."""

from __future__ import annotations

import json
import resource
from dataclasses import replace

import pytest
import torch
from tests.gguf_files import gguf, write_gguf
from tests.patches.helpers import EDITS, random_patch
from tests.tiny import tiny_model

from emend.errors import InvalidInput, NumericalFailure, StoreFailure, UnsupportedModel
from emend.methods.grace import CodebookPatch
from emend.patches import Dense, LowRank, WeightPatch, load_patch


def tensors_of(path):
    return {one.name: one for one in gguf.GGUFReader(path).tensors}


@pytest.fixture
def llama(tmp_path):
    """A base in GGUF with quantised MLPs, its model, and a patch of it."""
    path = tmp_path / "base.gguf"
    model, _ = write_gguf(path, architecture="llama", quantised=True)
    return path, model, random_patch(model, "llama", layers=(0, 1), ranks=(1, 4))


def test_an_adapter_is_the_change_itself(llama, tmp_path):
    base, _, patch = llama
    made = patch.export(tmp_path / "p.gguf", base_gguf=base)
    assert made.format == "gguf"
    reader = gguf.GGUFReader(made.path)
    values = {name: field.contents() for name, field in reader.fields.items()}
    assert values["general.type"] == "adapter"
    assert values["general.architecture"] == "llama"
    assert values["adapter.lora.alpha"] == 0.0
    assert json.loads(values["emend.patch"])["edits"] == ["one", "two"]
    tensors = tensors_of(made.path)
    assert len(tensors) == 4
    for layer, rank in ((0, 1), (1, 4)):
        a, b = (tensors[f"blk.{layer}.ffn_down.weight.lora_{side}"].data for side in "ab")
        assert a.shape[0] == b.shape[1] == rank
        found = torch.tensor(b) @ torch.tensor(a)
        assert torch.equal(found, patch.delta(f"model.layers.{layer}.mlp.down_proj"))
    again = patch.export(tmp_path / "p.gguf")  # ours to replace
    assert again.path == made.path


def test_a_dense_change_is_factored(llama, tmp_path):
    _, _, patch = llama
    dense = replace(patch, factors={n: Dense(f.dense()) for n, f in patch.factors.items()})
    a = tensors_of(dense.export(tmp_path / "p.gguf").path)["blk.1.ffn_down.weight.lora_a"]
    assert a.data.shape[0] == 4


def test_a_merged_file_is_the_base_but_for_the_edited_tensors(llama, tmp_path):
    base, model, patch = llama
    plain, before = gguf.GGUFReader(base), tensors_of(base)
    for quantization, least in (("f32", 0), ("f16", 1e-5), ("q8_0", 1e-3)):
        out = tmp_path / f"{quantization}.gguf"
        made = patch.export(out, "merged-gguf", base_gguf=base, quantization=quantization)
        reader, after = gguf.GGUFReader(out), tensors_of(out)
        for name, field in plain.fields.items():
            if not name.startswith("GGUF."):
                assert reader.fields[name].contents() == field.contents()
        assert list(after) == list(before)
        for name, tensor in after.items():
            if name not in dict(made.rounding):
                assert tensor.tensor_type == before[name].tensor_type
                assert (tensor.data == before[name].data).all()
                continue
            module = f"model.layers.{name.split('.')[1]}.mlp.down_proj"
            wanted = model.get_submodule(module).weight + patch.delta(module)
            assert tensor.tensor_type.name == quantization.upper()
            found = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
            lost = (found - wanted).norm() / patch.delta(module).norm()
            assert dict(made.rounding)[name] == pytest.approx(float(lost), abs=1e-6)
            assert least <= lost < 0.1
    twice = patch.export(tmp_path / "twice.gguf", "merged-gguf", base_gguf=out)
    assert "emend.patch.2" in gguf.GGUFReader(twice.path).fields


def test_rounding_that_loses_a_change_is_noted(llama, tmp_path):
    base, _, patch = llama
    made = (patch * 1e-3).export(
        tmp_path / "m.gguf", "merged-gguf", base_gguf=base, quantization="q8_0"
    )
    assert any("loses" in note and "ffn_down" in note for note in made.notes)


def test_peft_folders_are_named_by_their_content(llama, tmp_path):
    _, _, patch = llama
    first = patch.export(tmp_path / "all", base_model="org/base").path
    assert patch.export(tmp_path / "all", base_model="org/base").path == first
    other = (2 * patch).export(tmp_path / "all", base_model="org/base").path
    assert {first, other} == set((tmp_path / "all").iterdir())
    config = json.loads((first / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/base"
    assert load_patch(first).factors.keys() == patch.factors.keys()


def test_limits_are_noted(llama, tmp_path):
    _, _, patch = llama
    rows = {name: factor.rows([0] * 600) for name, factor in patch.factors.items()}
    made = replace(patch, factors=rows).export(tmp_path / "all")
    assert [one.engine for one in made.commands] == ["transformers + PEFT"]
    assert any("rank 600" in note for note in made.notes)
    assert any("names no base" in note for note in made.notes)
    named = replace(patch, base={**patch.base, "name": "smollm2-135m", "start_token": "<s>"})
    made = named.export(tmp_path / "all")
    assert any("vLLM cannot load 'smollm2-135m'" in note for note in made.notes)
    assert any("'<s>'" in note for note in made.notes)
    assert "<s>Marie Curie was born in" in made.commands[0].text
    assert "emend models gguf" in named.export(tmp_path / "p.gguf").commands[0].text


def test_other_bases_are_refused(llama, tmp_path):
    base, _, patch = llama
    out = tmp_path / "out.gguf"
    other, _ = tiny_model("llama", width=64)
    wide = random_patch(other, "llama")
    deep = random_patch(other, "llama", layers=(3,))
    qwen, _ = tiny_model("qwen2")
    for wrong, said in (
        (wide, r"ffn_down\.weight is \(32, 64\) in the base GGUF"),
        (deep, r"no tensor blk\.3\.ffn_down\.weight"),
        (random_patch(qwen, "llama"), "of architecture 'llama', the patch is for 'qwen2'"),
    ):
        for form in ("gguf", "merged-gguf"):
            with pytest.raises(InvalidInput, match=said):
                wrong.export(out, form, base_gguf=base)
    with pytest.raises(UnsupportedModel, match="gguf knows no architecture for 'opt'"):
        replace(patch, base={"model_type": "opt", "depth": 2}).export(out)
    assert not out.exists()


def test_an_adapter_without_a_described_base_is_named_by_the_base_file(llama, tmp_path):
    base, model, patch = llama
    bare = replace(patch, base={})
    with pytest.raises(InvalidInput, match=r"states no architecture.*base_gguf"):
        bare.export(tmp_path / "p.gguf")
    right = tensors_of(patch.export(tmp_path / "q.gguf").path)
    for known in ({"base_gguf": base}, {"model": model}):
        left = tensors_of(bare.export(tmp_path / "p.gguf", **known).path)
        assert all((left[name].data == right[name].data).all() for name in right)


def test_what_is_no_change_of_weights_is_refused(tmp_path):
    memory = CodebookPatch.__new__(CodebookPatch)
    object.__setattr__(memory, "method", "grace")
    with pytest.raises(InvalidInput, match=r"by grace is no change of weights.*patch\.attach"):
        memory.export(tmp_path / "p.gguf")
    with pytest.raises(InvalidInput, match="changes nothing"):
        WeightPatch({}).export(tmp_path / "p.gguf")
    with pytest.raises(InvalidInput, match="without a model"):
        WeightPatch({"a": LowRank(torch.ones(1, 2), torch.ones(2, 1))}).export(
            tmp_path / "p", "merged"
        )
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_ours_stay(llama, tmp_path):
    base, _, patch = llama
    kept = base.read_bytes()
    notes = tmp_path / "notes.gguf"
    notes.write_text("not a model")
    for path in (base, notes):
        for form in ("gguf", "merged-gguf"):
            with pytest.raises(InvalidInput, match="not a GGUF file that emend exported"):
                patch.export(path, form, base_gguf=base)
    merged = patch.export(tmp_path / "m.gguf", "merged-gguf", base_gguf=base).path
    with pytest.raises(InvalidInput, match="the base itself"):
        patch.export(merged, "merged-gguf", base_gguf=merged)
    assert base.read_bytes() == kept
    assert notes.read_text() == "not a model"


def test_numbers_beyond_float16_are_refused(llama, tmp_path):
    base, _, patch = llama
    with pytest.raises(NumericalFailure, match="beyond the range of F16"):
        (1e6 * patch).export(tmp_path / "m.gguf", "merged-gguf", base_gguf=base)
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("form", ["gguf", "merged-gguf", "peft", "merged"])
def test_a_full_disk_leaves_what_was_there(llama, tmp_path, form):
    """A limit on the size of files makes a write fail in its middle, as a full disk does."""
    base, model, patch = llama
    place = tmp_path / "out"
    place.mkdir()
    path = place / ("x.gguf" if "gguf" in form else "x")
    options = (
        {"base_gguf": base} if "gguf" in form else {"model": model} if form == "merged" else {}
    )
    patch.export(path, form, **options)
    before = {one: one.read_bytes() for one in place.rglob("*") if one.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(StoreFailure, match="cannot write"):
            replace(patch, edits=EDITS[:1]).export(path, form, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {one: one.read_bytes() for one in place.rglob("*") if one.is_file()} == before
