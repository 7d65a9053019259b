"""The editing part: edits are posted, listed, checked and taken out again."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from emend.edits import Edit, edit_from_record, edit_to_record
from emend.ledger import Entry
from emend.server.bodies import EditText, NewEdit
from emend.server.editor import Change, Editor
from emend.server.observing import Observer

Status = Literal["proposed", "active", "superseded", "reverted"]

_FIELDS = ("status", "author", "reason", "source", "tags", "time", "changed", "parent")


def edit_router(editor: Editor, observer: Observer) -> APIRouter:
    """Make the routes under /v1/edits. Those that change something need the token (`Guard`)."""
    router = APIRouter(tags=["edits"])
    _add_reading(router, editor)
    _add_changing(router, editor, observer)
    return router


def _add_reading(router: APIRouter, editor: Editor) -> None:
    @router.get("/v1/edits")
    async def edits(
        status: Status | None = None, subject: str | None = None, tag: str | None = None
    ) -> dict[str, Any]:
        """List the edits of the ledger, oldest first."""
        found = await asyncio.to_thread(
            editor.ledger.entries, status=status, subject=subject, tag=tag
        )
        data = [entry_record(one) for one in found]
        return {"object": "list", "data": data, "ledger_version": editor.version}

    @router.get("/v1/edits/{id:path}")
    async def edit(id: str) -> dict[str, Any]:
        """Describe one edit with its history."""
        entry, events = await asyncio.to_thread(
            lambda: (editor.ledger.entry(id), editor.ledger.log(id))
        )
        history = [asdict(one) for one in events]
        return {**entry_record(entry), "history": history, "ledger_version": editor.version}

    @router.post("/v1/edits:check")
    async def check(body: EditText) -> dict[str, Any]:
        """Solve and measure an edit alone, on the unedited model; nothing is kept or served."""

        def act() -> Change:
            return editor.check(edit_of(editor, body), probes=body.probes)

        return {"object": "edit.check", **change_record(await _done(editor, act))}


def _add_changing(router: APIRouter, editor: Editor, observer: Observer) -> None:
    @router.post("/v1/edits", status_code=201)
    async def add(body: NewEdit) -> Any:
        """Propose, solve, verify, measure and serve an edit, or change nothing."""
        given = body.model_dump(exclude={"statement", "edit"})

        def act() -> Change:
            return editor.add(edit_of(editor, body), **given)

        try:
            change = await _done(editor, act)
        except BaseException:
            observer.edits.labels("refused").inc()
            raise
        observer.edits.labels("made").inc()
        found = {"object": "edit", **entry_record(change.entries[0]), **change_record(change)}
        return JSONResponse(found, status_code=201)

    @router.delete("/v1/edits/{id:path}")
    async def revert(id: str, author: str = "", reason: str = "") -> dict[str, Any]:
        """Take an edit out, with those derived from it, and serve what remains."""
        change = await _done(editor, lambda: editor.revert([id], author=author, reason=reason))
        observer.edits.labels("reverted").inc()
        reverted = [entry_record(one) for one in change.entries]
        return {"object": "edit.reverted", "reverted": reverted, **change_record(change)}


def edit_of(editor: Editor, body: EditText) -> Edit:
    """Read the edit of a body, finding its subject where none is marked.

    Raises:
        EmendError: It cannot be read, or no subject is found.
    """
    if body.edit is not None:
        return edit_from_record(body.edit)
    return editor.read(body.statement or "").edit()


def entry_record(entry: Entry) -> dict[str, Any]:
    """Return an entry of the ledger as one flat JSON object."""
    fields = {name: getattr(entry, name) for name in _FIELDS}
    text = {"text": entry.edit.text}
    return {**edit_to_record(entry.edit), **text, **fields, "superseded_by": entry.superseded_by}


def change_record(change: Change) -> dict[str, Any]:
    """Return what a change did as JSON-able data."""
    blast = change.blast
    return {
        "took": all(one.took for one in change.outcomes),
        "outcomes": [one.to_dict() for one in change.outcomes],
        "what_else_changed": blast and {"sentences": blast.sentences(), **blast.to_dict()},
        "no_longer_take": list(change.lost),
        "ledger_version": change.version,
        "seconds": round(change.seconds, 3),
    }


async def _done(editor: Editor, act: Any) -> Change:
    """Have something done in the editing thread, to its end even where the client leaves."""
    return await asyncio.shield(asyncio.wrap_future(editor.submit(act)))
