"""Work of the editing thread that a page waits for, and how far it is."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from emend.errors import UnknownName
from emend.report.markup import Markup
from emend.server.editor import Editor

KEPT = 64
"""Jobs that are remembered after they ended."""


class Job:
    """One piece of work.

    Attributes:
        id: Its name in addresses.
        step: What it does now.
        changes: Whether the ledger is another one when it has ended.
        started: When it was given, in seconds of `time.monotonic`.
    """

    def __init__(self, changes: bool) -> None:
        self.id = secrets.token_urlsafe(8)
        self.step = "waiting for its turn"
        self.changes = changes
        self.started = time.monotonic()
        self.found: Future[Markup] = Future()

    @property
    def seconds(self) -> float:
        """How long ago it was given."""
        return time.monotonic() - self.started

    def say(self, step: str) -> None:
        """Note what it does now."""
        self.step = step


class Jobs:
    """The jobs of one studio.

    Args:
        editor: In whose thread they run.
    """

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def begin(self, act: Callable[[Job], Markup], *, changes: bool = False) -> Job:
        """Have something done in the editing thread; its result is a part of a page."""
        job = Job(changes)
        with self._lock:
            self._jobs[job.id] = job
            while len(self._jobs) > KEPT:
                self._jobs.popitem(last=False)
        job.found = self._editor.submit(lambda: act(job))
        return job

    def get(self, id_: str) -> Job:
        """Return a job.

        Raises:
            UnknownName: It is not known, or forgotten.
        """
        with self._lock:
            if id_ not in self._jobs:
                raise UnknownName("job", id_, ())
            return self._jobs[id_]
