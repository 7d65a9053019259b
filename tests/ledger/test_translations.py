"""Edits with translations in a ledger: one entry, found and taken out as one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from tests.edits.test_translations import CHINESE, GROUP

from emend.edits import Edit, statements_of
from emend.errors import BrokenFile, Conflict, InvalidInput
from emend.ledger import Ledger
from emend.ledger.store import _schema


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path / "facts.db") as made:
        yield made


def test_a_group_is_one_entry_and_comes_back_as_it_was(ledger, tmp_path):
    ledger.add(GROUP)
    assert ledger.active() == (GROUP,)
    assert [one.id for one in ledger.entries(subject="法国")] == ["capital"]
    ledger.export(tmp_path / "facts.jsonl")
    with Ledger.create(tmp_path / "other.db") as other:
        other.import_file(tmp_path / "facts.jsonl")
        assert other.active() == (GROUP,)
        with pytest.raises(Conflict):
            other.add(replace(CHINESE, target="柏林"))
    assert [one.id for one in ledger.revert("capital")] == ["capital"]
    assert ledger.active() == ()


def test_conflicts_are_found_across_languages(ledger):
    ledger.add(GROUP)
    other = Edit("{}的首都为", "法国", "柏林", id="other")
    with pytest.raises(Conflict, match=r"'capital'.*against 'other'"):
        ledger.add(other)
    ledger.add(other, supersede=True)
    assert {one.id: one.status for one in ledger.entries()} == {
        "capital": "superseded",
        "other": "active",
    }
    with pytest.raises(Conflict):
        ledger.restore("capital")


def test_a_part_alone_is_refused(ledger):
    with pytest.raises(InvalidInput, match="translation of 'capital', expected a whole edit"):
        ledger.add(statements_of([GROUP])[1])


def test_a_line_with_a_part_alone_is_refused(ledger, tmp_path):
    ledger.add(CHINESE)
    path = tmp_path / "facts.jsonl"
    ledger.export(path)
    text = path.read_text("utf-8")
    path.write_text(text.replace('"language": "zh"', '"translation_of": "x"'), "utf-8")
    said = "translation of 'x', expected a whole edit"
    with Ledger.create(tmp_path / "other.db") as other, pytest.raises(BrokenFile, match=said):
        other.import_file(path)


def test_a_ledger_of_version_1_keeps_its_edits_and_finds_conflicts(tmp_path):
    path = tmp_path / "old.db"
    names = "id, prompt, subject, target, probes, author, reason, source, time, changed, status, "
    names += "text_key, subject_key, target_key"
    stamp = "2026-01-31T12:00:00.000000Z"
    row = ("old", "{}的首都为", "法国", "柏林", "[]", "", "", "", stamp, stamp, "active")
    row += ("法国的首都为", "法国", "柏林")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA application_id = {_schema.APPLICATION_ID:d}")
        for statement in _schema.MIGRATIONS[0]:
            connection.execute(statement)
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO entries ({names}) VALUES ({marks})", row)
        connection.execute("PRAGMA user_version = 1")
    with Ledger.open(path) as ledger:
        assert ledger.active() == (Edit("{}的首都为", "法国", "柏林", id="old"),)
        assert ledger.check() == ()
        with pytest.raises(Conflict, match=r"'old'.*against 'capital'"):
            ledger.add(GROUP)
