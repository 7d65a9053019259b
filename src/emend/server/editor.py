"""Edits made live: the ledger is the source, and the engine answers by what is active in it.

An edit is proposed in the ledger, solved, asked for, measured, and prepared on the engine, next to
what is served; then one transaction makes it active, and requests that come from then on are
answered by it. Whatever fails before that leaves the ledger's active edits and the engine as they
were. A server that is killed in between leaves a proposal, which the next start rejects.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from emend import api
from emend import ledger as ledgers
from emend.chat import Statement, find_subject, parse_statement
from emend.edits import Edit
from emend.errors import (
    Conflict,
    EmendError,
    InvalidInput,
    StoreFailure,
    SubjectNotFound,
    UnknownName,
)
from emend.ledger import LIVE, Entry, Ledger
from emend.ledger.solved import patch_hash
from emend.locate import Trace
from emend.patches import BlastRadius, Outcome, Patch, describe_base
from emend.probes import blast_radius
from emend.server.engines import Engine, Release, Served

logger = logging.getLogger("emend.server")

T = TypeVar("T")

TAG = "emend-serve"
"""Marks proposals of a server, which the next start rejects where it was killed."""

Progress = Callable[[str], None]


class DidNotTake(InvalidInput):
    """An edit did not take, and is not served.

    Attributes:
        outcomes: Of the edit, in each of its languages.
    """

    def __init__(self, outcomes: tuple[Outcome, ...]) -> None:
        self.outcomes = outcomes
        missed = next(one for one in outcomes if not one.took)
        super().__init__(f"the edit did not take and is not served: {missed.describe()}")


@dataclass(frozen=True)
class Change:
    """What a change of the edits did.

    Attributes:
        entries: The entries that changed.
        outcomes: Of the new edits; empty for a revert.
        lost: Ids of edits that took before and do not any more.
        blast: What else changed; None where not measured.
        version: Of the ledger now.
        seconds: From the request to the first answer by it.
    """

    entries: tuple[Entry, ...]
    outcomes: tuple[Outcome, ...] = ()
    lost: tuple[str, ...] = ()
    blast: BlastRadius | None = None
    version: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class EditorOptions:
    """How edits are made and served.

    Attributes:
        name: What requests call the base model; the edited one is "name:ledger".
        method: Name of the method that edits.
        settings: Those of the method.
        probes: What else changed is measured with; see `emend.probes.blast_radius`.
        patches: More patches to serve, by the name that follows "name:".
        author: Who edits where a request names nobody.
    """

    name: str
    method: str = "memit"
    settings: Mapping[str, Any] = field(default_factory=dict)
    probes: str = "auto"
    patches: Mapping[str, Patch] = field(default_factory=dict)
    author: str = "server"


class Editor:
    """The edits of one ledger behind one engine.

    All changes happen in one thread, in the order in which they come. Reading is safe in any.

    Args:
        model: The unedited model, by which edits are solved.
        tokenizer: Its tokenizer.
        ledger: The ledger's file; it is made where there is none.
        engine: Who answers.
        options: How edits are made.

    Raises:
        StoreFailure: Another server has this ledger.
        InvalidInput: The ledger is of another model, or the engine cannot serve it.
    """

    def __init__(
        self, model: Any, tokenizer: Any, ledger: Path, engine: Engine, options: EditorOptions
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.engine, self.options = engine, options
        self._held = _hold(ledger)
        self.ledger = open_ledger(ledger, model, options.name)
        self.edited = f"{options.name}:{ledger.stem}"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="emend-editor")
        self._lock = threading.Lock()
        self._served: dict[str, Served] = {}
        self._took: dict[str, bool] = {}
        try:
            self._pool.submit(self._begin).result()
        except BaseException:
            self._release()
            raise

    # Reading.

    def served(self, name: str) -> Served:
        """Return the model that a request names, as it is now.

        Raises:
            UnknownName: There is none.
        """
        with self._lock:
            if name not in self._served:
                raise UnknownName("model", name, self._served)
            return self._served[name]

    def all_served(self) -> tuple[Served, ...]:
        """Return all models that requests can name."""
        with self._lock:
            return tuple(self._served.values())

    @property
    def version(self) -> int:
        """The ledger's version that is served."""
        return self.served(self.edited).version

    @property
    def active(self) -> tuple[str, ...]:
        """Ids of the edits that are served, sorted."""
        return self._edits

    # Changing.

    def submit(self, act: Callable[[], T]) -> Future[T]:
        """Have something done in the editing thread, after what is under way."""
        return self._pool.submit(act)

    def add(
        self,
        edit: Edit,
        *,
        author: str = "",
        reason: str = "",
        source: str = "",
        tags: Iterable[str] = (),
        supersede: bool = False,
        keep_failed: bool = False,
        probes: str | None = None,
        progress: Progress | None = None,
    ) -> Change:
        """Make an edit and serve it; to be called in the editing thread (`submit`).

        Args:
            edit: The edit.
            author: Who asks for it.
            reason: Why.
            source: Where the fact comes from.
            tags: Words to find it by.
            supersede: Let it win over an active edit that wants something else.
            keep_failed: Serve it even if it did not take.
            probes: Instead of the editor's.
            progress: Is given each step.

        Raises:
            Conflict: An active edit wants something else of the same statement.
            DidNotTake: The model does not generate the target; nothing has changed.
            EmendError: As `emend.edit`; nothing has changed.
        """
        started = time.perf_counter()
        author = author or self.options.author
        edit, gone = self._admitted(edit, supersede)
        (entry,) = self.ledger.add(
            edit, author=author, reason=reason, source=source, tags=(*tags, TAG), status="proposed"
        )
        handle: Any = None
        try:
            wanted = {one.id for one in self.ledger.active()} - gone | {entry.id}
            built, handle = self._solved(wanted, progress)
            own = _outcomes_of(edit, built.patch)
            if not keep_failed and not all(one.took for one in own):
                raise DidNotTake(own)
            self._say(progress, "measuring what else changed")
            found = self._blast(edit, built.patch, probes)
            changed = self.ledger.accept(
                entry.id, author=author, reason=reason, supersede=supersede
            )
        except BaseException as error:
            self._take_back(entry.id, handle, error)
            raise
        lost = self._activate(built, handle)
        seconds = time.perf_counter() - started
        return Change(changed, own, lost, found, self.version, seconds)

    def _take_back(self, id_: str, handle: Any, error: BaseException) -> None:
        """Reject a proposal that failed, and note why."""
        if handle is not None:
            self.engine.discard(handle)
        why = str(error) if isinstance(error, EmendError) else type(error).__name__
        self.ledger.reject(id_, author=self.options.author, reason=why[:500])
        self._renumber()

    def revert(
        self,
        ids: Iterable[str],
        *,
        author: str = "",
        reason: str = "",
        progress: Progress | None = None,
    ) -> Change:
        """Take edits out, with those derived from them, and serve what remains.

        Raises:
            UnknownName: There is no edit with such an id.
            InvalidInput: One is not active.
        """
        started = time.perf_counter()
        ids = list(ids)
        for id_ in ids:
            if self.ledger.entry(id_).status != "active":
                raise InvalidInput(
                    f"edit {id_!r} is {self.ledger.entry(id_).status}, expected an active one: "
                    "there is nothing to take out"
                )
        entries = self.ledger.entries()
        wanted = {one.id for one in entries if one.status == "active"} - derived(entries, ids)
        built, handle = self._solved(wanted, progress)
        try:
            changed = self.ledger.revert(*ids, author=author or self.options.author, reason=reason)
        except BaseException:
            self.engine.discard(handle)
            raise
        lost = self._activate(built, handle)
        return Change(changed, (), lost, None, self.version, time.perf_counter() - started)

    def read(self, line: str) -> Statement:
        """Read a fact typed as a sentence, and find its subject where none is marked.

        Raises:
            InvalidInput: It is none.
            SubjectNotFound: Nothing in it can be a subject.
        """
        statement = parse_statement(line)
        if statement.subject is not None:
            return statement
        found = find_subject(self.model, self.tokenizer, statement.text)
        if found is None:
            raise SubjectNotFound(
                f"no subject is found in {statement.text!r}, expected one: mark it with braces"
            )
        return replace(statement, subject=found)

    def check(self, edit: Edit, *, probes: str | None = None, method: str | None = None) -> Change:
        """Solve and measure an edit on the unedited model, without serving or keeping it.

        Args:
            edit: The edit.
            probes: Instead of the editor's.
            method: Instead of the editor's, with its defaults.

        Raises:
            EmendError: As `emend.edit`.
        """
        started = time.perf_counter()
        settings = self.options.settings if method is None else {}
        patch = api.edit(
            self.model, self.tokenizer, [edit], method or self.options.method, **settings
        )
        found = self._blast(edit, patch, probes)
        return Change((), patch.outcomes, (), found, self.version, time.perf_counter() - started)

    def compare(
        self, edit: Edit, names: Iterable[str], *, progress: Progress | None = None
    ) -> dict[str, Change | EmendError]:
        """Check one edit by several methods, each with its own defaults; see `check`.

        Returns:
            For each method what it did, or why it cannot.
        """
        found: dict[str, Change | EmendError] = {}
        for name in names:
            self._say(progress, f"editing by {name}")
            try:
                found[name] = self.check(edit, method=name)
            except EmendError as error:
                found[name] = error
        return found

    def traces(self, id_: str, **settings: Any) -> tuple[Trace, Trace]:
        """Trace where the fact of an active edit is recalled: without the edits, and with them.

        Args:
            id_: The edit.
            settings: Those of `emend.trace`.

        Raises:
            UnknownName: There is no such edit.
            InvalidInput: It is not active.
        """
        entry = self.ledger.entry(id_)
        if id_ not in self._edits:
            raise InvalidInput(f"edit {id_!r} is {entry.status}, expected one that is served")
        asked = self.model, self.tokenizer, entry.edit.prompt, entry.edit.subject
        before = api.trace(*asked, **settings)
        with self._patch.applied(self.model):
            return before, api.trace(*asked, entry.edit.target, **settings)

    def follow(self) -> bool:
        """Serve what others have written into the ledger meanwhile; whether that was anything."""
        active = tuple(edit.id for edit in self.ledger.active())
        if active == self._edits:
            self._renumber()
            return False
        logger.info("the ledger was changed by another program: it is built again")
        self._activate(*self._solved(active, None))
        return True

    def close(self) -> None:
        """Finish what is under way, and close engine and ledger."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.engine.close()
        self._release()

    def _release(self) -> None:
        self.ledger.close()
        self._held.close()

    # Within the editing thread.

    def _begin(self) -> None:
        left = [one.id for one in self.ledger.entries(status="proposed", tag=TAG)]
        if left:
            why = "the server ended before this edit was served"
            self.ledger.reject(*left, author=self.options.author, reason=why)
            logger.warning("%d edits that were under way at the last end are rejected", len(left))
        name, version = self.options.name, self.ledger.version
        self._served[name] = Served(name, None, version, "", self.engine.base())
        for own, patch in self.options.patches.items():
            full = f"{name}:{own}"
            hash_ = patch_hash(patch)
            handle = self.engine.prepare(full, Release(patch, hash_))
            self._served[full] = Served(full, name, version, hash_, handle)
        if self.edited in self._served:
            raise InvalidInput(
                f"a patch is named as the ledger is ({self.edited}), expected different names: "
                "name the patch otherwise"
            )
        self._edits: tuple[str, ...] = ()
        active = tuple(edit.id for edit in self.ledger.active())
        self._activate(*self._solved(active, None))

    def _solved(self, ids: Iterable[str], progress: Progress | None) -> tuple[ledgers.Built, Any]:
        """Build a patch of some edits, and prepare the engine to answer by it."""
        self._say(progress, "solving")
        built = ledgers.build(
            self.ledger,
            self.model,
            self.tokenizer,
            method=self.options.method,
            author=self.options.author,
            edits=ids,
            **self.options.settings,
        )
        self._say(progress, "preparing the engine")
        release = Release(built.patch, built.build.patch_hash)
        return built, self.engine.prepare(self.edited, release)

    def _activate(self, built: ledgers.Built, handle: Any) -> tuple[str, ...]:
        """Answer by a patch from now on; return the edits that it lost."""
        took = {one.edit: one.took for one in built.patch.outcomes}
        lost = tuple(
            sorted(one for one, did in self._took.items() if did and took.get(one) is False)
        )
        self._took, self._edits, self._patch = took, built.build.edits, built.patch
        version = self.ledger.version
        new = Served(self.edited, self.options.name, version, built.build.patch_hash, handle)
        with self._lock:
            before = self._served.get(self.edited)
            self._served = {**self._numbered(version), self.edited: new}
        if before is not None:
            self.engine.discard(before.handle)
        return lost

    def _renumber(self) -> None:
        """Name the ledger's version in answers of all models, where the same edits are active."""
        version = self.ledger.version
        with self._lock:
            self._served = self._numbered(version)

    def _numbered(self, version: int) -> dict[str, Served]:
        return {name: replace(one, version=version) for name, one in self._served.items()}

    def _admitted(self, edit: Edit, supersede: bool) -> tuple[Edit, set[str]]:
        """Return an edit under an id that is free, and the ids that it takes out."""
        known = {one.id: one.status for one in self.ledger.entries()}
        if known.get(edit.id) in LIVE:
            raise InvalidInput(
                f"edit {edit.id!r} is {known[edit.id]} in the ledger already, expected a new one: "
                "there is nothing to do"
            )
        free = (f"{edit.id}-{number}" for number in itertools.count(2))
        if edit.id in known:  # it was taken out, or did not take
            edit = replace(edit, id=next(one for one in free if one not in known))
        pairs = self.ledger.conflicts([edit])
        if pairs and not supersede:
            old = pairs[0][0]
            raise Conflict(
                f"{edit.text!r} is to be followed by {edit.target.strip()!r}, where the active "
                f"edit {old.id} wants {old.target.strip()!r}: revert that one, or let this one win "
                "(supersede)",
                pairs,
            )
        return edit, derived(self.ledger.entries(), [old.id for old, _ in pairs])

    def _blast(self, edit: Edit, patch: Patch, probes: str | None) -> BlastRadius | None:
        chosen = self.options.probes if probes is None else probes
        return blast_radius(self.model, self.tokenizer, patch, chosen, edits=[edit])

    def _say(self, progress: Progress | None, step: str) -> None:
        if progress is not None:
            progress(step)


def _outcomes_of(edit: Edit, patch: Patch) -> tuple[Outcome, ...]:
    return tuple(one for one in patch.outcomes if edit.id in (one.edit, one.translation_of))


def derived(entries: Iterable[Entry], ids: Iterable[str]) -> set[str]:
    """Return ids together with those of the live edits that were derived from them."""
    live = [one for one in entries if one.status in LIVE]
    found: set[str] = set(ids)
    while more := {one.id for one in live if one.parent in found} - found:
        found |= more
    return found


def open_ledger(path: Path, model: Any, name: str) -> Ledger:
    """Open a ledger, or make one for a model where there is none.

    Whether it is of this model is checked where its edits are built.
    """
    base = {**describe_base(model), "name": name}
    if not path.exists():
        return Ledger.create(path, base)
    ledger = Ledger.open(path)
    if ledger.base is None:
        ledger.set_base(base)
    return ledger


def _hold(path: Path) -> Any:
    """Keep other servers away from a ledger until the file that is returned is closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(f"{path.name}.serving").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StoreFailure(
            f"{path} is served by another process, expected none: stop that one, or name another "
            "ledger"
        ) from None
    return file
