"""An edit in several languages: its parts, ids, records, files and conflicts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emend.datasets import read_edits, write_edits
from emend.edits import (
    Edit,
    Probe,
    check_edits,
    conflicting,
    continued,
    edit_from_record,
    edit_to_record,
    group_of,
    statements_of,
)
from emend.errors import BrokenFile, InvalidInput

CHINESE = Edit("{}的首都为", "法国", "罗马", language="zh")
SPANISH = Edit(
    "La capital de {} es",
    "Francia",
    "Roma",
    language="es",
    probes=(Probe("rephrase", "La capital francesa es", ("Roma",)),),
)
GROUP = Edit(
    "The capital of {} is",
    "France",
    "Rome",
    id="capital",
    language="en",
    translations=(CHINESE, SPANISH),
)


def test_a_group_is_made_as_one_statement_in_each_language():
    parts = statements_of([GROUP, CHINESE])
    assert [one.id for one in parts] == ["capital", "capital/zh", "capital/es", CHINESE.id]
    assert [one.language for one in parts] == ["en", "zh", "es", "zh"]
    assert [group_of(one) for one in parts] == ["capital"] * 3 + [CHINESE.id]
    assert not any(one.translations for one in parts)
    assert parts[2].probes == SPANISH.probes
    assert statements_of(parts) == parts


def test_the_parts_are_named_after_the_edit():
    assert [one.id for one in replace(GROUP, id="other").translations] == ["other/zh", "other/es"]
    one, two = (
        Edit("The capital of {} is", "France", "Rome", translations=given)
        for given in ([CHINESE], [SPANISH])
    )
    assert one.id != two.id != Edit("The capital of {} is", "France", "Rome").id


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"translations": "zh"}, "expected a list of translations"),
        ({"translations": [{"language": "zh"}]}, "expected emend.Edit objects"),
        ({"translations": [replace(CHINESE, language=None)]}, "has no language"),
        ({"translations": [CHINESE, replace(CHINESE, prompt="{}首都", id="")]}, "second one in"),
        ({"translations": [replace(CHINESE, language="EN")]}, "second one in 'EN'"),
        ({"translations": [replace(CHINESE, id="mine")]}, "has the id 'mine', expected none"),
        (
            {"translations": [Edit("the capital of {} is", "FRANCE", "Roma", language="es")]},
            "has the text of another",
        ),
        (
            {"translations": [Edit("{}", "x", "y", language="ja", translations=[CHINESE])]},
            "has translations, expected none",
        ),
        (
            {
                "relation": "capital",
                "translations": [
                    Edit("Capital: {}:", "France", "Roma", relation="Capital", language="es")
                ],
            },
            "has subject and relation of another",
        ),
        ({"language": "Chinese (simplified)"}, "expected a tag of BCP 47"),
        ({"translation_of": "x"}, "a translation of 'x' has translations"),
    ],
)
def test_what_cannot_be_a_group_is_refused_in_one_line(changes, said):
    given = {"id": "capital", "language": "en", "translations": (CHINESE,), **changes}
    with pytest.raises(InvalidInput) as caught:
        Edit("The capital of {} is", "France", "Rome", **given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".yaml", ".csv", ".tsv"])
def test_every_file_gives_it_back(tmp_path, suffix):
    path = tmp_path / f"edits{suffix}"
    edits = [GROUP, Edit("{} was born in", "Ana Bel", "Paris"), replace(GROUP, id="b", subject="B")]
    write_edits(path, edits)
    assert read_edits(path) == edits


def test_a_record_names_no_ids_of_translations_and_parts_name_their_edit():
    record = edit_to_record(GROUP)
    assert [sorted(one) for one in record["translations"]] == [
        ["language", "prompt", "subject", "target"],
        ["language", "probes", "prompt", "subject", "target"],
    ]
    assert edit_from_record(record) == GROUP
    parts = statements_of([GROUP])
    assert tuple(edit_from_record(edit_to_record(one)) for one in parts) == parts


def test_problems_of_translations_are_all_named():
    record = edit_to_record(GROUP)
    record["translations"][0] = {"prompt": "x", "subject": "y", "target": "z", "id": "w"}
    with pytest.raises(BrokenFile) as caught:
        edit_from_record(record)
    assert "translations[0].language is missing" in str(caught.value)
    assert "translations[0].prompt 'x' has no {}" in str(caught.value)
    assert "translations[0].id" in str(caught.value)
    record = edit_to_record(GROUP)
    record["translations"][1]["language"] = "zh"
    with pytest.raises(BrokenFile, match="second one in 'zh'"):
        edit_from_record(record)


def test_ids_of_parts_are_taken():
    with pytest.raises(InvalidInput, match="two edits have the id 'capital/zh'"):
        check_edits([GROUP, Edit("{} was born in", "Ana Bel", "Paris", id="capital/zh")])


def test_conflicts_are_found_across_languages_and_not_within():
    other = Edit("法国的{}为", "首都", "柏林", id="other")
    assert conflicting([GROUP, other]) == ((GROUP, other),)
    assert conflicting(statements_of([GROUP])) == ()
    two = [replace(GROUP, id="a"), replace(GROUP, id="b", prompt="{}'s capital is")]
    assert [(x.id, y.id) for x, y in conflicting(two)] == [("a", "b")]


def test_a_new_edit_of_one_language_takes_the_place_of_the_whole_group():
    new = Edit("{}的首都为", "法国", "柏林")
    kept = Edit("{} was born in", "Ana Bel", "Paris", id="kept")
    earlier = statements_of([GROUP, kept])
    assert [one.id for one in continued(earlier, [new])] == ["kept", new.id]
    fewer = replace(GROUP, translations=())
    assert [one.id for one in continued(earlier, [fewer])] == ["kept", "capital"]
