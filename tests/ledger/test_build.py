"""From a ledger to a patch: the same active edits make the same patch."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from tests.ledger.killed_build import SETTINGS
from tests.tiny import TEXT, tiny_model, tiny_tokenizer

from emend.editing import subject_keys
from emend.editing.value_cache import edit_of
from emend.edits import Edit
from emend.errors import InvalidInput, UnknownName
from emend.ledger import Ledger, build, similar
from emend.ledger.building import PART
from emend.ledger.solved import known_keys, patch_hash
from emend.methods import registry
from emend.models import ModelView, Start, start
from emend.patches import describe_base, load_patch

EDITS = [
    Edit("{} was born in", "Ana Bel", "Paris", id="a"),
    Edit("{} works for", "Carl Dorn", "the city", id="b"),
    Edit("{} plays", "Ana Bel", "chess", id="c"),
    Edit("The capital of {} is", "Elonia", "Rome", id="d"),
    Edit("{} speaks", "Fen Gard", "French", id="e"),
]


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path / "facts.db") as made:
        yield made


def logits(model, tokenizer):
    ids = torch.tensor([tokenizer(EDITS[0].text)["input_ids"]])
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("method", ["memit", "emmet", "rome"])
def test_the_same_edits_make_the_same_patch_whatever_the_history(method, ledger, tmp_path):
    model, tokenizer = tiny_model("gpt2")
    settings = {**SETTINGS, "method": method}
    ledger.add(EDITS[:3])
    first = build(ledger, model, tokenizer, **settings)
    assert first.solved == 3
    ledger.add(EDITS[3:])
    both = build(ledger, model, tokenizer, **settings)
    assert both.solved == 2
    assert both.build.patch_hash != first.build.patch_hash
    ledger.revert("d", "e")
    again = build(ledger, model, tokenizer, **settings, directory=tmp_path / "patch")
    assert again.solved == 0
    assert again.build.patch_hash == first.build.patch_hash
    with Ledger.create(tmp_path / "other.db") as other:
        for edit in EDITS[2::-1]:
            other.add(edit)
            alone = build(other, model, tokenizer, **settings)
        assert alone.build.patch_hash == first.build.patch_hash
    assert {e.id for e in load_patch(tmp_path / "patch").edits} == {"a", "b", "c"}
    assert [one.patch_hash for one in ledger.builds()][::2] == [first.build.patch_hash] * 2


def test_an_empty_ledger_builds_nothing_and_changes_no_logit(ledger, tmp_path):
    model, tokenizer = tiny_model("llama")
    before = logits(model, tokenizer)
    ledger.add(EDITS[:1])
    patch = build(ledger, model, tokenizer, **SETTINGS).patch
    with patch.applied(model):
        assert not torch.equal(logits(model, tokenizer), before)
    ledger.revert("a")
    built = build(ledger, model, tokenizer, **SETTINGS, directory=tmp_path / "patch")
    assert built.patch.factors == {}
    with load_patch(tmp_path / "patch").applied(model):
        assert torch.equal(logits(model, tokenizer), before)


def test_what_was_solved_is_kept_with_its_key_and_token(ledger):
    model, tokenizer = tiny_model("gpt2")
    ledger.add(EDITS[:2])
    built = build(ledger, model, tokenizer, **SETTINGS)
    (solved,) = ledger.solved("a")
    assert edit_of(solved.name) == "a"
    assert solved.base == describe_base(model)["hash"] == built.build.base
    assert solved.details["layer"] == built.patch.config["layers"][-1]
    assert tokenizer(EDITS[0].text)["input_ids"][: solved.details["position"] + 1]
    assert solved.config["steps"] == 4


def test_former_answers_are_noted_once(ledger):
    model, tokenizer = tiny_model("gpt2")
    ledger.add([EDITS[0], Edit("{} is", "Carl Dorn", "here", id="x", original="there")])
    build(ledger, model, tokenizer, **SETTINGS)
    assert ledger.entry("a").edit.original
    assert ledger.entry("x").edit.original == "there"
    assert sum(event.what == "noted" for event in ledger.log()) == 1


@pytest.mark.parametrize("method", ["rome", "memit"])
def test_texts_are_known_by_content_and_not_by_name(method, ledger, tmp_path, monkeypatch):
    """Fault 6: the file was rewritten, nothing was solved, and a fresh edit differed by 91%."""
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path / "cache"))
    model, tokenizer = tiny_model("gpt2")
    file = tmp_path / "texts.txt"
    settings = {**SETTINGS, "method": method, "texts": str(file)}
    ledger.add(EDITS[:2])
    built = []
    for texts in (TEXT[:3] * 40, TEXT[3:] * 40):
        file.write_text("\n\n".join(texts))
        built.append(build(ledger, model, tokenizer, **settings))
    assert built[0].build.patch_hash != built[1].build.patch_hash
    given = {name: settings[name] for name in settings if name != "method"}
    fresh = registry().get(method).edit(model, tokenizer, EDITS[:2], **given)
    for module, factor in fresh.factors.items():
        expected, found = factor.dense(), built[1].patch.factors[module].dense()
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max())
    file.rename(tmp_path / "moved.txt")
    moved = build(ledger, model, tokenizer, **{**settings, "texts": str(tmp_path / "moved.txt")})
    assert moved.solved == 0


@pytest.mark.parametrize("method", ["rome", "memit"])
@pytest.mark.parametrize("change", ["tokenizer", "configuration", "precision", "setting"])
def test_what_was_solved_is_for_the_same_inputs_only(method, change, ledger):
    """Fault 6, and its kind: no value that is kept answers for other inputs."""
    model, tokenizer = tiny_model("gpt2")
    settings = {**SETTINGS, "method": method}
    ledger.add(EDITS[:2])
    assert build(ledger, model, tokenizer, **settings).solved == 2
    if change == "tokenizer":
        tokenizer = tiny_tokenizer("bytes_bos")
    elif change == "configuration":
        model.config.activation_function = "relu"
    elif change == "precision":
        model = model.to(torch.bfloat16)
    else:
        settings["preserve_factor"] = 0.7
    assert build(ledger, model, tokenizer, **settings).solved == 2
    assert build(ledger, model, tokenizer, **settings).solved == 0


@pytest.mark.parametrize("method", ["rome", "memit"])
def test_a_start_token_is_known_before_any_key_is_made(method, ledger, monkeypatch):
    """Fault 6, its kind: what was solved behind a start token was kept as if there were none."""
    model, tokenizer = tiny_model("gpt2")
    found = Start("<s>", (tokenizer.convert_tokens_to_ids("<s>"),), "found", 1.0)
    monkeypatch.setattr(start, "find_start", lambda *_: found)
    ledger.add([replace(edit, original="Lyon") for edit in EDITS[:2]])
    settings = {**SETTINGS, "method": method}
    plain = build(ledger, model, tokenizer, **settings)
    assert plain.solved == 2
    for solved in (2, 0):
        del tokenizer.emend_start  # as it comes from disk
        built = build(ledger, model, tokenizer, **settings)
        assert built.solved == solved
        assert built.build.patch_hash != plain.build.patch_hash


def test_a_newer_version_of_a_method_solves_again(ledger, monkeypatch):
    """Fault 33: versions were in no key."""
    model, tokenizer = tiny_model("gpt2")
    ledger.add(EDITS[:2])
    settings = {**SETTINGS, "method": replace(registry().get("rome"), version=7)}
    assert build(ledger, model, tokenizer, **{**settings, "method": "rome"}).solved == 2
    assert build(ledger, model, tokenizer, **settings).solved == 2
    assert build(ledger, model, tokenizer, **settings).solved == 0


def test_keys_of_other_layers_are_not_compared(ledger):
    """Fault 13: the keys of one edit at several layers were mixed, whichever came last."""
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    ledger.add(EDITS[:2])
    patches = {
        layer: build(ledger, model, tokenizer, **SETTINGS, layers=(layer,)).patch
        for layer in (3, 1, 2)
    }
    for layer, patch in patches.items():
        keys = subject_keys(view, tokenizer, EDITS[:2], ["{}"], [layer])[layer].keys[:, 0]
        found = known_keys(ledger, patch)
        assert all(torch.allclose(found[e.id], k) for e, k in zip(EDITS, keys, strict=False))


def test_other_methods_are_run_from_nothing(ledger):
    model, tokenizer = tiny_model("gpt2")
    ledger.add(EDITS[:2])
    one = build(ledger, model, tokenizer, method="ft", steps=2)
    two = build(ledger, model, tokenizer, method="ft", steps=2)
    assert one.solved == two.solved == 2
    assert one.build.patch_hash == two.build.patch_hash


@pytest.mark.filterwarnings("ignore:.*left out before a prompt")  # a tiny context
@pytest.mark.parametrize(
    ("method", "settings"),
    [("grace", {"steps": 3}), ("ike", {}), ("wise", {"steps": 2})],
)
def test_a_memory_beside_the_weights_is_built_like_any_patch(method, settings, ledger, tmp_path):
    model, tokenizer = tiny_model("gpt2")
    ledger.add(EDITS[:3])
    first = build(ledger, model, tokenizer, method=method, **settings)
    ledger.add(EDITS[3])
    more = build(ledger, model, tokenizer, method=method, **settings)
    assert more.build.patch_hash != first.build.patch_hash
    ledger.revert("d")
    again = build(ledger, model, tokenizer, method=method, directory=tmp_path / "patch", **settings)
    assert again.build.patch_hash == first.build.patch_hash
    loaded = load_patch(tmp_path / "patch")
    assert {edit.id for edit in loaded.edits} == {"a", "b", "c"}
    assert patch_hash(loaded) == first.build.patch_hash


def test_a_ledger_of_another_model_is_refused(tmp_path):
    model, tokenizer = tiny_model("gpt2")
    other = {**describe_base(model), "hash": "0" * 16, "name": "another"}
    with Ledger.create(tmp_path / "facts.db", other) as ledger:
        ledger.add(EDITS[:1])
        with pytest.raises(InvalidInput, match="of the model 'another'"):
            build(ledger, model, tokenizer, **SETTINGS)
        with pytest.raises(UnknownName, match="did you mean 'memit'"):
            build(ledger, model, tokenizer, method="memitt")
    assert not (tmp_path / "patch").exists()


def test_keys_that_cannot_be_told_apart_are_shown():
    one, near, far = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.01]), torch.tensor([0.0, 1.0])
    (pair,) = similar(EDITS[:4], {"a": one, "b": near, "d": far})
    assert (pair.left, pair.right) == ("a", "b")
    assert 0.99 < pair.cosine < 1
    assert not similar(EDITS[:3], {"a": one, "c": near})  # of one subject: meant to be alike


def test_a_build_that_is_killed_goes_on_where_it_was(tmp_path):
    """What is solved for is written down part by part."""
    many = [
        Edit("{} was born in", f"{first} {last}", "Paris", id=f"{first}-{last}")
        for first in ("Ana", "Bea", "Cora", "Dora", "Eva", "Fay")
        for last in ("Arn", "Bel", "Cid", "Dorn", "Ems", "Falk")
    ]
    assert len(many) > PART
    with Ledger.create(tmp_path / "facts.db") as ledger:
        ledger.add(many)
    # A process of its own: one forked from here would wait for ever for torch's threads.
    command = [sys.executable, "-m", "tests.ledger.killed_build", str(tmp_path / "facts.db")]
    died = subprocess.run(command, check=False)
    assert died.returncode == -signal.SIGKILL
    model, tokenizer = tiny_model("gpt2")
    with Ledger.open(tmp_path / "facts.db") as ledger:
        assert ledger.check() == ()
        assert len(ledger.solved()) == PART
        built = build(ledger, model, tokenizer, **SETTINGS)
    assert built.solved == len(many) - PART


@pytest.mark.parametrize("method", ["memit", "rome", "ft"])
def test_an_edit_in_several_languages_is_built_kept_and_taken_out_as_one(method, ledger):
    model, tokenizer = tiny_model("gpt2")
    settings = {**(SETTINGS if method != "ft" else {"steps": 2}), "method": method}
    chinese = Edit("{} 的 capital:", "中国", "Lyon", language="zh")
    group = Edit("The capital of {} is", "Poland", "Lyon", id="f", translations=(chinese,))
    ledger.add(EDITS[:1])
    alone = build(ledger, model, tokenizer, **settings)
    ledger.add(group)
    both = build(ledger, model, tokenizer, **settings)
    assert both.build.edits == ("a", "f")
    assert [one.id for one in both.patch.edits] == ["a", "f", "f/zh"]
    assert both.solved == (3 if method == "ft" else 2)
    if method != "ft":
        assert build(ledger, model, tokenizer, **settings).solved == 0
        assert {each.edit for each in ledger.solved()} == {"a", "f"}
    ledger.revert("f")
    again = build(ledger, model, tokenizer, **settings)
    assert again.build.patch_hash == alone.build.patch_hash != both.build.patch_hash
