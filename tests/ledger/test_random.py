"""Random lives of two ledgers that take in one another, and what holds whatever happens."""

from __future__ import annotations

import random

import pytest

from emend.edits import Edit
from emend.errors import EmendError
from emend.ledger import LIVE, Ledger

STEPS = 120
ACTIONS = ("add", "add", "add", "revert", "restore", "accept", "reject", "merge", "import")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_the_ledgers_stay_consistent(tmp_path, seed):
    chance = random.Random(seed)
    ledgers = [Ledger.create(tmp_path / f"{name}.db") for name in "ab"]
    done = set()
    for step in range(STEPS):
        ledger, other = chance.sample(ledgers, 2)
        before = (ledger.entries(), ledger.log())
        action = chance.choice(ACTIONS)
        try:
            _act(action, ledger, other, f"{seed}-{step}", chance)
        except EmendError:
            assert (ledger.entries(), ledger.log()) == before
        else:
            done.add(action)
            assert [event for event in ledger.log() if event in before[1]] == list(before[1])
        _check(ledger)
    assert len(done) > 4
    for _ in range(2):
        ledgers[0].merge(ledgers[1], supersede=True)
        ledgers[1].merge(ledgers[0], supersede=True)
    assert ledgers[0].active() == ledgers[1].active()
    for ledger in ledgers:
        _check(ledger)
        ledger.close()


def _act(action, ledger, other, name, chance):
    ids = [entry.id for entry in ledger.entries()]
    supersede = {"supersede": chance.random() < 0.6}
    if action == "add":
        edits = [_edit(f"{name}-{index}", chance) for index in range(chance.randint(1, 2))]
        parent = chance.choice(ids) if ids and chance.random() < 0.4 else None
        ledger.add(edits, status=chance.choice(LIVE), parent=parent, **supersede)
    elif action == "merge":
        ledger.merge(other, **supersede)
    elif action == "import":
        other.export(other.path.with_suffix(".jsonl"))
        ledger.import_file(other.path.with_suffix(".jsonl"), **supersede)
    else:
        named = supersede if action in ("restore", "accept") else {}
        getattr(ledger, action)(*chance.sample(ids, min(len(ids), chance.randint(1, 2))), **named)


def _edit(id, chance):
    return Edit(
        chance.choice(["{} is", "{} is a"]),
        f"subject {chance.randint(0, 3)}",
        f"target {chance.randint(0, 2)}",
        id=id,
        relation=chance.choice([None, "relation"]),
    )


def _check(ledger):
    assert ledger.check() == ()
    assert ledger.conflicts() == ()
    entries = {entry.id: entry for entry in ledger.entries()}
    for entry in entries.values():
        parent = entries[entry.parent].status if entry.parent else "active"
        assert entry.status not in LIVE or parent in LIVE
        assert entry.status != "active" or parent == "active"
        assert (entry.previous_status is None) == (entry.status in LIVE)
        assert (entry.superseded_by is None) == (entry.status != "superseded")
    times = [event.time for event in ledger.log()]
    assert times == sorted(times)
