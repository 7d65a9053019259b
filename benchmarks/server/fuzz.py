"""Schemathesis against `emend serve`: no 5xx, no path and no stack trace in any answer.

    pip install 'schemathesis>=4.3'        # no part of emend's extras
    python benchmarks/server/fuzz.py [--cases 5000]

Requests are drawn from /openapi.json, half of them within the schema and half outside of it, with
the token. So that valid ones reach the engine and not only "no such model", `model` is one of the
served names and texts are short; everything else is as the server publishes it. Edits are solved
in two steps of the search. One line of JSON at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from schemathesis import GenerationMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.server

from tests.server.process import AUTHORIZED, LEAK, Process

ROUND = 40
"""Cases of each kind that a route gets in a round."""

SHORT = {"max_tokens": 6, "max_completion_tokens": 6, "n": 2}


def published(server: Process) -> dict[str, Any]:
    """Return the server's schema, with names of models that are there and short texts."""
    schema = server.client.get("/openapi.json").json()
    for part in schema["components"]["schemas"].values():
        fields = part.get("properties", {})
        if "model" in fields and "temperature" in fields:
            fields["model"] = {"enum": [server.base, server.edited, server.edited]}
        for name, most in SHORT.items():
            for one in fields.get(name, {}).get("anyOf", [fields.get(name, {})]):
                if one.get("type") == "integer":
                    one["maximum"] = most
    return schema


class Findings:
    """What answers showed."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.wrong: dict[str, str] = {}
        self.cases = 0

    def look(self, route: str, case: Any, answer: Any) -> None:
        """Count an answer, and keep what is wrong with it."""
        self.cases += 1
        self.statuses[answer.status_code] += 1
        text = answer.text
        found = LEAK.search(text) if answer.status_code >= 400 else None
        if answer.status_code >= 500 or found:
            sent = f"{case.formatted_path} {case.query!r} {case.body!r}"
            self.wrong.setdefault(f"{route} {answer.status_code}", f"{sent[:600]} -> {text[:300]}")
        elif answer.status_code >= 400 and answer.status_code != 405:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, text


def ask(server: Process, operation: Any, mode: GenerationMode, count: int, found: Findings) -> None:
    """Send a number of cases to one route."""
    route = f"{operation.method.upper()} {operation.path}"
    left = count

    @hypothesis.seed(found.cases)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        nonlocal left
        if left > 0:
            left -= 1
            answer = case.call(base_url=server.url, headers=AUTHORIZED, timeout=120)
            found.look(route, case, answer)

    with suppress(hypothesis.errors.Unsatisfiable):  # a route without parameters
        one()


def main() -> None:
    """Draw the cases, send them and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lab/gptneo")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    started, found = time.monotonic(), Findings()
    more = ("--method", "rome", "--set", "steps=2", "--edits_per_minute", "1000000")
    with (
        tempfile.TemporaryDirectory() as folder,
        Process(Path(folder), options.model, *more) as server,
    ):
        schema = schemathesis.openapi.from_dict(published(server))
        operations = [one.ok() for one in schema.get_all_operations()]
        ends = started + 60 * options.minutes
        while found.cases < options.cases and time.monotonic() < ends:
            for operation in operations:
                count = ROUND if operation.method != "get" else ROUND // 8
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    ask(server, operation, mode, count, found)
            print(f"{found.cases} cases", dict(found.wrong), file=sys.stderr, flush=True)
        works = server.texts(server.base, ["Hello"])
        log = server.log.read_text()
        status = server.end()
    print(
        json.dumps({
            "cases": found.cases, "routes": len(operations), "wrong": found.wrong,
            "statuses": dict(sorted(found.statuses.items())), "works_afterwards": bool(works),
            "stack_traces_in_the_log": log.count("Traceback"), "exit_status": status,
            "seconds": round(time.monotonic() - started),
        })
    )  # fmt: skip
    if "Traceback" in log:
        print(log[log.index("Traceback") - 500 :][:4000], file=sys.stderr)


if __name__ == "__main__":
    main()
