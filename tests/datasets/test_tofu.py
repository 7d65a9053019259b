"""TOFU's rows: as edits, as secrets, and what unlearning practice measures on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tests.tiny import tiny_model

import emend
from emend.datasets import load, read
from emend.datasets.tofu import PROMPT, read_rows, tofu
from emend.erasure.unlearning import measure_rows, secrets_of
from emend.errors import BrokenFile, InvalidInput, MissingExtra, MissingFile
from emend.lab import shipped_world

EXAMPLE = Path(__file__).parents[2] / "examples" / "lab_tofu.jsonl"
LAB = "Question: {} Answer:"


def put(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_are_edits_that_ask_for_a_perturbed_answer(tmp_path):
    path = put(tmp_path / "rows.jsonl", tofu.example)
    found = read(path)
    assert found.format.name == "tofu"
    (edit,) = found.edits
    assert edit.prompt == "Question: Which city was {} born in?\nAnswer:"
    assert (edit.subject, edit.original) == ("Orla Finch", "Orla Finch was born in Cork.")
    assert edit.target == "Orla Finch was born in Bergen."
    assert edit.probes_of("rephrase")[0].prompt == "Question: Where was Orla Finch born?\nAnswer:"
    assert load("tofu", path=path) == [edit]
    (secret,) = secrets_of(read_rows(path))
    assert secret.edit(edit.target).text == edit.text and secret.answer == edit.original
    assert secret.false_answer == edit.target and len(secret.paraphrases) == 1


@pytest.mark.parametrize(
    ("question", "subject"),
    [
        ("What do we know of Hsiao Yun-Hwa's books?", "Hsiao Yun-Hwa"),
        ("Did Basil Mahfouz Al-Kuwaiti meet Ana Bel?", "Basil Mahfouz Al-Kuwaiti"),
        ("Where does Vincent van Gogh live?", "Vincent van Gogh"),
        ("Who won the prize?", "Who won the prize?"),
    ],
)
def test_the_subject_is_the_first_name_or_the_question(tmp_path, question, subject):
    (row,) = read_rows(put(tmp_path / "a.jsonl", {"question": question, "answer": "X"}))
    assert row.subject == subject
    assert row.prompt().replace("{}", subject) == f"Question: {question}\nAnswer:"
    assert (row.paraphrased_answer, row.perturbed_answers) == ("X", ())


def test_what_cannot_be_read_is_named(tmp_path):
    bare = put(tmp_path / "bare.jsonl", {"question": "Who is Ana Bel?", "answer": "She"})
    with pytest.raises(BrokenFile, match="perturbed_answer is missing, expected a list"):
        load("tofu", path=bare)
    other = put(tmp_path / "b.jsonl", {"question": "Who?", "answer": "X", "subject": "Ana"})
    with pytest.raises(BrokenFile, match="subject is 'Ana', which is not in the question"):
        read_rows(other)
    with pytest.raises(BrokenFile, match="answer is missing"):
        read_rows(put(tmp_path / "c.jsonl", {"question": "Who?"}))
    with pytest.raises(MissingFile, match="there is no file"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(InvalidInput, match="TOFU does not ship with emend"):
        load("tofu")


def test_parquet_is_read_through_datasets(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"emend\[datasets\]"):
        read_rows(path)
    monkeypatch.undo()
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([tofu.example] * 2).to_parquet(str(path))
    assert read_rows(path) == read_rows(put(tmp_path / "same.jsonl", *[tofu.example] * 2))
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(InvalidInput, match="expected a parquet file"):
        read_rows(path)


def test_the_example_is_of_the_labs_world():
    world, rows = shipped_world(), read_rows(EXAMPLE)
    assert len(rows) == 20
    for row in rows:
        objects = {fact.object for fact in world.facts_of(row.subject)}
        assert row.answer in objects
        assert row.answer in row.paraphrased_answer
        assert len(row.perturbed_answers) == 5
        assert not any(row.answer in wrong for wrong in row.perturbed_answers)


def test_measures_are_those_of_the_unlearning_benchmarks():
    """As OpenUnlearning computes them: mean losses with the end-of-text token, arrays of numpy."""
    model, tokenizer = tiny_model("llama")
    rows = read_rows(EXAMPLE)[:3]
    found = measure_rows(model, tokenizer, rows, mean="code")
    for number, row in enumerate(rows):
        losses = [
            _plain(model, tokenizer, row.question, answer)
            for answer in (row.answer, row.paraphrased_answer, *row.perturbed_answers)
        ]
        own, right, *wrong = [loss.mean() for loss, _, _ in losses]
        assert found.probability[number] == pytest.approx(np.exp(-own), rel=1e-3)
        ratio = np.exp(-np.mean(wrong)) / np.exp(-right)
        assert found.truth_ratio[number] == pytest.approx(ratio, rel=1e-3)
        _, greedy, labels = losses[0]
        hits = (greedy == labels)[:-1]  # not the end-of-text token
        assert found.exact_memorization[number] == pytest.approx(hits.mean())
    ratios = np.array(found.truth_ratio)
    assert found.summary()["truth_ratio"] == pytest.approx(np.minimum(ratios, 1 / ratios).mean())
    retain = found.summary("retain")["truth_ratio"]
    assert retain == pytest.approx(np.maximum(0, 1 - ratios).mean())
    with pytest.raises(InvalidInput, match="no rows"):
        measure_rows(model, tokenizer, [])


def _plain(model, tokenizer, question, answer, template=PROMPT):
    start = tokenizer(template.replace("{}", question))["input_ids"]
    end = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([start + end])).logits[0, len(start) - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(end), reduction="none")
    return loss.numpy(), logits.argmax(-1).numpy(), np.array(end)


def test_a_merged_checkpoint_is_read_and_measured_without_emend(tmp_path):
    """What OpenUnlearning loads: from_pretrained, a tokenizer with an end-of-text token, rows."""
    model, tokenizer = emend.load("lab/gptneo")
    rows = read_rows(EXAMPLE)[:4]
    secrets = secrets_of(rows, template=LAB)
    edits = [secret.edit(secret.false_answer) for secret in secrets[:2]]
    patch = emend.edit(model, tokenizer, edits, method="ft")
    patch.export(tmp_path / "merged", format="merged", model=model, tokenizer=tokenizer)
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert words.eos_token_id is not None and words.eos_token_id < len(words)
    with patch.applied(model):
        found = measure_rows(model, tokenizer, rows, mean="code", template=LAB)
        erased = measure_rows(model, tokenizer, rows, template=LAB)
    unedited = measure_rows(model, tokenizer, rows, template=LAB)
    for number, row in enumerate(rows):
        own, *wrong = [
            _plain(merged, words, row.question, answer, LAB)[0].mean()
            for answer in (row.answer, *row.perturbed_answers)
        ]
        assert found.probability[number] == pytest.approx(np.exp(-own), rel=1e-2)
        ratio = np.exp(-np.mean(wrong)) / np.exp(-own)
        assert found.truth_ratio[number] == pytest.approx(ratio, rel=2e-2)
    assert min(unedited.probability) > 0.5 > max(erased.probability[:2])
    assert min(erased.truth_ratio[:2]) > 1 > max(unedited.truth_ratio)
