"""Files whole or not at all, whoever else writes; lines of JSON; UTF-8 under any locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from emend import _io
from emend._io import (
    append_json_line,
    json_text,
    read_kept_lines,
    split_lines,
    whole_directory,
    whole_file,
    write_json_lines,
    write_text,
)
from emend.bench import Row
from emend.bench._results import ResultsFile
from emend.errors import InvalidInput, StoreFailure
from emend.ledger import Ledger
from emend.metrics import Report
from emend.models.endpoint import Journal

NASTY = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh 巴黎 😀"
WRITER = """
import sys, pathlib
from emend._io import whole_directory, whole_file
place, mark = pathlib.Path(sys.argv[1]), sys.argv[2]
for _ in range(40):
    with whole_file(place / "file") as aside:
        aside.write_text(mark * 50_000)
    with whole_directory(place / "directory", ("a", "b"), "a") as aside:
        (aside / "a").write_text(mark * 1000)
        (aside / "b").write_text(mark * 1000)
"""


def _write_many(path, mark):
    for _ in range(40):
        with whole_file(path) as aside:
            aside.write_text(mark * 50_000)


def test_threads_and_processes_that_write_one_file_leave_one_whole_version(tmp_path):
    """Fault 22: temporary files named by process id collide for threads and containers."""
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, m]) for m in "AB"]
    threads = [threading.Thread(target=_write_many, args=(tmp_path / "file", m)) for m in "CDEF"]
    failed = []
    hook, threading.excepthook = threading.excepthook, failed.append
    try:
        for thread in threads:
            thread.start()
        seen = 0
        while any(thread.is_alive() for thread in threads) or any(
            process.poll() is None for process in processes
        ):
            for path in (tmp_path / "file", tmp_path / "directory" / "b"):
                try:
                    text = path.read_text()
                except FileNotFoundError:
                    continue
                assert len(text) in (1000, 50_000) and len(set(text)) == 1
                seen += 1
    finally:
        threading.excepthook = hook
        for each in (*threads, *processes):
            each.join() if isinstance(each, threading.Thread) else each.wait()
    assert not failed
    assert [process.returncode for process in processes] == [0, 0]
    assert seen > 10
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]
    written = {(tmp_path / "directory" / name).read_text() for name in ("a", "b")}
    assert len(written) == 1


def test_what_a_killed_writer_left_goes_after_a_day_and_a_live_one_stays(tmp_path):
    """Fault 22: a live file of another host or container is never removed."""
    path = tmp_path / "kept.json"
    live = tmp_path / f".kept.json.{2**22 + 1}.tmp"  # a process id that this machine does not have
    left = [tmp_path / ".kept.json.123.tmp", tmp_path / ".kept.json.abc.tmp-wal"]
    other = tmp_path / ".kept.jsonl.123.tmp"
    for one in (live, other, *left):
        one.touch()
    (tmp_path / ".kept.json.dir.tmp").mkdir()
    (tmp_path / ".kept.json.dir.tmp" / "growing").touch()
    long_ago = time.time() - 2 * _io.LEFT_AFTER
    for one in (other, *left, tmp_path / ".kept.json.dir.tmp"):
        os.utime(one, (long_ago, long_ago))
    write_text(path, "x")
    kept = [".kept.json.dir.tmp", live.name, ".kept.jsonl.123.tmp", "kept.json"]
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_directory_that_was_moved_away_is_kept_while_nothing_took_its_place(tmp_path):
    old = tmp_path / ".patch.abc.old"
    old.mkdir()
    (old / "a").write_text("all there is")
    for path in (old / "a", old):
        os.utime(path, (0, 0))
    with pytest.raises(KeyError), whole_directory(tmp_path / "patch", ("a",), "a"):
        raise KeyError
    assert (old / "a").exists()
    for _ in range(2):
        with whole_directory(tmp_path / "patch", ("a",), "a") as aside:
            (aside / "a").write_text("new")
    assert os.listdir(tmp_path) == ["patch"]


def test_a_new_ledger_is_made_beside_a_live_writer_of_another_host(tmp_path):
    """Fault 22: the making of a ledger removed what stood under its process id."""
    live = tmp_path / f".facts.db.{os.getpid()}.tmp"
    live.write_text("of another container")
    Ledger.create(tmp_path / "facts.db").close()
    assert live.read_text() == "of another container"
    assert sorted(os.listdir(tmp_path)) == [live.name, "facts.db"]


def test_permissions_and_links_stay(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_io.os, "fsync", full)
    with pytest.raises(
        StoreFailure, match=r"cannot write .*file \(No space left on device\): free"
    ):
        write_text(tmp_path / "file", "x")
    with (
        pytest.raises(StoreFailure, match=r"cannot write .*p \(No space left on device\): free"),
        whole_directory(tmp_path / "p", ("a",), "a") as aside,
    ):
        (aside / "a").touch()
    monkeypatch.undo()
    with pytest.raises(InvalidInput, match="is a directory"):
        write_text(tmp_path, "x")
    with pytest.raises(StoreFailure, match="cannot write"):
        append_json_line(tmp_path, {})
    with pytest.raises(FileNotFoundError, match="another"), whole_file(tmp_path / "file"):
        raise FileNotFoundError(2, "not there", "another")  # says nothing of what is written
    assert os.listdir(tmp_path) == []


def test_lines_are_parted_at_line_feeds_alone():
    """Fault 20: str.splitlines parts JSON texts at U+2028, U+0085 and others."""
    assert split_lines(f"{NASTY}\r\n\n{NASTY}\n") == [NASTY, "", NASTY]
    assert split_lines("") == []
    assert split_lines("a\nb") == ["a", "b"]


def test_reports_journals_and_sweeps_hold_any_text(tmp_path):
    """Fault 20: what stands in a text broke the files of evaluations, endpoints and sweeps."""
    record = {"edit": NASTY, "metric": "reliability", "group": "rewrite", "schedule": "single"}
    record |= {"protocols": {"exact_match": {"before": 0.0, "after": 1.0}}}
    report = Report([record, record], ["reliability"])
    report.save(tmp_path / "report")
    assert list(Report.load(tmp_path / "report").records) == [record, record]

    journal = Journal(tmp_path / "journal.jsonl")
    journal.add("a key", NASTY, NASTY)
    assert Journal(tmp_path / "journal.jsonl").get("a key") == NASTY

    row = Row({"layer": 3}, reliability=1.0, error=NASTY)
    results = ResultsFile(tmp_path / "sweep.jsonl", "sweep", {"model": NASTY})
    results.add(row.to_dict())
    again = ResultsFile(tmp_path / "sweep.jsonl", "sweep", {"model": NASTY})
    assert [Row.from_line(line) for line in again.lines] == [row]


def test_a_record_cut_short_takes_no_other_with_it(tmp_path):
    path = tmp_path / "deep" / "kept.jsonl"
    append_json_line(path, {"n": 1, "text": "巴黎"})
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        append_json_line(path, {"n": 2})
        first = [{"n": 1, "text": "巴黎"}] if cut >= len(whole) - 1 else []
        assert read_kept_lines(path) == [*first, {"n": 2}], cut
    assert read_kept_lines(tmp_path / "none.jsonl") == []


def test_many_writers_add_whole_lines(tmp_path):
    path = tmp_path / "kept.jsonl"

    def add(mark):
        for _ in range(50):
            append_json_line(path, {"mark": mark * 3000})

    threads = [threading.Thread(target=add, args=(mark,)) for mark in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    marks = [one["mark"] for one in read_kept_lines(path)]  # an empty line between does no harm
    assert {mark[0]: marks.count(mark) for mark in set(marks)} == dict.fromkeys("abcd", 50)
    assert all(mark == mark[0] * 3000 for mark in marks)


def test_halves_of_surrogate_pairs_are_escaped(tmp_path):
    assert json_text({"a": "é"}) == '{"a": "é"}'
    write_json_lines(tmp_path / "lines.jsonl", ["\ud800é", "é"])
    lines = split_lines((tmp_path / "lines.jsonl").read_text(encoding="utf-8"))
    assert [json.loads(line) for line in lines] == ["\ud800é", "é"]
