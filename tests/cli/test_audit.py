from __future__ import annotations

import pytest
from tests.tiny import tiny_model

from emend.patches import load_patch


@pytest.fixture(scope="module")
def merged(model_directory, patch_directory, tmp_path_factory):
    """A checkpoint with the patch merged in."""
    directory = tmp_path_factory.mktemp("merged") / "model"
    model, tokenizer = tiny_model("gpt2", tokenizer="bytes")
    load_patch(patch_directory).save_merged(model, tokenizer, directory)
    return directory


def test_a_checkpoint_beside_its_base(emend, model_directory, merged):
    found = emend("audit", "--base", model_directory, "--model", merged, "--json").data
    assert found["verdict"] == "low rank"
    (change,) = found["changes"]
    assert change["rank"] == 2
    assert len(change["candidates"]) == 5
    assert found["merged"]["edits"]
    said = emend("audit", "--base", model_directory, "--model", merged).out
    assert f"low rank; 1 of {found['matrices']} matrices" in said
    assert change["name"] in said
    same = emend("audit", "--base", model_directory, "--model", model_directory).out
    assert ": same; 0 of" in same


def test_a_patch_names_its_edits(emend, model_directory, patch_directory):
    flags = ("--base", model_directory, "--patch", patch_directory)
    (change,) = emend("audit", *flags, "--json").data["changes"]
    assert set(change["edits"]) == {"curie", "berg"}
    assert "curie" in emend("audit", *flags).out


def test_mistakes(emend, tmp_path, model_directory, patch_directory):
    base = ("audit", "--base", model_directory)
    emend(*base).is_one_line("expected one of --model and --patch")
    both = ("--model", model_directory, "--patch", patch_directory)
    emend(*base, *both).is_one_line("expected one of --model and --patch")
    emend(*base, "--patch", tmp_path / "none").is_one_line("none")
    emend(*base, "--model", tmp_path / "none").is_one_line("none")
