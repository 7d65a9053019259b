"""What may happen to the file: other files, newer ones, kills, full disks, other writers."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from emend.edits import Edit
from emend.errors import BrokenFile, EmendError, InvalidInput, MissingFile, StoreFailure
from emend.ledger import Ledger
from emend.ledger.store import _connection, _schema

HERE = Path(__file__).parent


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "facts.db"
    with Ledger.create(path) as ledger:
        ledger.add(_edit("first"))
    return path


def _edit(name):
    return Edit("{} was born in", f"Somebody {name}", "Paris", id=name)


def _ids(path):
    with Ledger.open(path) as ledger:
        assert ledger.check() == ()
        return {edit.id for edit in ledger.active()}


def _sql(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements]


@pytest.mark.slow
def test_nothing_that_was_told_is_lost_when_the_process_is_killed(tmp_path):
    done = subprocess.run(
        [sys.executable, HERE / "killed.py", tmp_path, "30"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] == 30
    assert told["under_way"] > 0  # most kills meet an operation, some after its commit
    assert told["operations"] > 5
    assert told["edits"] > 5


_ADDER = """
import sys
from emend.edits import Edit
from emend.ledger import Ledger
with Ledger.open(sys.argv[1]) as ledger:
    sys.stdin.read(1)
    for number in range(60):
        name = f"{sys.argv[2]}-{number}"
        ledger.add(Edit("{} was born in", f"Somebody {name}", "Paris", id=name))
"""


def test_two_processes_that_add_at_once_lose_nothing(path):
    adders = [
        subprocess.Popen(
            [sys.executable, "-c", _ADDER, path, name], stdin=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    for adder in adders:
        adder.stdin.write("x")
        adder.stdin.close()
    assert [adder.wait() for adder in adders] == [0, 0]
    assert _ids(path) == {"first", *(f"{name}-{number}" for name in "ab" for number in range(60))}
    with Ledger.open(path) as ledger:
        times = [event.time for event in ledger.log()]
    assert times == sorted(set(times))


def test_two_processes_cannot_add_what_conflicts(path):
    with Ledger.open(path) as one, Ledger.open(path) as other:
        one.add(Edit("{} is", "a", "b", id="one"))
        with pytest.raises(EmendError, match="'one'"):
            other.add(Edit("{} is", "a", "c", id="other"))
        with pytest.raises(InvalidInput, match="in the ledger already"):
            other.add(Edit("{} is", "a", "b", id="one"))


def test_a_disk_that_fills_up_harms_nothing(tmp_path):
    script = HERE / "full_disk.py"
    own_mounts = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f'mount -t tmpfs -o size=900k tmpfs "{tmp_path}"'
    probe = [*own_mounts, "sh", "-c", mount]
    if not shutil.which("unshare") or subprocess.run(probe, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    done = subprocess.run(
        [*own_mounts, "sh", "-c", f'{mount} && exec "{sys.executable}" "{script}" "{tmp_path}"'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["kept"] > 5
    assert "no room left on the disk" in said["add"]
    assert "No space left" in said["export"]
    assert "no room left" in said["create"]
    assert said["files"] == ["ballast", "facts.db", "facts.db-shm", "facts.db-wal"]
    assert "facts.db" in said["read_only"]
    assert all("\n" not in str(line) for line in said.values())


def test_a_file_that_may_grow_no_more_harms_nothing(path):
    before, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Ledger.open(path) as ledger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
        try:
            with pytest.raises(StoreFailure, match="full") as caught:
                ledger.add([_edit(f"{number}" * 50) for number in range(2000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
        assert "\n" not in str(caught.value)
        ledger.add(_edit("after"))
    assert _ids(path) == {"first", "after"}


def test_no_more_pages_harm_nothing(path):
    with Ledger.open(path) as ledger:
        connection = ledger._store.connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreFailure, match="no room left on the disk"):
            ledger.add([_edit(f"{number}") for number in range(2000)])
        with pytest.raises(StoreFailure, match="no room left on the disk"):
            ledger.keep_values("base", "memit", {"value": bytes(1_000_000)})
        connection.execute("PRAGMA max_page_count = 1000000")
        ledger.add(_edit("after"))
        assert ledger.values("base") == {}
    assert _ids(path) == {"first", "after"}


def test_a_writer_that_takes_too_long_is_told(path, monkeypatch):
    monkeypatch.setattr(_connection, "PATIENCE", 0.05)
    with Ledger.open(path) as ledger, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreFailure, match="written by another process"):
            ledger.add(_edit("second"))
        assert len(ledger.active()) == 1  # reading goes on
        other.rollback()
        ledger.add(_edit("second"))
    assert _ids(path) == {"first", "second"}


def test_a_short_writer_is_waited_for(path):
    with Ledger.open(path) as ledger:
        other = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, lambda: (other.execute("COMMIT"), other.close()))
        timer.start()
        ledger.add(_edit("second"))
        timer.join()
    assert _ids(path) == {"first", "second"}


def test_an_error_within_leaves_the_ledger_usable(path):
    with Ledger.open(path) as ledger:
        with pytest.raises(KeyError), ledger._store.writing() as connection:  # noqa: PT012
            connection.execute("DELETE FROM tags")
            connection.execute("UPDATE entries SET status = 'reverted'")
            raise KeyError
        assert len(ledger.active()) == 1
        ledger.add(_edit("second"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a SQLite file"),
        (b"# Notes\nThis is no ledger.\n", "not a SQLite file"),
        (b"SQLite format 3\x00", "not a SQLite file"),
        (b"\x00" * 4096, "not a SQLite file"),
        (b"SQLite format 3\x00" + b"\x00" * 4096, "of another program"),
        (b"SQLite format 3\x00" + b"\x00" * 52 + b"emnd" + b"\xff" * 4000, "is damaged"),
    ],
)
def test_what_is_no_ledger_is_refused_and_left_as_it_is(tmp_path, content, said):
    path = tmp_path / "facts.db"
    path.write_bytes(content)
    with pytest.raises(BrokenFile, match=said) as caught:
        Ledger.open(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["facts.db"]


def test_other_things_are_refused(tmp_path, path):
    with pytest.raises(MissingFile, match="there is no ledger"):
        Ledger.open(tmp_path / "nothing.db")
    assert not (tmp_path / "nothing.db").exists()
    with pytest.raises(InvalidInput, match="is a directory"):
        Ledger.open(tmp_path)
    other = tmp_path / "other.db"
    _sql(other, "CREATE TABLE entries (id TEXT)")
    with pytest.raises(BrokenFile, match="of another program"):
        Ledger.open(other)


@pytest.mark.parametrize("version", [_schema.VERSION + 1, 2**31 - 1])
@pytest.mark.parametrize("in_header", [True, False])
def test_a_newer_ledger_is_refused_and_left_as_it_is(path, version, in_header):
    statement = f"PRAGMA user_version = {version}"
    if in_header:
        _sql(path, statement)
        with pytest.raises(BrokenFile, match=f"version {version}, .*upgrade emend") as caught:
            Ledger.open(path)
        assert "\n" not in str(caught.value)
    else:  # it stands in the write-ahead log only, while another process has the file open
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute(statement)
            with pytest.raises(BrokenFile, match=f"version {version}, .*upgrade emend"):
                Ledger.open(path)
    assert _sql(path, "PRAGMA user_version", "SELECT id FROM entries") == [
        [(version,)],
        [("first",)],
    ]


def test_a_ledger_that_becomes_newer_meanwhile_is_not_written(path):
    with Ledger.open(path) as ledger:
        _sql(path, "PRAGMA user_version = 99")
        with pytest.raises(BrokenFile, match="version 99"):
            ledger.add(_edit("second"))
        assert len(ledger.active()) == 1


@pytest.mark.parametrize("name", ["a b?mode=ro#%41.db", ":memory:", "ü\n.db", "--help"])
def test_any_name_is_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with Ledger.create(name) as ledger:
        ledger.add(_edit("first"))
    assert _ids(name) == {"first"}
    assert os.listdir(tmp_path) == [name]


def test_an_older_ledger_is_brought_up_to_date_in_one_step(path, tmp_path, monkeypatch):
    more = "CREATE TABLE colours (name TEXT PRIMARY KEY) STRICT"
    now = _schema.VERSION
    monkeypatch.setattr(_schema, "VERSION", now + 1)
    monkeypatch.setattr(_connection, "VERSION", now + 1)
    broken = (*_schema.MIGRATIONS, (more, "CREATE TABLE colours (again TEXT) STRICT"))
    monkeypatch.setattr(_connection, "MIGRATIONS", broken)
    with pytest.raises(StoreFailure, match="colours already exists"):
        Ledger.open(path)
    assert _sql(path, "PRAGMA user_version") == [[(now,)]]
    monkeypatch.setattr(_connection, "MIGRATIONS", (*_schema.MIGRATIONS, (more,)))
    assert _ids(path) == {"first"}
    assert _sql(path, "PRAGMA user_version", "SELECT * FROM colours") == [[(now + 1,)], []]
    with Ledger.create(tmp_path / "new.db") as ledger:  # a fresh one is the same
        assert ledger.check() == ()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE more (x)",
        "DROP INDEX events_time",
        "ALTER TABLE tags ADD COLUMN more TEXT",
    ],
)
def test_a_ledger_with_other_tables_is_refused(path, statement):
    _sql(path, statement)
    with pytest.raises(BrokenFile, match="differs from a ledger in"):
        Ledger.open(path)


def test_a_damaged_ledger_is_told(path):
    with Ledger.open(path) as ledger:
        ledger.add([_edit(f"{number}") for number in range(500)])
    content = bytearray(path.read_bytes())
    for place in range(8192, len(content), 4096):
        content[place : place + 64] = b"\xa5" * 64
    path.write_bytes(content)
    with pytest.raises(BrokenFile, match=r"is damaged|differs") as caught:  # noqa: PT012
        ledger = Ledger.open(path)
        try:
            assert ledger.check()
            ledger.active()
        finally:
            ledger.close()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "action"),
    [
        ("UPDATE entries SET probes = '[[['", Ledger.active),
        ("UPDATE entries SET probes = '[{\"x\": 1}]'", Ledger.active),
        ("UPDATE entries SET prompt = 'no place'", Ledger.active),
        ("UPDATE events SET details = 'x'", Ledger.log),
        ("UPDATE events SET time = 'zzz'", lambda ledger: ledger.revert("first")),
        (
            "UPDATE events SET time = '9999-12-31T23:59:59.999999Z'",
            lambda ledger: ledger.revert("first"),
        ),
        ("INSERT INTO meta VALUES ('base', '{')", lambda ledger: ledger.base),
    ],
)
def test_rows_that_no_ledger_writes_are_told(path, statement, action):
    _sql(path, statement)
    with Ledger.open(path) as ledger, pytest.raises(BrokenFile, match="last copy"):
        action(ledger)


def test_check_finds_what_names_nothing(path):
    _sql(path, "PRAGMA foreign_keys = OFF", "INSERT INTO tags VALUES ('nobody', 'x')")
    with Ledger.open(path) as ledger:
        assert len(ledger.check()) == 1
        assert "tags" in ledger.check()[0]


def test_a_ledger_is_made_where_nothing_is(tmp_path, path):
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="is there already"):
        Ledger.create(path)
    assert path.read_bytes() == before
    (tmp_path / "left.db-wal").write_bytes(b"of another")
    with pytest.raises(InvalidInput, match=r"left\.db-wal is there already"):
        Ledger.create(tmp_path / "left.db")
    with pytest.raises(InvalidInput, match="JSON"):
        Ledger.create(tmp_path / "new.db", {"x": object()})
    with pytest.raises(InvalidInput, match="is there already"):
        Ledger.create(tmp_path)
    with pytest.raises(InvalidInput, match="cannot make the directory"):
        Ledger.create(path / "below.db")
    assert sorted(os.listdir(tmp_path)) == ["facts.db", "left.db-wal"]


def test_a_copy_is_a_ledger(path, tmp_path):
    _sql(path, f"VACUUM INTO '{tmp_path / 'copy.db'}'")
    with Ledger.open(tmp_path / "copy.db") as ledger:
        ledger.add(_edit("second"))
    assert _sql(tmp_path / "copy.db", "PRAGMA journal_mode") == [[("wal",)]]
    assert _ids(tmp_path / "copy.db") == {"first", "second"}
    assert _ids(path) == {"first"}


def test_a_closed_ledger_says_so(path):
    ledger = Ledger.open(path)
    ledger.close()
    ledger.close()
    with pytest.raises(StoreFailure, match="was closed: open it again"):
        ledger.active()


def test_a_ledger_is_not_carried_across_a_fork(path):
    code = f"""
import os
from emend.errors import StoreFailure
from emend.ledger import Ledger
ledger = Ledger.open({str(path)!r})
child = os.fork()
if child == 0:
    try:
        ledger.active()
    except StoreFailure as error:
        os._exit(7 if "opened by another process" in str(error) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert len(ledger.active()) == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)
