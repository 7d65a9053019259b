"""A process that is killed at random moments while it writes to a ledger.

    python tests/ledger/killed.py DIRECTORY 200 [SEED]

The tests run fewer rounds.

Each round forks from this warm process a writer that opens the ledger and works until it is
killed. Before each operation the writer tells what it is about to do, and after it that it is
done, through a pipe. Then the ledger is opened and compared with what was told: all that was done
is there, and of what was under way all or nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from emend._io import whole_file
from emend.edits import Edit
from emend.ledger import Build, Ledger

BASE = "0123456789abcdef"
EXPORTS = 8
LONGEST_LIFE = 0.15  # seconds; an operation takes one or two milliseconds, more where it is busy


def main(directory, rounds, seed):
    directory = Path(directory)
    path = directory / "facts.db"
    Ledger.create(path).close()
    exported(directory)
    chance = random.Random(seed)
    expected = {"edits": {}, "values": set(), "builds": set()}
    told = {"kills": 0, "operations": 0, "under_way": 0, "kept": 0}
    told["created"] = sum(
        creation(directory, chance, number) for number in range(max(rounds // 10, 5))
    )
    for number in range(rounds):
        begun, done = one_life(path, f"{seed}-{number}", chance.uniform(0, LONGEST_LIFE))
        compare(path, expected, begun, done, told)
        told["kills"] += 1
    told["edits"] = len(expected["edits"])
    told["builds"] = len(expected["builds"])
    sys.stdout.write(json.dumps(told))


def creation(directory, chance, number):
    """Whether a ledger was there after its making was killed; then it is whole."""
    path = directory / f"made-{number}.db"
    child = os.fork()
    if child == 0:
        Ledger.create(path, {"hash": BASE})
        time.sleep(60)
    time.sleep(chance.uniform(0, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if path.exists():
        with Ledger.open(path) as ledger:
            assert ledger.check() == ()
            assert ledger.base == {"hash": BASE}
            assert [event.what for event in ledger.log()] == ["created"]
        return True
    Ledger.create(path).close()  # what was left is in nobody's way
    return False


def exported(directory):
    """Files to import: each with edits and some of them reverted."""
    for number in range(EXPORTS):
        with Ledger.create(directory / f"export-{number}.db") as ledger:
            edits = [edit(f"import-{number}-{index}") for index in range(8)]
            ledger.add(edits, tags=["imported"])
            ledger.revert(edits[0].id, edits[5].id)
            ledger.export(directory / f"export-{number}.jsonl")


def edit(name):
    return Edit("{} was born in", f"Somebody {name}", "Paris", id=name)


def one_life(path, name, length):
    """What the writer told it began and what it told it finished."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            work(path, name, writing)
        except BaseException as error:  # told as an operation that nothing can explain
            os.write(writing, (json.dumps({"failed": repr(error)}) + "\n").encode())
        finally:
            os._exit(0)
    os.close(writing)
    time.sleep(length)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        lines = [json.loads(line) for line in pipe]
    failed = [line["failed"] for line in lines if "failed" in line]
    assert not failed, failed
    return [line for line in lines if "done" not in line], sum("done" in line for line in lines)


def work(path, name, pipe):
    """Operations one after the other, each told before and after."""
    chance = random.Random(name)
    tell = lambda **said: os.write(pipe, (json.dumps(said) + "\n").encode())  # noqa: E731
    with Ledger.open(path) as ledger:
        for number in range(10**6):
            operation = chance.choice([add, add, revert, restore, take, build])
            operation(ledger, f"{name}-{number}", chance, tell)


def add(ledger, label, chance, tell):
    edits = [edit(f"{label}-{index}") for index in range(chance.randint(1, 5))]
    tell(edits={one.id: "active" for one in edits})
    ledger.add(edits, author="writer", tags=["a", "b"])
    tell(done=True)


def revert(ledger, label, chance, tell):
    ids = [entry.id for entry in ledger.entries(status="active")]
    chosen = chance.sample(ids, min(2, len(ids)))
    if chosen:
        tell(edits=dict.fromkeys(chosen, "reverted"))
        ledger.revert(*chosen, reason=label)
        tell(done=True)


def restore(ledger, label, chance, tell):
    ids = [entry.id for entry in ledger.entries(status="reverted")]
    chosen = chance.sample(ids, min(2, len(ids)))
    if chosen:
        tell(edits=dict.fromkeys(chosen, "active"))
        ledger.restore(*chosen, reason=label)
        tell(done=True)


def take(ledger, label, chance, tell):
    number = chance.randrange(EXPORTS)
    there = {entry.id for entry in ledger.entries()}
    statuses = {f"import-{number}-{index}": "active" for index in range(8)}
    statuses |= {f"import-{number}-{index}": "reverted" for index in (0, 5)}
    # What is here already was changed later than in the file, so its status stays.
    tell(edits={one: status for one, status in statuses.items() if one not in there})
    ledger.import_file(ledger.path.with_name(f"export-{number}.jsonl"))
    tell(done=True)


def build(ledger, label, chance, tell):
    ids = [edit.id for edit in ledger.active()][:20]
    values = {f"value.{label}.{index}": chance.randbytes(3000) for index in range(4)}
    tell(values=sorted(values))
    ledger.keep_values(BASE, "memit", values, config={"steps": 3})
    tell(done=True)
    content = b"".join(values.values()) * 20
    patch = ledger.path.with_name(f"patch-{label}.bin")
    tell(builds=[str(patch)])
    with whole_file(patch) as aside:
        aside.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    ledger.add_build(Build(BASE, "memit", {}, tuple(ids), digest, str(patch)))
    tell(done=True)


def compare(path, expected, begun, done, told):
    """Look whether the ledger is what was told, and go on from what it is."""
    for operation in begun[:done]:
        apply(expected, operation)
    told["operations"] += done
    with Ledger.open(path) as ledger:
        assert ledger.check() == ()
        found = state(ledger)
        for one in ledger.builds():  # a build that is noted has its patch, whole
            content = Path(one.path).read_bytes()
            assert hashlib.sha256(content).hexdigest() == one.patch_hash
        logged = {event.edit for event in ledger.log() if event.what == "added"}
        assert set(found["edits"]) <= logged
    if len(begun) > done:
        assert len(begun) == done + 1
        told["under_way"] += 1
        if found != expected:
            apply(expected, begun[-1])
            told["kept"] += 1
    assert found == expected


def apply(expected, operation):
    expected["edits"].update(operation.get("edits", {}))
    expected["values"].update(operation.get("values", []))
    expected["builds"].update(operation.get("builds", []))


def state(ledger):
    return {
        "edits": {entry.id: entry.status for entry in ledger.entries()},
        "values": set(ledger.values(BASE)),
        "builds": {build.path for build in ledger.builds()},
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int((sys.argv[3:] or [0])[0]))
