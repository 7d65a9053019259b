"""What an operator sees: numbers for Prometheus, and a line of JSON for each request."""

from __future__ import annotations

import json
import logging
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

logger = logging.getLogger("emend.server.access")

BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Bounds of the histogram of answer times, in seconds."""


class Observer:
    """Counts of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def named(
            kind: Any, name: str, text: str, labels: tuple[str, ...] = (), **more: Any
        ) -> Any:
            return kind(f"emend_{name}", text, labels, registry=self.registry, **more)

        self.requests: Counter = named(
            Counter, "requests", "Requests answered.", ("route", "status")
        )
        self.seconds: Histogram = named(
            Histogram, "answer_seconds", "Time to the end of an answer.", ("route",),
            buckets=BUCKETS,
        )  # fmt: skip
        self.tokens: Counter = named(Counter, "tokens", "Tokens written.", ("model",))
        self.edits: Counter = named(Counter, "edits", "Changes of the edits.", ("result",))
        self.waiting: Gauge = named(Gauge, "texts_waiting", "Texts that wait or are under way.")
        self.version: Gauge = named(Gauge, "ledger_version", "Version of the ledger served.")
        self.active: Gauge = named(Gauge, "edits_active", "Edits that are active.")

    def page(self) -> bytes:
        """Return all numbers in the text format of Prometheus."""
        return generate_latest(self.registry)

    def answered(self, route: str, method: str, status: int, seconds: float, **more: Any) -> None:
        """Note an answer: in the numbers, and in the log without what was asked."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        line = {"route": route, "method": method, "status": status, "seconds": round(seconds, 4)}
        known = {name: value for name, value in more.items() if value is not None}
        logger.info("%s", json.dumps({**line, **known}, ensure_ascii=False))
