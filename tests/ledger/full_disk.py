"""What a ledger does on a disk that fills up; run by test_durable.py on a small tmpfs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from emend.edits import Edit
from emend.errors import StoreFailure
from emend.ledger import Ledger


def main(directory):
    directory = Path(directory)
    ballast = directory / "ballast"
    ballast.write_bytes(bytes(300_000))
    ledger = Ledger.create(directory / "facts.db")
    said, kept = filled(ledger)
    assert ledger.check() == ()
    assert ids(ledger) == kept
    said["export"] = refusal(lambda: ledger.export(directory / "export.jsonl"))
    said["create"] = refusal(lambda: Ledger.create(directory / "other.db"))
    ledger.close()
    said["files"] = sorted(path.name for path in directory.iterdir())
    ballast.unlink()
    with Ledger.open(directory / "facts.db") as ledger:
        assert ledger.check() == ()
        assert ids(ledger) == kept
        ledger.add(edit("after"))
        assert ids(ledger) == {*kept, "after"}
    subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
    said["read_only"] = refusal(lambda: Ledger.open(directory / "facts.db").add(edit("never")))
    sys.stdout.write(json.dumps(said))


def filled(ledger):
    """Add until there is no more room; what was said then, and what had been added before."""
    kept = set()
    for number in range(10_000):
        batch = [edit(f"{number}-{index}") for index in range(3)]
        try:
            ledger.add(batch)
        except StoreFailure as error:
            return {"add": str(error), "kept": len(kept)}, kept
        kept |= {one.id for one in batch}
    raise AssertionError("the disk never filled up")


def edit(name):
    return Edit("{} was born in", f"Somebody {name}", "Paris" * 100, id=name)


def ids(ledger):
    return {entry.id for entry in ledger.entries()}


def refusal(action):
    try:
        action()
    except StoreFailure as error:
        return str(error)
    raise AssertionError("nothing was refused")


if __name__ == "__main__":
    main(sys.argv[1])
