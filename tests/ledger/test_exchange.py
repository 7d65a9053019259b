"""What goes from one ledger to another, and what is refused on the way."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing

import pytest

from emend.edits import Edit, Probe
from emend.errors import BrokenFile, Conflict, EmendError, InvalidInput, MissingFile
from emend.ledger import Build, Ledger

SQL = "'); DROP TABLE entries; -- \" ? :id %s ]"
BORN = Edit("{} was born in", "Marie Curie", "Paris", id="born", relation="birthplace")
CAME = Edit("{} came into the world in", "marie curie", "Rome", id="came", relation="birthplace")
KIND = Edit("{} is a", "Ång", "日\u2028本", original="x", probes=(Probe("one_hop", "p", ("a",)),))


@pytest.fixture
def make(tmp_path):
    ledgers = []

    def made(name, *edits, **named):
        ledgers.append(Ledger.create(tmp_path / f"{name}.db"))
        if edits:
            ledgers[-1].add(edits, **named)
        return ledgers[-1]

    yield made
    for ledger in ledgers:
        ledger.close()


def _lived(make):
    """A ledger in which everything has happened."""
    ledger = make("lived", BORN, KIND, author="Ann", reason="r\n", source="s", tags=["b", "a"])
    ledger.add(Edit("{} is in", "x", "y", id="child"), parent="born", status="proposed")
    ledger.add(Edit("{} is on", "x", "y", id="other"), status="proposed")
    ledger.add(CAME, supersede=True)
    ledger.revert(KIND.id, author="Bob")
    ledger.note_original("came", "Lyon")
    ledger.keep_values("base", "memit", {"v": b"1"}, edits={"v": "came"})
    build = ledger.add_build(Build("base", "memit", {}, ("came",), "beef"))
    ledger.add_measurement(build.id, "gate", {"x": 1})
    return ledger


def _state(ledger):
    return {entry.id: (entry.status, entry.superseded_by) for entry in ledger.entries()}


def test_what_is_exported_is_imported_equal_and_once(make, tmp_path):
    ledger = _lived(make)
    path = tmp_path / "out" / "facts.jsonl"
    assert ledger.export(path) == 5
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [next(iter(line)) for line in lines] == ["ledger"] + ["entry"] * 5 + ["event"] * 12
    assert os.listdir(path.parent) == ["facts.jsonl"]
    other = make("other")
    new = other.import_file(path, author="Eve")
    assert new == other.entries() == ledger.entries()
    assert [event.id for event in other.log() if event in ledger.log()] == [
        event.id for event in ledger.log()
    ]
    last = other.log()[-1]
    assert (last.what, last.author, last.details) == (
        "imported",
        "Eve",
        {"from": "facts.jsonl", "new": 5},
    )
    count = len(other.log())
    assert other.import_file(path) == ()
    assert other.entries() == ledger.entries()
    assert len(other.log()) == count + 1
    assert other.check() == ()
    other.restore("born", supersede=True)
    assert _state(other)["child"] == ("proposed", None)


def test_merging_brings_what_was_made_too_and_leaves_the_other_as_it_is(make):
    ledger, other = _lived(make), make("other", Edit("{} is at", "x", "y", id="own"))
    before = (ledger.entries(), ledger.log())
    new = other.merge(ledger)
    assert [entry.id for entry in new] == [entry.id for entry in ledger.entries()]
    assert set(other.entries()) == {*ledger.entries(), other.entry("own")}
    assert other.builds() == ledger.builds()
    assert other.measurements() == ledger.measurements()
    assert other.values("base") == {"v": b"1"}
    assert other.solved() == ledger.solved()
    assert other.log()[-1].what == "merged"
    assert (ledger.entries(), ledger.log()) == before
    assert other.merge(ledger) == ()
    assert other.merge(other) == ()
    assert len(other.builds()) == 1
    assert other.check() == ()


def test_one_edit_in_both_is_one_with_the_later_status_and_all_tags(make):
    one = make("one", BORN, author="Ann", tags=["a"])
    other = make("other", BORN, author="Bob", tags=["b"])
    other.note_original("born", "Lyon")
    other.revert("born")
    assert one.merge(other) == ()
    entry = one.entry("born")
    assert (entry.status, entry.previous_status, entry.author) == ("reverted", "active", "Ann")
    assert entry.tags == ("a", "b")
    assert entry.edit.original == "Lyon"
    one.restore("born")  # later than the other's revert
    one.merge(other)
    assert one.entry("born").status == "active"
    other.merge(one)
    assert other.entry("born").status == "active"
    assert [event.what for event in other.log("born")].count("added") == 2


def test_one_id_for_two_edits_is_refused_with_both(make):
    mine = Edit("{} is", "a", "b", id="same")
    theirs = Edit("{} is", "a", "c", id="same")
    one, other = make("one", mine), make("other", theirs, KIND)
    for supersede in (False, True):
        with pytest.raises(Conflict, match="edits differ and have one id") as caught:
            one.merge(other, supersede=supersede)
        assert caught.value.pairs == ((mine, theirs),)
        assert "'a is -> b'" in str(caught.value)
        assert "'a is -> c'" in str(caught.value)
    assert [entry.edit for entry in one.entries()] == [mine]


def test_conflicts_of_a_merge_are_listed_and_the_newer_wins_if_asked(make):
    old = make("old", BORN, Edit("{} sees", "a", "b", id="sees"))
    old.add(Edit("{} is in", "x", "y", id="child"), parent="born")
    new = make("new", CAME, Edit("{}  Sees", "a", "c", id="Sees"), KIND)
    for one, other in ((old, new), (new, old)):
        before = (one.entries(), one.log())
        with pytest.raises(Conflict) as caught:
            one.merge(other)
        assert [(older.id, newer.id) for older, newer in caught.value.pairs] == [
            ("sees", "Sees"),
            ("born", "came"),
        ]
        assert len(str(caught.value).splitlines()) == 3
        assert (one.entries(), one.log()) == before
    older = make("third")
    older.merge(old)
    for one, other in ((old, new), (new, older)):
        one.merge(other, supersede=True)
        assert _state(one) == {
            "born": ("superseded", "came"),
            "child": ("superseded", "came"),
            "sees": ("superseded", "Sees"),
            "came": ("active", None),
            "Sees": ("active", None),
            KIND.id: ("active", None),
        }
        assert one.conflicts() == ()


def test_what_comes_without_its_parent_is_taken_out(make):
    one, other = make("one", BORN), make("other")
    other.merge(one)
    other.add(Edit("{} is in", "x", "y", id="child"), parent="born")
    one.revert("born")
    one.merge(other)
    assert _state(one) == {"born": ("reverted", None), "child": ("reverted", None)}
    assert one.entry("child").cascade_root == "born"
    one.restore("born")
    assert one.entry("child").status == "active"


def _line(**changed):
    """A line with an entry, whose fields are changed or (...) left out."""
    entry = {
        "edit": {"id": "good", "prompt": "{} is", "subject": "a", "target": "b"},
        "time": "2026-01-31T12:00:00.000000Z",
        "changed": "2026-01-31T12:00:00.000000Z",
        "status": "active",
        **changed,
    }
    return {"entry": {name: value for name, value in entry.items() if value is not ...}}


def _edit(**changed):
    return _line(edit={**_line()["entry"]["edit"], **changed})


def _event(**changed):
    event = {"id": "0" * 32, "time": "2026-01-31T12:00:00.000000Z", "what": "added", **changed}
    return {"event": event}


def _write(path, *lines, first=True):
    head = [{"ledger": 1, "base": None}] if first else []
    texts = [line if isinstance(line, str) else json.dumps(line) for line in (*head, *lines)]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8", newline="")
    return path


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([_line(), _line()], r":3: id 'good' is also on line 2"),
        ([_event(), _event()], r":3: id '0+' is also on line 2"),
        ([_line(status="gone")], r":2: entry\.status is 'gone', expected one of proposed"),
        ([_line(status=["active"])], r":2: entry\.status is"),
        ([_line(status={"active": 1})], r":2: entry\.status is"),
        ([_line(status=...)], r":2: entry\.status is missing"),
        ([_line(previous_status="reverted")], r":2: entry\.previous_status is 'reverted'"),
        ([_line(parent="good")], r":2: edit 'good' is derived from itself"),
        ([_line(parent="nobody")], r":2: entry\.parent is 'nobody', expected an id in this file"),
        ([_line(superseded_by="nobody")], r":2: entry\.superseded_by is 'nobody'"),
        ([_line(cascade_root=7)], r":2: entry\.cascade_root is int '7'"),
        ([_line(tags=7)], r":2: entry\.tags is a number, expected a list"),
        ([_line(tags=[{}])], r":2: entry\.tags\[0\] is dict"),
        ([_line(author=None)], r":2: entry\.author is null"),
        ([_line(author="a\x00b")], r":2: entry\.author holds a NUL"),
        ([_line(reason="\ud800")], r":2: entry\.reason holds half of a surrogate"),
        ([_line(reason="x" * 20_000)], r":2: entry\.reason has 20,000 characters"),
        ([_line(time="yesterday")], r":2: entry\.time is 'yesterday', expected a time like"),
        ([_line(time="9999-12-31T23:59:59.999999Z")], r":2: entry\.time is 9999.*that has passed"),
        ([_line(time="2026-01-31T12:00:00.000000Z\n")], r":2: entry\.time is"),
        ([_line(changed="2026-13-31T12:00:00.000000Z")], r":2: entry\.changed is"),
        ([_line(changed=1e9)], r":2: entry\.changed is"),
        ([_line(password="x")], r":2: entry\.password is an unknown field"),
        ([_edit(subject=1)], r":2: entry\.edit\.subject is int '1', expected text"),
        ([_edit(target="a\x00")], r":2: entry\.edit\.target holds a NUL"),
        ([_edit(id="x" * 2000)], r":2: entry\.edit\.id has 2,000 characters"),
        ([_edit(probes=[{"group": SQL}])], r":2: entry\.edit\.probes\[0\]\.prompt is missing"),
        ([_edit(probes=[{"group": "one_hop", "prompt": "p" * 90_000, "answers": ["a"]}] * 5)],
         r":2: entry\.edit takes 450,\d+ bytes"),
        ([_line(edit={"prompt": "{} is", "subject": "a", "target": "b"})],
         r":2: entry\.edit\.id is missing"),
        ([_line(edit=[1])], r":2: entry\.edit is a list, expected an object"),
        ([{"entry": 7}], r":2: entry is a number, expected an object"),
        ([{"entry": {}, "event": {}}], r":2: found 'entry', 'event', expected one field"),
        ([{"patch": "../../../etc/passwd"}], r":2: found 'patch', expected one field: entry"),
        (["[]"], r":2: the line is a list, expected an object"),
        (["null"], r":2: the line is null, expected an object"),
        (['{"entry": {"edit": ' + DEEP + "}}"], r":2: .*too deep"),
        (['{"entry": {"a": 1, "a": 2}}'], r":2: field 'a' occurs twice"),
        (['{"entry": '], r":2: is not JSON"),
        ([_event(what="hacked")], r":2: event\.what is 'hacked', expected one of created"),
        ([_event(id="../../x")], r":2: event\.id is '../../x', expected 32"),
        ([_event(edit="nobody")], r":2: event\.edit is 'nobody', expected an id in this file"),
        ([_event(details=[1])], r":2: event\.details is a list"),
        ([_event(details={"x": float("nan")})], r":2: event\.details cannot be kept as JSON"),
        ([_event(details={"x": "\ud800"})], r":2: event\.details cannot be kept as JSON"),
    ],
)  # fmt: skip
def test_a_hostile_line_is_refused_with_its_number_and_nothing_is_taken_in(
    make, tmp_path, lines, said
):
    ledger = make("facts", BORN)
    before = (ledger.entries(), ledger.log())
    path = _write(tmp_path / "hostile.jsonl", *lines)
    with pytest.raises(BrokenFile, match=said) as caught:
        ledger.import_file(path)
    for problem in caught.value.problems:
        assert "\n" not in problem
        assert len(problem) < 1000
    assert (ledger.entries(), ledger.log()) == before
    assert ledger.check() == ()


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ([], "found no line, expected an export"),
        ([{"prompt": "{} is", "subject": "a", "target": "b"}], "emend ledger add"),
        ([_line()], "found no line that begins an export"),
        ([{"ledger": 2}], "found an export of version 2, expected 1"),
        ([{"ledger": "1'; --"}], "found an export of version"),
        ([{"ledger": 1, "base": 7}], "base is a int"),
        (["[1]"], "the line is a list, expected an object"),
    ],
)
def test_a_file_begins_as_an_export_does(make, tmp_path, first, said):
    ledger = make("facts")
    with pytest.raises(BrokenFile, match=said):
        ledger.import_file(_write(tmp_path / "x.jsonl", *first, first=False))


def test_every_problem_of_a_file_is_told_at_once(make, tmp_path):
    lines = [_line(status=str(number)) for number in range(200)]
    with pytest.raises(BrokenFile) as caught:
        make("facts").import_file(_write(tmp_path / "x.jsonl", *lines))
    assert len(str(caught.value).splitlines()) == 52
    assert "200 problems" in str(caught.value)


def test_edits_of_one_file_that_conflict_are_refused_with_their_lines(make, tmp_path):
    good = _line()["entry"]["edit"]
    lines = [_line(edit={**good, "id": f"{index}", "target": f"t{index}"}) for index in range(3)]
    lines.append(_line(edit={**good, "id": "3", "target": "t3"}, status="reverted"))
    with pytest.raises(BrokenFile) as caught:
        make("facts").import_file(_write(tmp_path / "x.jsonl", *lines), supersede=True)
    assert len(caught.value.problems) == 2
    for problem, line in zip(caught.value.problems, (3, 4), strict=True):
        assert f":{line}: edit '{line - 2}' and that on line 2 are both active" in problem


def test_long_problems_are_told_shortly(make, tmp_path):
    lines = [_edit(**{"x" * 400_000: 1}), _edit(probes=[{"group": "g"}] * 9_000)]
    with pytest.raises(BrokenFile) as caught:
        make("facts").import_file(_write(tmp_path / "x.jsonl", *lines))
    assert len(caught.value.problems) == 1 + 9_000 * 3
    assert all(len(problem) < 800 for problem in caught.value.problems)
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize("kind", ["chain", "ring", "rivals", "alternating", "names"])
def test_a_file_made_to_take_long_does_not(make, tmp_path, kind):
    many = 3_000
    good = _line()["entry"]["edit"]
    lines = []
    for index in range(many):
        edit = {**good, "id": f"{index}", "subject": f"s{index}"}
        parent = f"{index - 1}" if index else None
        if kind == "ring" and not index:
            parent = f"{many - 1}"
        if kind == "rivals":
            edit = {**edit, "subject": "s", "target": f"t{index}"}
            parent = None
        status = "reverted" if kind == "alternating" and index % 2 == 0 else "active"
        lines.append(_line(edit=edit, parent=parent, status=status))
    if kind == "names":
        lines = ["{" + ",".join(f'"{index}":1' for index in range(90_000)) + ',"89999":1}']
    path = _write(tmp_path / "x.jsonl", *lines)
    started = time.process_time()
    if kind in ("chain", "alternating"):
        ledger = make("facts")
        assert len(ledger.import_file(path)) == many
        assert len(ledger.active()) == (many if kind == "chain" else 0)
    else:
        with pytest.raises(BrokenFile):
            make("facts").import_file(path)
    assert time.process_time() - started < 10  # one to three seconds


def test_a_field_of_a_hundred_megabytes_is_refused_without_being_kept(make, tmp_path):
    ledger = make("facts", BORN)
    path = tmp_path / "huge.jsonl"
    with path.open("w") as file:
        file.write('{"ledger": 1}\n{"entry": {"author": "')
        for _ in range(100):
            file.write("x" * 1_000_000)
        file.write('"}}\n')
    with pytest.raises(BrokenFile, match=r":2: found a line of 100,000,\d+ bytes") as caught:
        ledger.import_file(path)
    assert len(str(caught.value)) < 400
    path.unlink()
    assert [entry.edit for entry in ledger.entries()] == [BORN]
    assert ledger.path.stat().st_size < 1_000_000


def test_hostile_text_is_kept_verbatim_and_does_nothing(make, tmp_path):
    ledger = make("facts", BORN)
    names = [SQL, "../../../etc/passwd", "/etc/passwd\n", "\x1b[2J", "%n%s", "${HOME}", "\u202e"]
    lines = [
        _line(
            edit={
                "id": name.strip(),
                "prompt": "{} " + name,
                "subject": name.strip(),
                "target": name,
                "relation": name,
                "original": name,
            },
            **dict.fromkeys(("author", "reason", "source"), name),
            tags=[name],
        )
        for name in names
    ]
    lines.append(_event(edit=SQL, author=SQL, reason=SQL, details={SQL: [SQL]}))
    new = ledger.import_file(_write(tmp_path / "hostile.jsonl", *lines), author=SQL)
    assert [entry.author for entry in new] == names
    assert [entry.edit.target for entry in new] == names
    assert [entry.id for entry in ledger.entries(tag=SQL, author=SQL, subject=SQL)] == [SQL]
    assert ledger.log(SQL)[0].details == {SQL: [SQL]}
    ledger.revert(*(entry.id for entry in new), reason=SQL)
    assert ledger.active() == (BORN,)
    assert ledger.check() == ()
    assert sorted(os.listdir(tmp_path)) == [
        "facts.db", "facts.db-shm", "facts.db-wal", "hostile.jsonl"
    ]  # fmt: skip
    ledger.export(tmp_path / "again.jsonl")
    assert make("again").import_file(tmp_path / "again.jsonl") == ledger.entries()


def test_the_largest_entry_that_is_taken_can_be_exported_and_read_again(make, tmp_path):
    probes = (Probe("one_hop", "\x01" * 40_000, ("a",)),)
    edit = Edit("{} is", "a", "b", id="\x02" * 1_000, probes=probes)
    ledger = make("facts", edit, reason="\x03" * 5_000)
    ledger.note_original(edit.id, "\x04" * 100_000)
    ledger.revert(edit.id, reason="\x05" * 10_000, author="\x06" * 1_000)
    ledger.export(tmp_path / "out.jsonl")
    assert make("other").import_file(tmp_path / "out.jsonl") == ledger.entries()


def test_paths_that_cannot_be_read_or_written_are_told(make, tmp_path):
    ledger = make("facts", BORN)
    with pytest.raises(InvalidInput, match=r"expected \.jsonl"):
        ledger.export(tmp_path / "facts.db")
    with pytest.raises(InvalidInput, match="is a directory"):
        ledger.import_file(tmp_path)
    with pytest.raises(MissingFile, match="there is no file"):
        ledger.import_file(tmp_path / "nothing.jsonl")
    with pytest.raises(InvalidInput, match=r"ends in '\.db', expected one of \.jsonl"):
        ledger.import_file(ledger.path)
    (tmp_path / "dir.jsonl").mkdir()
    with pytest.raises(InvalidInput, match="is a directory"):
        ledger.export(tmp_path / "dir.jsonl")
    assert [entry.edit for entry in ledger.entries()] == [BORN]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET author = char(0)",
        "UPDATE entries SET time = 'zzz'",
        "UPDATE entries SET changed = '9999-12-31T23:59:59.999999Z'",
        "UPDATE entries SET parent = id",
        "UPDATE events SET what = 'hacked'",
        "UPDATE events SET time = '9999-12-31T23:59:59.999999Z'",
        "UPDATE events SET id = '../../' || number",
        "UPDATE entries SET prompt = '{} {}'",
        "UPDATE builds SET config = '{'",
        "UPDATE measurements SET results = 'x'",
        "UPDATE solved SET details = ''",
    ],
)
def test_a_ledger_that_no_ledger_writes_is_not_merged(make, statement):
    hostile, ledger = _lived(make), make("facts", Edit("{} is", "q", "r", id="q"))
    hostile.close()
    with closing(sqlite3.connect(hostile.path, isolation_level=None)) as connection:
        connection.execute(statement)
    before = (ledger.entries(), ledger.log())
    with Ledger.open(hostile.path) as other, pytest.raises(EmendError) as caught:
        ledger.merge(other)
    assert isinstance(caught.value, BrokenFile)
    assert (ledger.entries(), ledger.log()) == before
    assert ledger.check() == ()
