"""What was solved, built and measured of the edits of a ledger."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from emend.edits import Edit
from emend.errors import BrokenFile, InvalidInput, UnknownName
from emend.ledger import Build, Ledger

BASE = "00ff00ff00ff00ff"
VALUES = {"value.b": b"\x00\xff" * 500, "value.a": b""}


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path / "facts.db") as ledger:
        ledger.add([Edit("{} is", f"a{number}", "b", id=f"fact-{number}") for number in range(3)])
        yield ledger


def test_values_come_back_as_they_were_kept(ledger):
    kept = ledger.keep_values(
        BASE,
        "memit",
        VALUES,
        config={"steps": 3, "layers": (1, 2)},
        edits={"value.b": "fact-1"},
        details={"value.b": {"token": 5, "hash": "aa"}},
    )
    assert kept == 2
    ledger.close()
    with Ledger.open(ledger.path) as again:
        assert again.values(BASE) == VALUES
        assert again.values(BASE, "memit", ["value.a", "nothing"]) == {"value.a": b""}
        assert again.values(BASE, "rome") == {}
        assert again.values("another base") == {}
        (one,) = again.solved("fact-1")
        assert len(again.solved()) == 2
    assert (one.name, one.base, one.method, one.edit) == ("value.b", BASE, "memit", "fact-1")
    assert one.config == {"steps": 3, "layers": [1, 2]}
    assert one.details == {"token": 5, "hash": "aa"}
    assert (one.size, one.digest) == (1000, hashlib.sha256(VALUES["value.b"]).hexdigest())


def test_what_was_kept_first_stays(ledger):
    ledger.keep_values(BASE, "memit", VALUES)
    assert ledger.keep_values(BASE, "memit", {**VALUES, "value.a": b"other", "value.c": b"c"}) == 1
    assert ledger.values(BASE) == {**VALUES, "value.c": b"c"}
    assert ledger.keep_values("other", "memit", {"value.a": b"other"}) == 1
    assert ledger.values(BASE)["value.a"] == b""
    assert ledger.keep_values(BASE, "memit", {}) == 0


@pytest.mark.parametrize(
    ("given", "named", "kind", "said"),
    [
        ((BASE, "memit", {"v": "text"}), {}, InvalidInput, "value 'v' is a str, expected bytes"),
        ((BASE, "memit", {"": b""}), {}, InvalidInput, "name is empty"),
        (("", "memit", VALUES), {}, InvalidInput, "base is empty"),
        ((BASE, None, VALUES), {}, InvalidInput, "method is null"),
        ((BASE, "memit", VALUES), {"config": {"x": float("nan")}}, InvalidInput, "config cannot"),
        ((BASE, "memit", VALUES), {"config": [1]}, InvalidInput, "config is a list"),
        ((BASE, "memit", VALUES), {"edits": {"v": "fact-1"}}, InvalidInput, "no value is named"),
        ((BASE, "memit", VALUES), {"edits": {"value.a": "fact-9"}}, UnknownName, "'fact-9'"),
    ],
)
def test_values_that_cannot_be_kept_are_refused(ledger, given, named, kind, said):
    with pytest.raises(kind, match=said):
        ledger.keep_values(*given, **named)
    assert ledger.solved() == ()


def test_values_whose_bytes_changed_are_refused(ledger):
    ledger.keep_values(BASE, "memit", VALUES)
    ledger._store.connection.execute("UPDATE solved SET data = x'01' WHERE name = 'value.a'")
    with pytest.raises(BrokenFile, match=r"'value\.a' has other bytes"):
        ledger.values(BASE)
    assert list(ledger.values(BASE, names=["value.b"])) == ["value.b"]
    assert ledger.check() == ("value 'value.a' has other bytes than were kept",)
    with Ledger.create(ledger.path.with_name("other.db")) as other, pytest.raises(BrokenFile):
        other.merge(ledger)


def test_builds_and_measurements_are_noted(ledger):
    given = Build(BASE, "memit", {"layers": [3]}, ("fact-2", "fact-0"), "beef", "../p\n/x", 1.5)
    build = ledger.add_build(given, author="Ann")
    second = ledger.add_build(Build(BASE, "memit", {}, (), "cafe"))
    assert build.edits == ("fact-0", "fact-2")
    assert dataclasses.replace(build, id="", time="", edits=given.edits) == given
    assert ledger.builds() == (build, second)
    measured = ledger.add_measurement(build.id, "gate", {"reliability": 1.0, "rows": [1, None]})
    assert ledger.measurements() == ledger.measurements(build.id) == (measured,)
    assert ledger.measurements(second.id) == ()
    assert measured.results == {"reliability": 1.0, "rows": [1, None]}
    events = ledger.log()[-3:]
    assert [event.what for event in events] == ["built", "built", "measured"]
    assert events[0].author == "Ann"
    assert events[0].details == {"build": build.id, "patch_hash": "beef", "edits": 2}
    assert events[2].details == {"build": build.id, "suite": "gate"}


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ({"id": "build-1"}, InvalidInput, "has an id or a time"),
        ({"patch_hash": ""}, InvalidInput, "patch_hash is empty"),
        ({"path": "a\x00"}, InvalidInput, "path holds a NUL"),
        ({"config": {1: object()}}, InvalidInput, "config cannot be kept as JSON"),
        ({"seconds": float("nan")}, InvalidInput, "seconds is nan"),
        ({"edits": ("fact-7",)}, UnknownName, "did you mean 'fact-"),
    ],
)
def test_builds_that_cannot_be_noted_are_refused(ledger, changed, kind, said):
    good = Build(BASE, "memit", {}, ("fact-0",), "beef")
    with pytest.raises(kind, match=said):
        ledger.add_build(dataclasses.replace(good, **changed))
    assert ledger.builds() == ()


def test_measurements_are_of_a_build_and_finite(ledger):
    build = ledger.add_build(Build(BASE, "memit", {}, ("fact-0",), "beef"))
    with pytest.raises(UnknownName, match="unknown build 'build-x'"):
        ledger.add_measurement("build-x", "gate", {})
    with pytest.raises(UnknownName):
        ledger.measurements("build-x")
    with pytest.raises(InvalidInput, match="results cannot be kept as JSON"):
        ledger.add_measurement(build.id, "gate", {"x": float("inf")})
    assert ledger.measurements() == ()


def test_the_base_is_noted_once(ledger):
    assert ledger.base is None
    ledger.set_base({"name": "", "hash": BASE})
    ledger.set_base({"name": "lab/gptneo", "hash": BASE})
    assert ledger.base == {"name": "lab/gptneo", "hash": BASE}
    with pytest.raises(InvalidInput, match=f"with hash '{BASE}', found 'other'"):
        ledger.set_base({"hash": "other"})
    assert ledger.base == {"name": "lab/gptneo", "hash": BASE}
