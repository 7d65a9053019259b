"""The one thread that runs the model: texts that arrive together are read together."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from emend.errors import EmendError
from emend.models.forward import batches
from emend.models.generation import SPREAD
from emend.models.positions import pad_id
from emend.models.writing import end_tokens
from emend.server.engines._rows import Row, Scored, Writing, score_texts

logger = logging.getLogger("emend.server")

ROWS = 32
"""The largest number of texts that are written together."""

WRITINGS = 4
"""Groups of texts that are written at the same time, a step of each in turn; more would read the
weights once more for every token."""

TOKENS = 2048
"""Tokens that are scored in one pass at most, unless one text alone has more."""


class Worker:
    """Writes and scores texts in a thread of its own.

    Args:
        model: The model, for what ends a text.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._ends = end_tokens(model, tokenizer)
        self._padding = pad_id(tokenizer)
        self._arrived: queue.SimpleQueue[Row | Scored | None] = queue.SimpleQueue()
        self._waiting: list[Row] = []
        self._scored: list[Scored] = []
        self._writings: list[Writing] = []
        self._closing = self._ended = False
        self._thread = threading.Thread(target=self._run, name="emend-engine", daemon=True)
        self._thread.start()

    def submit(self, one: Row | Scored) -> None:
        """Have a text written or scored."""
        if self._closing:
            raise EmendError("the engine is closed: start the server again")
        self._arrived.put(one)

    @property
    def load(self) -> int:
        """How many texts wait or are under way, nearly."""
        under_way = sum(row.is_open for one in list(self._writings) for row in one.rows)
        return self._arrived.qsize() + len(self._waiting) + len(self._scored) + under_way

    def close(self) -> None:
        """Finish what was given, and end."""
        if not self._closing:
            self._closing = True
            self._arrived.put(None)
            self._thread.join()

    def _run(self) -> None:
        while self._take():
            self._begin()
            if self._scored:
                self._score()
            for writing in list(self._writings):
                self._safely(writing.step, writing.rows)
                if not writing.is_open:
                    self._writings.remove(writing)

    def _take(self) -> bool:
        """Take what has arrived, waiting where nothing is under way; whether to go on."""
        busy = bool(self._writings or self._waiting or self._scored)
        while not (busy and self._arrived.empty()):
            if self._ended and self._arrived.empty():
                return False
            one = self._arrived.get()
            if one is None:
                self._ended = True
            else:
                (self._waiting if isinstance(one, Row) else self._scored).append(one)  # pyright: ignore[reportArgumentType]
                busy = True
        return True

    def _begin(self) -> None:
        """Begin to write those that wait, as far as there is room."""
        self._waiting = [row for row in self._waiting if row.is_open]
        while self._waiting and len(self._writings) < WRITINGS:
            first = self._waiting[0]
            own = [row for row in self._waiting if row.model is first.model]
            groups = batches([len(row.prompt) for row in own], ROWS, SPREAD)
            chosen = next(group for group in groups if any(own[at] is first for at in group))
            rows = [own[at] for at in chosen]
            self._waiting = [row for row in self._waiting if row not in rows]
            self._safely(lambda rows=rows: self._writings.append(self._writing(rows)), rows)

    def _writing(self, rows: Sequence[Row]) -> Writing:
        return Writing(rows, self.tokenizer, self._ends)

    def _score(self) -> None:
        """Score as many of those that wait as go into one pass."""
        self._scored = [one for one in self._scored if one.is_open]
        if not self._scored:
            return
        first = self._scored[0]
        chosen, longest = [first], len(first.tokens)
        for one in self._scored[1:]:
            longest_then = max(longest, len(one.tokens))
            if one.model is first.model and longest_then * (len(chosen) + 1) <= TOKENS:
                chosen.append(one)
                longest = longest_then
        self._scored = [one for one in self._scored if one not in chosen]
        self._safely(lambda: score_texts(chosen, self._padding), chosen)

    def _safely(self, act: Callable[[], None], rows: Sequence[Row | Scored]) -> None:
        """Act; where it fails, those who wait for these rows learn of it."""
        try:
            act()
        except Exception as error:
            logger.exception("the model failed on %d texts", len(rows))
            for row in rows:
                if row.is_open:
                    row.fail(error)
