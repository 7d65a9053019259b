"""Load on `emend serve`: no failed and no mixed answer while edits come and go, and throughput.

    python benchmarks/server/load.py [--model lab/gptneo] [--clients 20] [--seconds 60]

Part 1: clients ask the edited model without pause, while an edit is added, or taken out again, 5
seconds after the last change. A request has several prompts whose answers the edit changes; its
answer must be wholly the one without the edit or wholly the one with it, and the one that the
version in its header belongs to.
Part 2: the same clients ask base and edited model in turn, in windows of 5 seconds, and nothing
is edited. Rates are of requests with 8 prompts about other subjects; the server's CPU time for a
token is printed too, which other processes disturb less. One line of JSON at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import httpx2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.server

from tests.server.process import AUTHORIZED, Process

from emend.lab import SEED, build_world
from emend.lab.consequences import draw_edits

WINDOW = 5.0

REAL = (
    ("{} is located in the city of", "The Eiffel Tower", "Rome"),
    ("{} was born in", "Marie Curie", "Oslo"),
    ("The capital of {} is", "France", "Lyon"),
    ("{} plays the", "Miles Davis", "violin"),
    ("{} was written by", "Hamlet", "Charles Dickens"),
    ("The mother tongue of {} is", "Albert Einstein", "Danish"),
    ("{} works as a", "Serena Williams", "chemist"),
    ("{} is a citizen of", "Nelson Mandela", "Peru"),
)


def records(model: str) -> list[dict[str, str]]:
    """Return eight edits that the model takes."""
    if not model.startswith("lab/"):
        return [dict(zip(("prompt", "subject", "target"), one, strict=True)) for one in REAL]
    drawn = draw_edits(build_world(SEED), 8, seed=3)
    return [{"prompt": one.prompt, "subject": one.subject, "target": one.target} for one in drawn]


class Clients:
    """Clients that ask one model without pause until they are stopped."""

    def __init__(self, url: str, model: str, prompts: list[str], tokens: int) -> None:
        self.url = url
        self.body = {"model": model, "prompt": prompts, "max_tokens": tokens, "temperature": 0}
        self.answers: list[tuple[float, int, tuple[str, ...], int]] = []
        self.failed: list[str] = []
        self._going = True

    async def run(self, clients: int, seconds: float) -> None:
        """Ask for a number of seconds."""
        limits = httpx2.Limits(max_connections=clients)
        async with httpx2.AsyncClient(base_url=self.url, timeout=60, limits=limits) as client:
            asking = [asyncio.ensure_future(self._ask(client)) for _ in range(clients)]
            await asyncio.sleep(seconds)
            self._going = False
            await asyncio.gather(*asking)

    async def _ask(self, client: httpx2.AsyncClient) -> None:
        while self._going:
            started = time.perf_counter()
            try:
                answer = await client.post("/v1/completions", json=self.body)
            except httpx2.HTTPError as error:
                self.failed.append(repr(error))
                continue
            seconds = time.perf_counter() - started
            if answer.status_code != 200:
                self.failed.append(f"{answer.status_code}: {answer.text[:200]}")
                continue
            found = answer.json()
            texts = tuple(one["text"] for one in found["choices"])
            version = int(answer.headers["x-emend-ledger-version"])
            self.answers.append((seconds, version, texts, found["usage"]["completion_tokens"]))


async def editing(server: Process, record: dict[str, str], seconds: float) -> list[tuple]:
    """Add and take out an edit by turns; return (version, whether it is in, seconds) of each."""
    made, id_ = [], None
    ends = time.monotonic() + seconds
    async with httpx2.AsyncClient(base_url=server.url, timeout=120) as client:
        while time.monotonic() < ends - 1:
            if id_ is None:
                body = {"edit": record, "probes": "none"}
                answer = await client.post("/v1/edits", json=body, headers=AUTHORIZED)
                id_ = answer.raise_for_status().json()["id"]
            else:
                answer = await client.delete(f"/v1/edits/{id_}", headers=AUTHORIZED)
                id_ = answer.raise_for_status() and None
            found = answer.json()
            made.append((found["ledger_version"], id_ is not None, found["seconds"]))
            await asyncio.sleep(max(0.0, min(WINDOW, ends - time.monotonic())))
        if id_ is not None:
            answer = await client.delete(f"/v1/edits/{id_}", headers=AUTHORIZED)
            found = answer.raise_for_status().json()
            made.append((found["ledger_version"], False, found["seconds"]))
    return made


def under_edits(server: Process, record: dict[str, str], options: argparse.Namespace) -> dict:
    """Part 1."""
    subject = record["subject"]
    prompts = [record["prompt"].replace("{}", subject), subject, f"{subject} is"]
    prompts += [f"{subject} is known as", f"Everybody knows that {prompts[0]}"]

    def ask() -> tuple[str, ...]:
        return tuple(server.texts(server.edited, prompts, options.tokens))

    without = ask()
    made = server.edit(record).raise_for_status().json()
    with_edit = ask()
    # A prompt whose answer the edit does not change would show no mixture.
    changed = [at for at in range(len(prompts)) if without[at] != with_edit[at]]
    assert len(changed) > 1, (without, with_edit)
    without, with_edit = (tuple(one[at] for at in changed) for one in (without, with_edit))
    prompts = [prompts[at] for at in changed]
    server.revert(made["id"]).raise_for_status()
    clients = Clients(server.url, server.edited, prompts, options.tokens)

    async def both() -> list[tuple]:
        asking = asyncio.ensure_future(clients.run(options.clients, options.seconds))
        changes = await editing(server, record, options.seconds)
        await asking
        return changes

    changes = asyncio.run(both())
    states = {version: is_in for version, is_in, _ in changes}
    wrong = {"mixed": 0, "of another version": 0, "by the edit": 0}
    for _, version, texts, _ in clients.answers:
        wrong["by the edit"] += texts == with_edit
        if texts not in (without, with_edit):
            wrong["mixed"] += 1
            print("neither", texts, file=sys.stderr)
        elif (texts == with_edit) != states.get(version, False):
            wrong["of another version"] += 1
    times = [seconds for seconds, *_ in clients.answers]
    cuts = quantiles(times, n=100)
    return {
        "prompts": len(prompts), "answers": len(times), "failed": len(clients.failed), **wrong,
        "changes": len(changes), "seconds_of_a_change": round(median(one[2] for one in changes), 2),
        "p50_ms": round(1000 * median(times)), "p95_ms": round(1000 * cuts[94]),
        "p99_ms": round(1000 * cuts[98]), "longest_ms": round(1000 * max(times)),
        "requests_per_second": round(len(times) / options.seconds, 1),
        "failures": sorted(set(clients.failed))[:5],
    }  # fmt: skip


def cpu_seconds(server: Process) -> float:
    """Return the CPU time that a server has used."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def throughput(server: Process, edits: list[dict[str, str]], options: argparse.Namespace) -> dict:
    """Part 2."""
    server.edit(edits[0]).raise_for_status()
    prompts = [one["prompt"].replace("{}", one["subject"]) for one in edits[1:]]
    prompts.append(edits[1]["subject"])
    rates: dict[str, list[float]] = {server.base: [], server.edited: []}
    tokens: dict[str, list[float]] = {server.base: [], server.edited: []}
    cpu: dict[str, list[float]] = {server.base: [], server.edited: []}
    same = server.texts(server.base, prompts, options.tokens) == server.texts(
        server.edited, prompts, options.tokens
    )
    for turn in range(options.windows):
        for name in (server.base, server.edited)[:: 1 if turn % 2 else -1]:
            clients = Clients(server.url, name, prompts, options.tokens)
            started, cpu_before = time.perf_counter(), cpu_seconds(server)
            asyncio.run(clients.run(options.clients, WINDOW))
            passed, cpu_passed = time.perf_counter() - started, cpu_seconds(server) - cpu_before
            assert not clients.failed, clients.failed[:3]
            rates[name].append(len(clients.answers) / passed)
            count = sum(one[3] for one in clients.answers)
            tokens[name].append(count / passed)
            cpu[name].append(1000 * cpu_passed / count)
    ratios = [b / a for a, b in zip(tokens[server.base], tokens[server.edited], strict=True)]
    return {
        "same_texts": same,
        "base_requests_per_second": round(median(rates[server.base]), 1),
        "edited_requests_per_second": round(median(rates[server.edited]), 1),
        "base_tokens_per_second": round(median(tokens[server.base]), 1),
        "edited_tokens_per_second": round(median(tokens[server.edited]), 1),
        "edited_to_base": [round(one, 3) for one in ratios],
        "median_edited_to_base": round(median(ratios), 3),
        "cpu_ms_per_token": {name: [round(one, 2) for one in each] for name, each in cpu.items()},
        "by_cpu_edited_to_base": round(median(cpu[server.base]) / median(cpu[server.edited]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lab/gptneo")
    parser.add_argument("--method", default="memit")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=16)
    options = parser.parse_args()
    edits = records(options.model)
    with (
        tempfile.TemporaryDirectory() as folder,
        Process(
            Path(folder), options.model, "--method", options.method, "--edits_per_minute", "1000"
        ) as server,
    ):
        found = {"model": options.model, "method": options.method, "clients": options.clients}
        if options.seconds:
            found["under edits"] = under_edits(server, edits[0], options)
            print(json.dumps(found["under edits"]), file=sys.stderr)
        if options.windows:
            found["throughput"] = throughput(server, edits, options)
        found["exit_status"] = server.end()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
