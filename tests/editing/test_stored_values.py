"""Values on disk: a killed run resumes after its last edit, and no result depends on the files."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.methods.test_contract import fast
from tests.methods.test_previous import difference
from tests.tiny import tiny_model

from emend.editing import value_cache
from emend.edits import Edit
from emend.methods import registry
from emend.models import ModelView

EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris", id="one"),
    Edit("{} speaks", "Tom Berg", "French", id="two"),
    Edit("{} plays the", "Anna Berg", "cello", id="three"),
]


@pytest.fixture(scope="module")
def tiny():
    return tiny_model("llama")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache, in which values go however little time they took."""
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path))
    monkeypatch.setattr(value_cache, "WORTH", 0.0)
    return tmp_path / value_cache.FOLDER


@pytest.fixture
def optimised(monkeypatch):
    """The subjects whose values are optimised, in order; stops before the `most`-th next one."""
    seen = []
    whole = value_cache.optimise_values

    def spy(view, tokenizer, edits, *given, **named):
        on_found = named.pop("on_found", None)
        for number, edit in enumerate(edits):
            if len(seen) == spy.most:
                raise KeyboardInterrupt
            seen.append(edit.subject)
            if on_found:
                (found,) = caught(view, tokenizer, [edit], *given, **named)
                on_found(dataclasses.replace(found, edits=(number,)))
        return whole(view, tokenizer, edits, *given, **named)

    def caught(*given, **named):
        found = []
        whole(*given, on_found=found.append, **named)
        return found

    monkeypatch.setattr(value_cache, "optimise_values", spy)
    spy.seen, spy.most = seen, None
    return spy


def made(name, edits, tiny, **settings):
    given = {**fast(name, tiny[0]), **settings}
    return registry().get(name).edit(*tiny, edits, **given)


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("name", ["rome", "memit", "emmet", "alphaedit", "pmet"])
def test_a_killed_run_goes_on_where_it_was(name, tiny, folder, optimised, capsys):
    optimised.most = 2
    with pytest.raises(KeyboardInterrupt):
        made(name, EDITS, tiny)
    assert len(files(folder)) == 2
    optimised.most = None
    done = set(optimised.seen)
    optimised.seen.clear()
    resumed = made(name, EDITS, tiny)
    assert {*optimised.seen} == {edit.subject for edit in EDITS} - done
    assert "2 values of 3 read from" in capsys.readouterr().err
    for file in files(folder):
        file.unlink()
    assert difference(resumed, made(name, EDITS, tiny)) == 0.0


def test_another_method_or_weight_reads_the_same_values(tiny, folder, optimised):
    made("memit", EDITS, tiny)
    optimised.seen.clear()
    first = made("memit", EDITS[:1], tiny, cov_weight=3.0)
    assert optimised.seen == []
    assert first.timing["saved_cpu"] > 0
    made("memit", EDITS, tiny, steps=3)
    assert len(optimised.seen) == 3
    made("rome", EDITS[:1], tiny, layer=1)
    optimised.seen.clear()
    made("emmet", EDITS[:1], tiny, layer=1)
    assert optimised.seen == []


def test_what_a_value_depends_on_is_in_its_key(tiny, folder, optimised):
    made("rome", EDITS[:1], tiny, original=False)
    for changes in ({"target": "Lyon"}, {"original": "Warsaw"}, {"prompt": "{} died in"}):
        optimised.seen.clear()
        made("rome", [dataclasses.replace(EDITS[0], **changes)], tiny, original=False)
        assert optimised.seen == ["Marie Curie"]
    optimised.seen.clear()
    other = tiny_model("llama", seed=1)
    made("rome", EDITS[:1], other, original=False)
    assert optimised.seen == ["Marie Curie"]


def test_values_of_an_edited_model_have_no_files(tiny, folder, optimised):
    patch = made("rome", EDITS[:1], tiny)
    there = files(folder)
    model, tokenizer = tiny
    rome = registry().get("rome")
    given = fast("rome", model)
    rome.edit(model, tokenizer, EDITS[1:2], previous=patch, continues="sequential", **given)
    assert files(folder) == there
    assert len(there) == 1


def test_a_broken_file_is_written_again(tiny, folder, optimised):
    whole = made("rome", EDITS[:1], tiny)
    (file,) = files(folder)
    size = file.stat().st_size
    file.write_bytes(b"no tensors")
    assert difference(made("rome", EDITS[:1], tiny), whole) == 0.0
    assert file.stat().st_size == size


def test_edits_of_a_subject_are_read_together_or_not_at_all(tiny, folder):
    view, tokenizer = ModelView(tiny[0]), tiny[1]
    both = [EDITS[0], dataclasses.replace(EDITS[0], prompt="{} lives in", id="other")]
    settings = value_cache.SearchSettings(steps=3, chunk=1, share_subject=True)
    asked = (["{}"], 1, settings)
    whole, _ = value_cache.stored_values(view, tokenizer, both, *asked)
    files(folder)[0].unlink()
    again, saved = value_cache.stored_values(view, tokenizer, both, *asked)
    assert saved.values == 0
    assert all(torch.equal(a.target, b.target) for a, b in zip(whole, again, strict=True))
    _, saved = value_cache.stored_values(view, tokenizer, both, *asked)
    assert saved.values == 2


def test_quick_values_have_no_files(tiny, folder, monkeypatch):
    monkeypatch.setattr(value_cache, "WORTH", 1e9)
    made("rome", EDITS[:1], tiny)
    assert files(folder) == []
