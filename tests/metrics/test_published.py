"""Datasets' own scores: by hand, and against the plain way of tests/reference/published.py."""

from __future__ import annotations

import json

import pytest
from tests.patches.helpers import random_patch
from tests.reference import published as plain
from tests.tiny import tiny_model

from emend import datasets
from emend.datasets import HarmonicMean, Score
from emend.metrics import case_measure, evaluate, published_scores


@pytest.fixture(scope="module")
def tiny():
    return tiny_model("llama")


def counterfact_record(number, subject, new, true, neighbors):
    return {
        "case_id": number,
        "requested_rewrite": {
            **{"prompt": "{} plays the", "relation_id": "P1", "subject": subject},
            **{"target_new": {"str": new}, "target_true": {"str": true}},
        },
        "paraphrase_prompts": [f"Nobody came. {subject} plays", f"On stage {subject} plays the"],
        "neighborhood_prompts": [f"{name} plays the" for name in neighbors],
    }


COUNTERFACT = [
    counterfact_record(1, "Anna Berg", "piano", "violin", ["Tom Berg", "Marie Curie", "Jan Smit"]),
    counterfact_record(2, "Tom Holm", "old drum", "harp", ["Ann Lee"]),
    counterfact_record(3, "Ola Nord", "flute", "cello", ["Jo Fay", "Al Roe"]),
]


def measured(tiny, records, path, metrics):
    """Return the scores of a dataset's file before and after a patch, and the plain ones after."""
    model, tokenizer = tiny
    path.write_text(json.dumps(records))
    reading = datasets.read(path)
    with random_patch(model, "llama").applied(model):
        report = evaluate(model, tokenizer, reading.edits, metrics=metrics)
        wanted = getattr(plain, reading.format.name)(model, tokenizer, records)
    before = getattr(plain, reading.format.name)(model, tokenizer, records)
    return published_scores(report.records, reading.format.published), before, wanted


def test_counterfact_as_the_plain_way(tiny, tmp_path):
    names = ["reliability", "generalization", "locality"]
    found, before, after = measured(tiny, COUNTERFACT, tmp_path / "cf.json", names)
    assert {name: one["after"] for name, one in found.items()} == pytest.approx(after, abs=1e-6)
    assert {name: one["before"] for name, one in found.items()} == pytest.approx(before, abs=1e-6)
    assert before != pytest.approx(after, abs=1e-6)


def test_zsre_as_the_plain_way(tiny, tmp_path):
    example = dict(datasets.format_of("zsre").example)
    other = {**example, "subject": "Tom Berg", "src": "Which city was Tom Berg born in?"}
    model, tokenizer = tiny
    # Answers of which some tokens are the model's own first choice, so that shares are not 0.
    ids = tokenizer(example["loc"], return_tensors="pt", return_token_type_ids=False)
    own = model.generate(**ids, max_new_tokens=3, do_sample=False)[0, ids["input_ids"].shape[1] :]
    other["loc_ans"] = tokenizer.decode(own).strip() or "a"
    names = ["reliability", "generalization", "portability", "locality"]
    found, before, after = measured(tiny, [example, other], tmp_path / "zsre.json", names)
    assert {name: one["after"] for name, one in found.items()} == pytest.approx(after)
    assert {name: one["before"] for name, one in found.items()} == pytest.approx(before)
    assert before["specificity"] > 0


def record(edit, metric, group, protocol, before, after):
    protocols = {protocol: {"before": before, "after": after}}
    return {"edit": edit, "metric": metric, "group": group, "protocols": protocols}


def test_groups_and_the_harmonic_mean_by_hand():
    """An edit's probes are averaged first, and an edit without the group does not count."""
    records = [
        record("a", "reliability", "", "probability", 0.0, 1.0),
        record("b", "reliability", "", "probability", 0.0, 1.0),
        record("a", "generalization", "rephrase", "probability", 0.0, 1.0),
        record("a", "generalization", "rephrase", "probability", 0.0, 0.0),
        record("a", "locality", "neighborhood", "probability", 1.0, 1.0),
        record("a", "locality", "neighborhood", "probability", 1.0, 0.0),
        record("b", "locality", "neighborhood", "probability", 1.0, 0.0),
        record("b", "locality", "distracting", "probability", 1.0, 1.0),
    ]
    found = published_scores(records, datasets.format_of("counterfact").published)
    after = {name: one["after"] for name, one in found.items()}
    assert (after["ES"], after["PS"], after["NS"]) == (1.0, 0.5, 0.25)
    assert after["S"] == pytest.approx(3 / (1 + 2 + 4))
    assert found["S"]["before"] == 0.0
    assert after["EM"] is None
    scores = {"x": Score("locality", "probability"), "y": HarmonicMean(("x",))}
    nothing = {"before": None, "after": None}
    assert published_scores([], scores) == {"x": nothing, "y": nothing}


def test_knowedit_groups_by_hand():
    records = [
        record("a", "portability", "one_hop", "teacher_forced", 0.0, 0.5),
        record("a", "portability", "subject_alias", "teacher_forced", 0.0, 1.0),
        record("b", "portability", "subject_alias", "teacher_forced", 0.0, 0.0),
        record("b", "locality", "forgetfulness", "teacher_forced", 1.0, 0.25),
    ]
    found = published_scores(records, datasets.format_of("knowedit").published)
    after = {name: one["after"] for name, one in found.items()}
    assert (after["reasoning"], after["subject aliasing"]) == (0.5, 0.5)
    assert after["portability"] == (0.75 + 0.0) / 2  # groups of an edit first, then edits
    assert (after["forgetfulness"], after["locality"]) == (0.25, 0.25)
    assert after["relation specificity"] is None


def test_mquake_by_hand():
    def one(questions, edits, hops):
        marks = {"questions": questions, "edits": edits, "hops": hops}
        parts = {name: [{"right": r, "old": False} for r in marks[name]] for name in marks}
        return {"length": 2, **parts}

    records = [one([0, 1, 0], [1, 1], [1, 1]), one([0, 0, 0], [1, 0], [1, 0])]
    found = case_measure("multi_hop").scores(records)
    assert found == {"multi-hop": 0.5, "edit-wise": 0.75, "instance-wise": 0.5}
