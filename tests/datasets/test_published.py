"""The datasets themselves, where a folder of samples lies beside the repository."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from emend.datasets import load, read, read_edits, write_edits
from emend.edits import Edit

SAMPLES = Path(__file__).parents[3] / "shared" / "data"
EXPECTED = [
    ("counterfact/counterfact_filtered.json", "counterfact", 200, 0, "rephrase", 400),
    ("counterfact/counterfact-edit.json", "easyedit", 200, 0, "neighborhood", 200),
    ("counterfact/counterfact-train.json", "easyedit", 9_997, 3, "rephrase", 9_999),
    ("zsre/zsre_mend_eval_portability_gpt4.json", "zsre", 1_037, 0, "one_hop", 1_037),
    ("zsre/zsre_mend_train-1k.json", "zsre", 200, 0, "rephrase", 200),
    ("zsre/zsre_mend_eval.json", "zsre", 12, 0, "neighborhood", 12),
    ("knowedit/ZsRE-test-all.json", "knowedit", 1_296, 8, "reverse_relation", 268),
    ("knowedit/train_cf.json", "knowedit", 1_417, 11, "forgetfulness", 775),
    ("knowedit/wikibio-test-all.json", "knowedit", 306, 0, "relation_specificity", 612),
    ("wise/temporal-edit.json", "wise", 75, 0, "neighborhood", 75),
    ("wise/temporal-train.json", "wise", 75, 0, "neighborhood", 74),
    ("rippleedits/random.json", "rippleedits", 7, 0, "one_hop", 9),
    ("lre/country_capital_city.json", "lre", 24, 0, "rephrase", 24),
    ("lre/landmark_on_continent.json", "lre", 945, 0, "neighborhood", 2_835),
    ("lre/person_plays_pro_sport.json", "lre", 318, 0, "neighborhood", 954),
    ("personality/train.json", "personality", 200, 0, "rephrase", 1_000),
    ("personality/test.json", "personality", 200, 0, "rephrase", 1_000),
    ("mquake/MQuAKE-CF-3k-v2.json", "mquake", 5, 0, "rephrase", 5),
]


@pytest.mark.parametrize(("name", "form", "edits", "joined", "group", "count"), EXPECTED)
def test_published_files_are_read_whole(name, form, edits, joined, group, count):
    """Fault B8."""
    path = SAMPLES / name
    if not path.exists():
        pytest.skip(f"the published sample {name} is not beside the repository")
    found = read(path)
    assert found.format.name == form
    assert (len(found.edits), found.joined, found.problems.found) == (edits, joined, [])
    groups = Counter(probe.group for edit in found.edits for probe in edit.probes)
    assert groups[group] == count
    assert all(isinstance(edit, Edit) and edit.subject in edit.text for edit in found.edits)


def test_the_known_facts_become_edits_to_another_answer_of_their_relation():
    path = SAMPLES / "known" / "known_1000.json"
    if not path.exists():
        pytest.skip("the published sample known_1000.json is not beside the repository")
    edits = load("known1000", path=path)
    assert len(edits) == 1_207
    assert edits == load("known1000", path=path)
    by_relation = Counter(edit.relation for edit in edits)
    for relation in list(by_relation)[:5]:
        answers = {edit.original for edit in edits if edit.relation == relation}
        assert all(
            edit.target in answers - {edit.original} for edit in edits if edit.relation == relation
        )


def test_a_fact_of_rippleedits_without_a_name_is_reported():
    path = SAMPLES / "rippleedits" / "recent.json"
    if not path.exists():
        pytest.skip("the published sample recent.json is not beside the repository")
    found = read(path)
    assert [edit.subject for edit in found.edits] == ["Leo Arons", "Ingrīda Amantova"]
    assert [edit.target for edit in found.edits] == ["Berlin", "female"]
    assert "no subject can be located" in str(found.problems.found[0])


@pytest.mark.parametrize("name", [name for name, *_ in EXPECTED if "train" not in name])
def test_what_is_read_is_written_and_read_back_equal(tmp_path, name):
    path = SAMPLES / name
    if not path.exists():
        pytest.skip(f"the published sample {name} is not beside the repository")
    edits = list(read(path).edits)
    write_edits(tmp_path / "edits.jsonl", edits)
    assert read_edits(tmp_path / "edits.jsonl") == edits
