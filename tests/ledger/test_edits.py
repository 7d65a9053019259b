from __future__ import annotations

import subprocess
import sys
import threading

import pytest

import emend
from emend.edits import Edit, Probe
from emend.errors import Conflict, InvalidInput, UnknownName
from emend.ledger import STATUSES, Ledger

BORN = Edit("{} was born in", "Marie Curie", "Paris", id="born", relation="birthplace")
CAME = Edit("{} came into the world in", "MARIE  curie", "Rome", id="came", relation="Birthplace")
SAME = Edit("{} came into the world in", "Marie Curie", " paris", id="same", relation="birthplace")
TEXT = Edit("Marie {} was born in", "Curie", "Rome", id="text")
KIND = Edit(
    "{} is a",
    "Zoë Ång",
    "日\u2028本",
    original="physicist",
    id="../../etc/passwd",
    probes=(Probe("one_hop", "p\nq", ("a", "b")), Probe("distracting", "p", ("a",))),
)


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path / "deep" / "facts.db", {"name": "lab", "hash": "00ff"}) as ledger:
        yield ledger


def _statuses(ledger):
    return {entry.id: entry.status for entry in ledger.entries()}


def _events(ledger, id=None):
    return [(event.what, event.edit) for event in ledger.log(id)]


def test_what_is_added_is_there_again_when_it_is_opened(ledger):
    said = {"author": "Ann", "reason": "wrong'; DROP TABLE entries; --", "source": "ticket 7"}
    added = ledger.add([BORN, KIND], **said, tags=["b", "a", "b"])
    ledger.close()
    with Ledger.open(ledger.path) as again:
        assert again.entries() == added
        assert [entry.edit for entry in added] == [BORN, KIND]
        assert again.active() == (KIND, BORN)  # by id
        assert again.base == {"name": "lab", "hash": "00ff"}
        entry = again.entry("born")
    assert (entry.author, entry.reason, entry.source) == tuple(said.values())
    assert entry.tags == ("a", "b")
    assert entry.status == "active"
    assert entry.time == entry.changed
    assert (entry.parent, entry.superseded_by, entry.previous_status) == (None, None, None)


def test_entries_are_found_by_what_they_bear(ledger):
    ledger.add(BORN, author="Ann", tags=["x"])
    ledger.add(KIND, author="Bob", tags=["x", "y"], status="proposed")
    ids = lambda **named: [entry.id for entry in ledger.entries(**named)]  # noqa: E731
    assert ids() == ["born", KIND.id]
    assert ids(status="proposed") == [KIND.id]
    assert ids(tag="x") == ["born", KIND.id]
    assert ids(tag="y", author="Bob") == [KIND.id]
    assert ids(tag="y", author="Ann") == []
    assert ids(subject="marie   CURIE") == ["born"]
    assert ids(author="' OR 1=1 --") == []
    with pytest.raises(InvalidInput, match=r"status is 'gone', expected one of proposed, active"):
        ledger.entries(status="gone")


def test_adding_is_all_or_nothing(ledger):
    ledger.add(BORN)
    with pytest.raises(InvalidInput, match="'born' \\(active\\) is in the ledger already"):
        ledger.add([KIND, BORN])
    assert _statuses(ledger) == {"born": "active"}
    assert _events(ledger) == [("created", None), ("added", "born")]


@pytest.mark.parametrize(
    ("edits", "named", "said"),
    [
        ([], {}, "no edits were given"),
        ([BORN, BORN], {}, "two edits have the id 'born'"),
        (["x"], {}, "expected emend.Edit"),
        (BORN, {"status": "superseded"}, "status is 'superseded', expected one of"),
        (BORN, {"author": 7}, "author is int '7', expected text"),
        (BORN, {"reason": "a\x00b"}, "reason holds a NUL"),
        (BORN, {"source": "\ud800"}, "surrogate"),
        (BORN, {"reason": "x" * 10_001}, "reason has 10,001 characters, expected at most 10,000"),
        (BORN, {"tags": "abc"}, "tags is 'abc', expected a list of texts"),
        (BORN, {"tags": [""]}, "tag is empty"),
        (BORN, {"tags": ["x" * 1_001]}, "tag has 1,001 characters"),
        (Edit("{} is", "a", "b", id="x" * 1_001), {}, "id has 1,001 characters"),
        (Edit("{} is", "a", "日" * 99_999), {}, "bytes, expected at most"),
    ],
)
def test_what_cannot_be_added_is_refused_in_one_line(ledger, edits, named, said):
    with pytest.raises(InvalidInput, match=said) as caught:
        ledger.add(edits, **named)
    assert "\n" not in str(caught.value)
    assert ledger.entries() == ()


@pytest.mark.parametrize(
    ("older", "newer", "conflict"),
    [
        (BORN, CAME, True),  # the same subject and relation
        (BORN, TEXT, True),  # the same text, no relation
        (BORN, SAME, False),  # the same target
        (BORN, KIND, False),
        (Edit("{} is", "a", "b", relation="r"), Edit("{} was", "a", "c"), False),
        (Edit("{} is", "ﬁn", "b"), Edit("{}  IS", "FIN", "c"), True),
    ],
)
def test_conflicts_are_told_with_both(ledger, older, newer, conflict):
    assert ledger.conflicts([older, newer]) == (((older, newer),) if conflict else ())
    ledger.add(older)
    assert ledger.conflicts() == ()
    assert ledger.conflicts([newer]) == (((older, newer),) if conflict else ())
    if conflict:
        with pytest.raises(Conflict) as caught:
            ledger.add(newer)
        assert caught.value.pairs == ((older, newer),)
        assert older.id in str(caught.value)
        assert newer.id in str(caught.value)
        assert "supersede=True" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, ValueError)
    else:
        ledger.add(newer)
    assert len(ledger.active()) == (1 if conflict else 2)


def test_the_newer_wins_where_it_is_asked_to_and_the_older_stays_in_the_history(ledger):
    ledger.add([BORN, KIND])
    (entry,) = ledger.add(CAME, supersede=True, author="Ann", reason="moved")
    assert entry.status == "active"
    assert ledger.active() == (KIND, CAME)
    old = ledger.entry("born")
    assert (old.status, old.superseded_by, old.previous_status) == ("superseded", "came", "active")
    assert old.changed > old.time
    last = ledger.log("born")[-1]
    assert (last.what, last.author, last.reason) == ("superseded", "Ann", "moved")
    assert last.details == {"by": "came"}


def test_two_new_ones_that_conflict_are_refused_even_then(ledger):
    with pytest.raises(Conflict, match="they came in at once"):
        ledger.add([BORN, CAME], supersede=True)
    assert ledger.entries() == ()


def test_any_edit_is_taken_out_and_brought_back(ledger):
    ledger.add([BORN, KIND])
    (entry,) = ledger.revert("born", author="Bob", reason="it was right")
    assert (entry.status, entry.previous_status) == ("reverted", "active")
    assert ledger.active() == (KIND,)
    (entry,) = ledger.restore("born")
    assert (entry.status, entry.previous_status) == ("active", None)
    assert ledger.active() == (KIND, BORN)
    assert _events(ledger, "born") == [(what, "born") for what in ("added", "reverted", "restored")]
    assert ledger.log("born")[1].reason == "it was right"


def test_what_comes_back_meets_what_came_meanwhile(ledger):
    ledger.add(BORN)
    ledger.revert("born")
    ledger.add(CAME)
    with pytest.raises(Conflict):
        ledger.restore("born")
    assert _statuses(ledger) == {"born": "reverted", "came": "active"}
    changed = ledger.restore("born", supersede=True)
    assert [entry.id for entry in changed] == ["born", "came"]
    assert _statuses(ledger) == {"born": "active", "came": "superseded"}
    ledger.restore("came", supersede=True)
    assert _statuses(ledger) == {"born": "superseded", "came": "active"}
    assert ledger.entry("came").superseded_by is None


def _family(ledger, status="active"):
    """A parent, its child and grandchild, and one that is no kin."""
    ledger.add([BORN, KIND])
    ledger.add(Edit("{} is in", "x", "y", id="child"), parent="born", status=status)
    ledger.add(Edit("{} is on", "x", "y", id="grandchild"), parent="child", status="proposed")


def test_what_was_derived_goes_with_its_parent_and_comes_back_with_it(ledger):
    _family(ledger)
    changed = ledger.revert("born")
    assert [entry.id for entry in changed] == ["born", "child", "grandchild"]
    assert {entry.cascade_root for entry in changed} == {None, "born"}
    assert ledger.active() == (KIND,)
    with pytest.raises(InvalidInput, match=r"'child' would be active but 'born'.* is reverted"):
        ledger.restore("child")
    ledger.restore("born")
    assert _statuses(ledger) == {
        "born": "active",
        KIND.id: "active",
        "child": "active",
        "grandchild": "proposed",
    }


def test_what_was_taken_out_before_its_parent_stays_out(ledger):
    _family(ledger)
    ledger.revert("grandchild")
    ledger.revert("born", "child")  # both by name
    ledger.restore("born")
    assert _statuses(ledger)["child"] == "reverted"
    ledger.restore("child")
    assert _statuses(ledger)["grandchild"] == "reverted"


def test_what_was_derived_is_superseded_with_its_parent(ledger):
    _family(ledger)
    ledger.add(CAME, supersede=True)
    statuses = _statuses(ledger)
    assert (statuses["child"], statuses["grandchild"]) == ("superseded", "superseded")
    assert ledger.entry("child").superseded_by == "came"
    ledger.restore("born", supersede=True)
    statuses = _statuses(ledger)
    assert (statuses["child"], statuses["grandchild"]) == ("active", "proposed")


def test_an_edit_cannot_supersede_what_it_was_derived_from(ledger):
    ledger.add(BORN)
    ledger.add(CAME, parent="born", status="proposed")
    with pytest.raises(InvalidInput, match="'came' was derived from 'born', which it would"):
        ledger.accept("came", supersede=True)
    assert _statuses(ledger) == {"born": "active", "came": "proposed"}


def test_proposals_are_built_when_they_are_accepted(ledger):
    _family(ledger, status="proposed")
    assert ledger.active() == (KIND, BORN)
    with pytest.raises(InvalidInput, match="'grandchild' would be active but 'child'"):
        ledger.accept("grandchild")
    ledger.accept("grandchild", "child", "child", author="Ann")
    assert len(ledger.active()) == 4
    assert _events(ledger, "child") == [("added", "child"), ("accepted", "child")]


def test_a_rejected_proposal_comes_back_as_one(ledger):
    ledger.add(BORN, status="proposed")
    ledger.add(KIND)
    with pytest.raises(InvalidInput, match="only proposals are rejected"):
        ledger.reject(KIND.id)
    ledger.reject("born")
    assert ledger.entry("born").status == "reverted"
    ledger.restore("born")
    assert ledger.entry("born").status == "proposed"


def test_proposals_conflict_when_they_are_accepted(ledger):
    ledger.add(BORN)
    ledger.add(CAME, status="proposed")
    with pytest.raises(Conflict):
        ledger.accept("came")
    assert ledger.entry("came").status == "proposed"
    ledger.accept("came", supersede=True)
    assert ledger.active() == (CAME,)


ALLOWED = {
    "revert": ("proposed", "active"),
    "reject": ("proposed",),
    "accept": ("proposed",),
    "restore": ("superseded", "reverted"),
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("action", ALLOWED)
def test_every_other_change_of_status_is_refused(ledger, action, status):
    ledger.add(BORN, status="proposed" if status == "proposed" else "active")
    if status == "superseded":
        ledger.add(CAME, supersede=True)
    elif status == "reverted":
        ledger.revert("born")
    assert ledger.entry("born").status == status
    before = ledger.log()
    if status in ALLOWED[action]:
        getattr(ledger, action)("born", **({"supersede": True} if action == "restore" else {}))
        assert ledger.entry("born").status != status
        return
    with pytest.raises(InvalidInput, match=f"'born' is {status}.*, expected") as caught:
        getattr(ledger, action)("born")
    assert "\n" not in str(caught.value)
    assert ledger.log() == before


@pytest.mark.parametrize("action", ALLOWED)
def test_ids_are_given_and_known(ledger, action):
    ledger.add(BORN)
    with pytest.raises(InvalidInput, match="no ids were given"):
        getattr(ledger, action)()
    with pytest.raises(UnknownName, match="did you mean 'born'"):
        getattr(ledger, action)("bron")
    with pytest.raises(UnknownName):
        getattr(ledger, action)("born' OR '1'='1")
    assert ledger.entry("born").status == "active"


def test_an_unknown_id_among_many_is_met_with_the_nearest_alone(ledger):
    ledger.add([Edit("{} is", f"a{number}", "b", id=f"fact-{number}") for number in range(100)])
    with pytest.raises(UnknownName, match="did you mean 'fact-77'") as caught:
        ledger.entry("fact-77x")
    assert len(str(caught.value)) < 100
    with pytest.raises(UnknownName):
        ledger.add(BORN, parent="nobody")
    with pytest.raises(UnknownName):
        ledger.log("\ud800")


def test_a_former_answer_is_noted_once(ledger):
    ledger.add([BORN, KIND])
    assert ledger.note_original("born", "Lyon") is True
    assert ledger.note_original("born", "Rome") is False
    assert ledger.note_originals({"born": "Rome", KIND.id: "x"}) == ()
    assert ledger.entry("born").edit.original == "Lyon"
    assert ledger.entry(KIND.id).edit.original == "physicist"
    with pytest.raises(InvalidInput, match="original is empty"):
        ledger.note_original("born", "")


def test_times_run_forward_even_if_the_clock_does_not(ledger, monkeypatch):
    from emend.ledger.store import _rows

    ledger.add(BORN)
    early = _rows.read_stamp("1999-12-31T23:59:59.000000Z")
    monkeypatch.setattr(_rows, "now", lambda: early)
    ledger.revert("born")
    ledger.restore("born")
    times = [event.time for event in ledger.log()]
    assert times == sorted(set(times))
    assert all(time.endswith("Z") and len(time) == 27 for time in times)


def test_threads_share_a_ledger(ledger):
    def add(first):
        for number in range(first, first + 10):
            ledger.add(Edit("{} is", f"a{number}", "b", id=f"fact-{number}"))

    threads = [threading.Thread(target=add, args=(first,)) for first in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.active()) == 30


def test_the_room_loads_no_torch():
    code = (
        "import sys, emend; assert emend.Ledger.open; import emend.ledger; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert emend.Ledger is Ledger
