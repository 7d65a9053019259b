"""The datasets themselves, where a folder of samples lies beside the repository."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from emend.datasets import read
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
    ("wise/temporal-edit.json", "easyedit", 75, 0, "neighborhood", 75),
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
