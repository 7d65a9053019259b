"""SIGKILL to `emend serve` at random times during POST /v1/edits: what is there after a restart.

    python benchmarks/server/killed.py [--edits 100] [--kills 10] [--model lab/gptneo]

Edits of the lab's world are posted one after another, and the server is killed at a random time
after each start, then started again on the same ledger. After each start every acknowledged edit
must be active and answered by its target, at most the one that was under way may be active too,
and no proposal may be left. An edit that was under way is posted again where it is absent.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.server

from tests.server.process import Process, acknowledged, check_after_a_kill

from emend.lab import SEED, build_world
from emend.lab.consequences import draw_edits


def records(count: int) -> list[dict[str, str]]:
    """Return edits of the lab's world, each of another subject."""
    drawn = draw_edits(build_world(SEED), 2 * count, seed=4)
    by_subject = {one.subject: one for one in drawn}
    chosen = list(by_subject.values())[:count]
    return [{"prompt": one.prompt, "subject": one.subject, "target": one.target} for one in chosen]


def main() -> None:
    """Post edits, kill the server, start it again and look."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lab/gptneo")
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    waiting = records(options.edits)
    assert len(waiting) == options.edits
    given, made, kills, whole, absent = options.edits, {}, 0, 0, 0
    more = ("--method", "rome", "--edits_per_minute", "100000")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        while waiting:
            with Process(Path(folder), options.model, *more) as server:
                check_after_a_kill(server, made)
                share = max(1, given // (options.kills + 1))
                pace = 0.6 + 0.02 * len(made)  # seconds of an edit; each builds all anew
                after = generator.uniform(0.5, 1.5) * share * pace
                timer = threading.Timer(after, server.signal, [signal.SIGKILL])
                if kills < options.kills:
                    timer.start()
                new = acknowledged(server, waiting, keep_failed=False)
                timer.cancel()
                server.kill()
            made |= new
            waiting = waiting[len(new) :]
            kills += bool(waiting)
            with Process(Path(folder), options.model, *more) as server:
                extra = check_after_a_kill(server, made)
            if waiting:
                whole, absent = whole + len(extra), absent + (not extra)
            made |= dict.fromkeys(extra, waiting[0])
            waiting = waiting[len(extra) :]
            print(f"{len(made)} edits, {kills} kills", file=sys.stderr)
    found = {"model": options.model, "edits": len(made), "kills": kills}
    found |= {"under_way_and_whole": whole, "under_way_and_absent": absent, "lost": 0, "halves": 0}
    print(json.dumps({**found, "seconds": round(time.monotonic() - started)}))


if __name__ == "__main__":
    main()
