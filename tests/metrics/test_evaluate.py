from __future__ import annotations

import json

import pytest
import torch
from tests.patches.helpers import MODULES, random_patch
from tests.tiny import tiny_model

import emend.metrics._asking as asking
from emend.edits import Edit, Probe
from emend.errors import BrokenFile, InvalidInput, MissingFile, UnknownName
from emend.metrics import Report, evaluate, evaluate_each, registry
from emend.patches import LowRank, WeightPatch

MEASURES = ["efficiency", "fluency", "generalization", "locality", "portability", "reliability"]
ASKING = ["reliability", "generalization", "portability", "locality"]


def edits():
    return [
        Edit(
            "{} was born in",
            "Marie Curie",
            "Lyon",
            original="Warsaw",
            id="one",
            probes=(
                Probe("rephrase", "The birthplace of Marie Curie is", ("Lyon",)),
                Probe("subject_alias", "Madame Curie was born in", ("Lyon", "Lyons")),
                Probe("one_hop", "Marie Curie was born in the country of", ("France",)),
                Probe("neighborhood", "Anna Berg was born in", ("Aarhus",)),
                Probe("neighborhood", "Tom Berg was born in", ("Aarhus",)),
                Probe("relation_specificity", "Marie Curie plays the", ("violin",)),
            ),
        ),
        Edit(
            "{} plays the",
            "Anna Berg",
            "piano",
            id="two",
            probes=(Probe("neighborhood", "Tom Berg plays the", ("violin",)),),
        ),
    ]


def assert_alike(some, others):
    """Records are the same; magnitudes, which are probabilities, up to rounding of float32."""

    def parted(record):
        rest = {name: v for name, v in record["protocols"].items() if name != "magnitude"}
        moments = record["protocols"].get("magnitude", {"before": 0, "after": 0})
        return {**record, "protocols": rest}, [moments["before"], moments["after"]]

    for one, other in zip(map(parted, some), map(parted, others), strict=True):
        assert one[0] == other[0]
        assert one[1] == pytest.approx(other[1], abs=1e-6)


@pytest.fixture(scope="module")
def tiny():
    return tiny_model("llama")


def test_there_is_a_measure_per_file():
    assert registry().names() == MEASURES
    assert all(registry().get(name).name == name for name in MEASURES)
    with pytest.raises(UnknownName, match="did you mean 'locality'"):
        registry().get("lokality")


def test_summary_and_records(tiny):
    model, tokenizer = tiny
    patch = random_patch(model, "llama", timing={"per_edit": 2.0, "precompute": 5.0})
    with patch.applied(model):
        report = evaluate(model, tokenizer, edits(), metrics=MEASURES)
    assert set(report.summary) == set(MEASURES)
    reliability = report.summary["reliability"]
    assert reliability["before"] == reliability["protocols"]["exact_match"]["before"]
    assert reliability["n"] == 2
    assert reliability["protocols"]["probability"]["n"] == 1  # the other has no original
    assert set(report.summary["portability"]["groups"]) == {"subject_alias", "one_hop"}
    assert "probability" not in report.summary["portability"]["groups"]["one_hop"]["protocols"]
    locality = report.summary["locality"]
    assert locality["before"] == 1.0
    assert locality["groups"]["neighborhood"]["n"] == 2
    assert set(locality["correct"]) == {"before", "after", "n"}
    assert "correct" not in locality["protocols"]
    assert report.summary["fluency"]["before"] > 0
    efficiency = report.summary["efficiency"]
    assert (efficiency["seconds_per_edit"], efficiency["precompute_seconds"]) == (2.0, 5.0)
    by_metric = {m: [r for r in report.records if r["metric"] == m] for m in MEASURES}
    counts = {metric: len(records) for metric, records in by_metric.items()}
    assert counts == dict(zip(MEASURES, (0, 2, 1, 4, 2, 2), strict=True))
    assert {record["schedule"] for record in report.records} == {"batch"}
    assert report.settings["methods"] == {"random": {}}
    json.dumps(report.to_dict(), allow_nan=False)


def test_fluency_is_measured_where_it_is_named(tiny):
    model, tokenizer = tiny
    report = evaluate(model, tokenizer, edits())
    assert set(report.summary) == set(MEASURES) - {"fluency"}


def test_without_a_patch_nothing_changes_and_each_question_is_asked_once(tiny, monkeypatch):
    model, tokenizer = tiny
    asked = []
    real = asking.models.generate

    def counting(model, tokenizer, prompts, **named):
        asked.extend(prompts)
        return real(model, tokenizer, prompts, **named)

    monkeypatch.setattr(asking.models, "generate", counting)
    twice = [*edits(), Edit("{} plays the", "Tom Berg", "violin", id="three")]
    report = evaluate(model, tokenizer, twice, metrics=ASKING)
    assert report.summary["locality"]["after"] == 1.0
    for record in report.records:
        assert record["text_before"] == record["text_after"]
    assert sorted(asked) == sorted(set(asked))


def _patch_that_says(model, tokenizer, edit):
    """At the last block, what the prompt's last token puts in comes out as the target's logit."""
    name = MODULES["llama"].format(3)
    inputs = []
    module = model.get_submodule(name)
    handle = module.register_forward_hook(lambda module, given, output: inputs.append(given[0]))
    with torch.no_grad():
        model(**tokenizer(edit.text, return_tensors="pt", return_token_type_ids=False))
    handle.remove()
    key = inputs[0][0, -1]
    (token,) = tokenizer(f" {edit.target}", add_special_tokens=False)["input_ids"]
    value = 1000 * model.get_output_embeddings().weight[token]
    factor = LowRank(key[None] / key.square().sum(), value[:, None], (edit.id,))
    return WeightPatch({name: factor}, edits=(edit,))


def test_an_edit_that_works_is_seen(tiny):
    model, tokenizer = tiny
    edit = Edit("{} plays the", "Anna Berg", "is", original="of", id="works")
    with _patch_that_says(model, tokenizer, edit).applied(model):
        summary = evaluate(model, tokenizer, [edit], metrics=["reliability"]).summary
    reliability = summary["reliability"]
    assert (reliability["before"], reliability["after"]) == (0.0, 1.0)
    assert reliability["protocols"]["teacher_forced"]["after"] == 1.0
    assert reliability["protocols"]["probability"]["after"] == 1.0


def test_results_do_not_depend_on_batch_size(tiny):
    model, tokenizer = tiny
    with random_patch(model, "llama").applied(model):
        one, many = (evaluate(model, tokenizer, edits(), batch_size=size) for size in (1, 64))
    assert_alike(one.records, many.records)


def test_each_alone_equals_its_own_patch(tiny):
    model, tokenizer = tiny
    patch = random_patch(model, "llama", ranks=(2,))
    report = evaluate_each(model, tokenizer, edits(), patch, metrics=ASKING)
    assert {record["schedule"] for record in report.records} == {"single"}
    for edit in edits():
        with patch.only(edit.id).applied(model):
            alone = evaluate(model, tokenizer, [edit], metrics=ASKING)
        found = [{**r, "schedule": "batch"} for r in report.records if r["edit"] == edit.id]
        assert_alike(found, alone.records)


def test_each_with_a_function_is_timed_and_works_under_an_attached_patch(tiny):
    model, tokenizer = tiny
    patch = random_patch(model, "llama")
    made: list[str] = []

    def make(edit: Edit) -> WeightPatch:
        made.append(edit.id)
        return patch.only(edit.id)

    clean = evaluate_each(model, tokenizer, edits(), make, metrics=["reliability", "efficiency"])
    assert made == ["one", "two"]
    assert clean.summary["efficiency"]["seconds_per_edit"] > 0
    assert clean.summary["efficiency"]["n"] == 2
    with patch.applied(model):
        under = evaluate_each(model, tokenizer, edits(), make, metrics=["reliability"])
    assert list(under.records) == list(clean.records)
    with pytest.raises(InvalidInput, match="no patch for edit 'two'"):
        evaluate_each(model, tokenizer, edits(), {"one": patch})


def test_means_are_over_probes_then_groups_then_edits():
    def record(edit, group, value):
        return {
            "edit": edit,
            "metric": "portability",
            "group": group,
            "protocols": {"exact_match": {"before": 0.0, "after": value}},
        }

    records = [
        record("one", "one_hop", 1.0),
        record("one", "one_hop", 0.0),
        record("one", "subject_alias", 1.0),
        record("two", "one_hop", 0.0),
    ]
    portability = Report(records, ["portability", "generalization"]).summary["portability"]
    assert portability["after"] == pytest.approx((0.75 + 0.0) / 2)
    assert portability["groups"]["one_hop"]["after"] == pytest.approx(0.25)
    assert portability["groups"]["subject_alias"]["n"] == 1


def test_nothing_asked_is_none():
    summary = Report([], ["generalization", "locality"]).summary
    assert summary["generalization"]["after"] is None
    assert summary["locality"]["n"] == 0


def test_save_and_load(tiny, tmp_path):
    model, tokenizer = tiny
    report = evaluate(model, tokenizer, edits(), metrics=["reliability", "fluency"])
    report.save(tmp_path / "results")
    loaded = Report.load(tmp_path / "results")
    assert loaded.summary == report.summary
    assert list(loaded.records) == list(report.records)
    assert json.loads((tmp_path / "results" / "summary.json").read_text())["summary"]
    (tmp_path / "results" / "records.jsonl").write_text("{")
    with pytest.raises(BrokenFile, match="cannot be read"):
        Report.load(tmp_path / "results")
    with pytest.raises(MissingFile, match="no records"):
        Report.load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="is a file"):
        report.save(tmp_path / "file")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"edits": []}, InvalidInput, "no edits"),
        ({"metrics": []}, InvalidInput, "no metrics"),
        ({"metrics": ["reliabillity"]}, UnknownName, "did you mean 'reliability'"),
        ({"batch_size": 0}, InvalidInput, "batch_size"),
        ({"edits": [Edit("{} is", "A", "b", id="x"), Edit("{} is", "C", "d", id="x")]},
         InvalidInput, "'x'"),
    ],
)  # fmt: skip
def test_misuse(tiny, arguments, kind, message):
    model, tokenizer = tiny
    given = {"edits": edits(), **arguments}
    with pytest.raises(kind, match=message):
        evaluate(model, tokenizer, **given)
