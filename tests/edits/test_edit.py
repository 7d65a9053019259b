from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from emend.edits import GROUPS, Edit, Probe
from emend.errors import EmendError, InvalidInput


def test_text_and_span_agree():
    edit = Edit("In the year {} was born in", "Zoë Ång", "Paris")
    start, end = edit.subject_span
    assert edit.text == "In the year Zoë Ång was born in"
    assert edit.text[start:end] == "Zoë Ång"


def test_braces_in_the_subject_are_left_alone():
    edit = Edit("{} is", "a {} b", "c")
    assert edit.text == "a {} b is"


def test_default_id_depends_on_prompt_subject_and_target_only():
    one = Edit("{} is", "a", "b")
    assert one.id == Edit("{} is", "a", "b", original="c", relation="r").id
    assert one.id != Edit("{} is", "a", "c").id
    assert one.id != Edit("{} i", "sa", "b").id
    assert one.id.startswith("edit-")
    assert len(one.id) == len("edit-") + 10
    assert dataclasses.replace(one, target="z").id == one.id  # an id, once given, stays


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": "no place"}, "has no {}"),
        ({"prompt": "{} and {}"}, "has 2 {}"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": None}, "prompt is null"),
        ({"subject": ""}, "subject is empty"),
        ({"subject": " a"}, "white space at an end"),
        ({"subject": 7}, "subject is int '7', expected text"),
        ({"target": ""}, "target is empty"),
        ({"target": " \n"}, "target is only white space"),
        ({"target": "a\x00"}, "NUL"),
        ({"target": "\ud800"}, "surrogate"),
        ({"target": "x" * 200_000}, "200,000 characters"),
        ({"original": ""}, "original is empty"),
        ({"id": "a "}, "id is"),
        ({"probes": "abc"}, "expected a list of probes"),
        ({"probes": ("abc",)}, "expected emend.Probe"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(change, said):
    good = {"prompt": "{} is", "subject": "a", "target": "b"}
    with pytest.raises(InvalidInput) as caught:
        Edit(**{**good, **change})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, EmendError)
    assert isinstance(caught.value, ValueError)


def test_a_wrong_group_is_met_with_the_nearest():
    with pytest.raises(InvalidInput, match="did you mean 'neighborhood'"):
        Probe("neighbourhood", "x", ("y",))


@pytest.mark.parametrize("answers", [(), ("",), "abc", None])
def test_a_probe_has_answers(answers):
    with pytest.raises(InvalidInput, match="probe answers"):
        Probe("one_hop", "x", answers)


def test_probes_by_family_and_by_group():
    probes = tuple(Probe(group, group, ("a",)) for family in GROUPS.values() for group in family)
    edit = Edit("{} is", "a", "b", probes=list(probes))
    assert edit.probes == probes
    assert [probe.group for probe in edit.probes_of("locality")] == list(GROUPS["locality"])
    assert [probe.group for probe in edit.probes_of("one_hop")] == ["one_hop"]
    assert [probe.group for probe in edit.probes_of("rephrase")] == list(GROUPS["rephrase"])


def test_edits_are_hashable_and_frozen():
    edit = Edit("{} is", "a", "b")
    assert {edit: 1}[Edit("{} is", "a", "b")] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        edit.target = "c"


def test_neither_emend_nor_edits_load_torch():
    code = (
        "import sys, emend, emend.edits, emend.datasets; emend.Edit; emend.errors; "
        "emend.datasets.registry().names(); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
