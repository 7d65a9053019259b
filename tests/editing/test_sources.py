"""Sources of texts: what a name stands for, and what comes out of each kind."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.tiny import TEXT, tiny_model

from emend._settings import from_file, from_text
from emend.editing import texts
from emend.editing.collecting import collect_covariance
from emend.editing.covariance import key_covariance
from emend.editing.sources import (
    HubDataset,
    JsonLines,
    LabCorpus,
    Several,
    TextFile,
    Texts,
    as_source,
    own_samples,
    source_named,
    sources_named,
    texts_for,
)
from emend.edits import Edit
from emend.errors import (
    BrokenFile,
    EmendError,
    InvalidInput,
    MissingExtra,
    MissingFile,
    UnknownName,
)
from emend.lab import corpus_texts
from emend.methods import registry
from emend.models import ModelView

EDIT = Edit("{} was born in", "Marie Curie", "Paris")


@pytest.fixture
def rows(tmp_path):
    """A JSONL with texts in two fields."""
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": text, "body": text.upper()}) for text in TEXT]
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_empty_lines_stand_between_documents_of_a_text_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n\n \nthree\n\nfour")
    assert list(source_named(str(path)).documents()) == ["one\ntwo", "three", "four"]
    assert list(TextFile(path).documents(skip=2)) == ["four"]
    monkeypatch.setattr(texts, "LONGEST", 3)
    assert list(TextFile(path).documents()) == ["one", "two", "thr", "ee", "fou", "r"]


def test_fields_of_a_jsonl(rows) -> None:
    assert list(source_named(str(rows)).documents()) == list(TEXT)
    body = source_named(f"{rows}?field=body")
    assert list(body.documents(skip=1)) == [text.upper() for text in TEXT[1:]]
    assert body.identity != source_named(str(rows)).identity
    with pytest.raises(
        InvalidInput, match=r"rows.jsonl:1 has no text in field 'title'.*text, body"
    ):
        list(source_named(f"{rows}?field=title").documents())
    rows.write_text('{"text": "a"}\n{')
    with pytest.raises(BrokenFile, match=r"rows.jsonl:2: not JSON"):
        list(JsonLines(rows).documents())


def test_identity_is_that_of_the_content(tmp_path) -> None:
    for name, content in (("a.txt", "one"), ("b.txt", "one"), ("c.txt", "two")):
        (tmp_path / name).write_text(content)
    first, same, other = (
        TextFile(tmp_path / name).identity for name in ("a.txt", "b.txt", "c.txt")
    )
    assert first == same != other
    assert Texts(("one", "two")).identity != Texts(("onetwo",)).identity


def test_the_lab_is_a_source() -> None:
    assert source_named("lab") == LabCorpus()
    assert list(LabCorpus().documents(skip=3))[:5] == corpus_texts(8)[3:]


def test_names_of_datasets() -> None:
    assert source_named("wikitext") == HubDataset("wikitext")
    full = source_named(
        "Salesforce/wikitext?config=wikitext-103-raw-v1&split=test&field=t&revision=v1"
    )
    assert full == HubDataset("Salesforce/wikitext", "wikitext-103-raw-v1", "test", "t", "v1")
    assert "wikitext-103-raw-v1 test v1" in full.name


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("nowhere.txt", MissingFile, "there is no file nowhere.txt"),
        ("./nowhere", MissingFile, "no file"),
        ("a/b/c", MissingFile, "no file"),
        ("", InvalidInput, "empty"),
        ("wikitext?splot=test", UnknownName, "did you mean 'split'"),
    ],
)
def test_names_that_mean_nothing(name, error, said) -> None:
    with pytest.raises(error, match=said):
        source_named(name)


def test_files_that_cannot_be_used(tmp_path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BrokenFile, match="not UTF-8"):
        list(source_named(str(tmp_path / "a.txt")).documents())
    with pytest.raises(InvalidInput, match="has no option 'split'"):
        source_named(f"{tmp_path / 'a.txt'}?split=test")


def test_datasets_need_their_library(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"emend\[datasets\]"):
        next(source_named("wikitext").documents())


def test_the_commit_that_is_hashed_is_read(monkeypatch) -> None:
    """Fault 33: a branch was read, and a commit that it named at another time was hashed."""
    asked = []

    class Hub:
        def dataset_info(self, path, revision):
            asked.append((path, revision))
            return SimpleNamespace(sha=f"commit {len(asked)}")

    def load_dataset(path, config, *, revision, **options):
        return [{"text": f"{path} at {revision}"}]

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    library = SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", library)
    source = source_named("owner/corpus?revision=main")
    before = source.identity
    assert list(source.documents()) == ["owner/corpus at commit 1"] == list(source.documents())
    assert source.identity == before
    assert asked == [("owner/corpus", "main")]
    assert source_named("owner/corpus?revision=main").identity != before  # the branch has moved


def test_dataset_in_a_directory(tmp_path, rows) -> None:
    pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    directory = tmp_path / "corpus"
    directory.mkdir()
    rows.rename(directory / "train.jsonl")
    source = source_named(str(directory))
    assert list(source.documents()) == list(TEXT)
    assert list(source.documents(skip=4)) == list(TEXT[4:])
    upper = source_named(f"{directory}?field=body")
    assert next(upper.documents()) == TEXT[0].upper()
    assert upper.identity != source.identity
    with pytest.raises(InvalidInput, match="no text in field 'title'"):
        next(source_named(f"{directory}?field=title").documents())
    with pytest.raises(EmendError, match="cannot be read"):
        next(source_named(f"{directory}?split=test").documents())


TWO = "rome", "memit"


@pytest.mark.parametrize("name", TWO)
def test_a_list_and_a_tuple_of_texts_are_the_same(name) -> None:
    """Fault 7: ROME took every token of a tuple, and of a list the usual count alone."""
    model, tokenizer = tiny_model("gpt2")
    method, texts = registry().get(name), list(TEXT) * 8
    settings = {"templates": ("{}",), "steps": 1}
    of_list = method.edit(model, tokenizer, [EDIT], texts=texts, **settings)
    of_tuple = method.edit(model, tokenizer, [EDIT], texts=tuple(texts), **settings)
    assert of_list.statistics == of_tuple.statistics
    view = ModelView(model)
    longer = sum(len(tokenizer(text)["input_ids"]) for text in texts)
    assert of_list.statistics["tokens"] == longer > 20 * view.intermediate_size(0)
    for module, factor in of_list.factors.items():
        assert torch.equal(factor.dense(), of_tuple.factors[module].dense())


def test_names_and_texts_are_told_apart_by_type(tmp_path) -> None:
    """Fault 8: `texts=a.txt,b.txt` took statistics over the two file names."""
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path, text in zip(paths, ("one\n\ntwo", "three"), strict=True):
        path.write_text(text)
    names = ",".join(map(str, paths))
    config = registry().get("memit").config_type
    for several in (
        as_source(paths),
        as_source([TextFile(path) for path in paths]),
        sources_named([str(path) for path in paths]),
        from_text("memit", config, "texts", names),
        from_file("memit", config, {"texts": [str(path) for path in paths]})["texts"],
        registry().get("memit").configure(texts=paths).texts,
    ):
        assert several == Several((TextFile(paths[0]), TextFile(paths[1])))
        assert list(several.documents()) == ["one", "two", "three"]
        assert list(several.documents(skip=2)) == ["three"]
        assert several.name == "a.txt; b.txt"
    assert as_source(paths[0]) == as_source(str(paths[0])) == TextFile(paths[0])
    assert from_text("memit", config, "texts", str(paths[0])) == TextFile(paths[0])
    assert as_source([str(path) for path in paths]) == Texts([str(path) for path in paths])
    assert as_source(paths).identity != as_source(paths[::-1]).identity
    with pytest.raises(MissingFile, match=r"no file .*c.txt"):
        from_text("memit", config, "texts", f"{paths[0]},{tmp_path / 'c.txt'}")


@pytest.mark.parametrize("given", [3, b"text", {"a": 1}, [3], [Path("a.txt"), "text"], ["text", 1]])
def test_texts_that_are_none(given, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InvalidInput, match=r"texts .*, expected ") as caught:
        as_source(given)
    assert "\n" not in str(caught.value)


def test_too_few_tokens_are_said(tmp_path) -> None:
    """Fault 8: statistics over 11 tokens, and no word of it."""
    model, tokenizer = tiny_model("gpt2")
    (tmp_path / "few.txt").write_text(TEXT[0])
    source = as_source(tmp_path / "few.txt")
    size = ModelView(model).intermediate_size(1)
    tokens = len(tokenizer(TEXT[0])["input_ids"]) + 1  # and the end of the text
    expected = (
        rf"hold {tokens} tokens of few.txt, expected {20 * size:,} .* at the very least {size}"
    )
    with pytest.warns(UserWarning, match=expected) as caught:
        key_covariance(ModelView(model), tokenizer, [1], source)
    assert caught[0].filename == __file__  # not a line of emend


def test_what_methods_are_given(tmp_path) -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    own = own_samples(view, tokenizer).identity
    assert texts_for(view, tokenizer, None).identity == own
    assert texts_for(view, tokenizer, ()).identity == own
    assert texts_for(view, tokenizer, TEXT) == Texts(TEXT)
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(TEXT), encoding="utf-8")
    prior = key_covariance(view, tokenizer, [1], texts_for(view, tokenizer, str(path)))
    packed = collect_covariance(view, tokenizer, Texts(TEXT, packed=True), [1], max_tokens=20 * 64)[
        1
    ]
    assert torch.equal(prior.matrix(1), packed.matrix)
    assert prior.note["source"] == "a.txt"
    assert prior.note["tokens"] == packed.count
    model.config.emend = {"lab": {"seed": 0}}
    assert texts_for(view, tokenizer, None) == LabCorpus()
    assert texts_for(view, tokenizer, ()).name == "own samples, 256 tokens, seed 0"


def test_a_text_file_of_one_line_is_cut_and_never_all_in_memory(tmp_path) -> None:
    """Fault 33: a file of one line was one document of any length."""
    words = "Paris is the capital of France. " * 20_000
    for name, text in {
        "spaced": words,
        "unspaced": "巴" * 200_000,
        "ended": f"{words}\nend",
    }.items():
        path = tmp_path / f"{name}.txt"
        path.write_text(text, encoding="utf-8")
        documents = list(TextFile(path).documents())
        assert max(map(len, documents)) <= texts.LONGEST
        assert "".join(documents).replace("\n", "") == text.replace("\n", "")
        if name == "spaced":
            assert all(document.endswith(" ") for document in documents)
    assert list(TextFile(path).documents(skip=3)) == documents[3:]
