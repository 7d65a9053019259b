"""SIGKILL to `emend serve` at random times during POST /v1/edits: what is there after a restart.

    python benchmarks/server/killed.py [--rounds 10] [--edits 10] [--model lab/gptneo]

In each round edits of the lab's world are posted one after another to a new ledger, and at a random
time within a random one of them the server is killed, then started again on the same ledger. Every
acknowledged edit must be active and answered by its target then, at most the one that was under way
may be active too, and no proposal may be left. The rest is posted, and all is looked at again.
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


def one_round(
    folder: Path, model: str, edits: list[dict[str, str]], generator: random.Random
) -> tuple[bool, int]:
    """Post edits with one kill among them.

    Returns:
        Whether the edit that was under way is there, and how many there are at the end.
    """
    more = ("--method", "rome", "--edits_per_minute", "100000")
    at = generator.randrange(1, len(edits))
    with Process(folder, model, *more) as server:
        started = time.monotonic()
        made = acknowledged(server, edits[:at])
        pace = (time.monotonic() - started) / at
        timer = threading.Timer(generator.uniform(0, 1.2) * pace, server.signal, [signal.SIGKILL])
        timer.start()
        made |= acknowledged(server, edits[at:])
        timer.join()
        server.kill()
    with Process(folder, model, *more) as server:
        extra = check_after_a_kill(server, made)
        done = len(made) + len(extra)
        made |= dict.fromkeys(extra, edits[min(done, len(edits)) - 1])
        made |= acknowledged(server, edits[done:])
        assert not check_after_a_kill(server, made)
        assert server.end() == 0
    return bool(extra), len(made)


def main() -> None:
    """Run the rounds; any edit that is lost or half there ends it with an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lab/gptneo")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--edits", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    edits = records(options.rounds * options.edits)
    assert len(edits) == options.rounds * options.edits
    started, whole, made = time.monotonic(), 0, 0
    for number in range(options.rounds):
        own = edits[number * options.edits :][: options.edits]
        with tempfile.TemporaryDirectory() as folder:
            was_whole, count = one_round(Path(folder), options.model, own, generator)
        whole, made = whole + was_whole, made + count
        print(f"{number + 1} kills, {made} edits", file=sys.stderr, flush=True)
    found = {"model": options.model, "edits": made, "kills": options.rounds}
    found |= {"under_way_and_whole": whole, "under_way_and_absent": options.rounds - whole}
    print(json.dumps({**found, "seconds": round(time.monotonic() - started)}))


if __name__ == "__main__":
    main()
