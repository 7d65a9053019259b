"""The application: routes, what errors become, and the server that runs it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from emend._version import __version__
from emend.errors import (
    Conflict,
    EmendError,
    EndpointFailure,
    NumericalFailure,
    StoreFailure,
    UnknownName,
)
from emend.server.edit_routes import edit_router
from emend.server.editor import DidNotTake, Editor
from emend.server.engines import Unreachable
from emend.server.guard import Guard, Limits, error_body
from emend.server.observing import Observer
from emend.server.openai_routes import Busy, openai_router
from emend.server.studio import studio_router

logger = logging.getLogger("emend.server")

FOLLOW = 2.0
"""Seconds between two looks at what others have written into the ledger."""

_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (UnknownName, 404, "not_found"),
    (DidNotTake, 422, "did_not_take"),
    (NumericalFailure, 422, "diverged"),
    (Conflict, 409, "conflict"),
    (Busy, 429, "busy"),
    (StoreFailure, 503, "ledger"),
    (Unreachable, 503, "engine"),
    (EndpointFailure, 502, "engine"),
    (ValueError, 400, "invalid"),
    (LookupError, 400, "invalid"),
)


def create_app(
    editor: Editor, *, token: str, limits: Limits | None = None, log_prompts: bool = False
) -> FastAPI:
    """Make the ASGI application of a server.

    Args:
        editor: The edits and the engine behind them; it is closed when the application ends.
        token: What writers must send.
        limits: What is accepted.
        log_prompts: Whether the log of requests holds what was asked.
    """
    limits = limits or Limits()
    observer = Observer()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        follower = asyncio.ensure_future(_follow(editor))
        yield
        app.state.draining = True
        follower.cancel()
        await asyncio.to_thread(editor.close)

    app = FastAPI(
        title="emend", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.draining = False
    app.include_router(openai_router(editor, observer, limits, log_prompts=log_prompts))
    app.include_router(edit_router(editor, observer))
    app.include_router(studio_router(editor, token))
    _add_health(app, editor, observer)
    _add_errors(app)
    app.add_middleware(
        Guard, limits=limits, token=token, observer=observer, version=lambda: editor.version
    )
    return app


def _add_health(app: FastAPI, editor: Editor, observer: Observer) -> None:
    @app.get("/healthz", tags=["operation"])
    async def healthz() -> dict[str, str]:
        """State that the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operation"])
    async def readyz() -> Response:
        """State whether requests are taken: 503 while the server ends."""
        if app.state.draining:
            return JSONResponse({"status": "ending"}, status_code=503)
        return JSONResponse({"status": "ready", "ledger_version": editor.version})

    @app.get("/metrics", tags=["operation"])
    async def metrics() -> PlainTextResponse:
        """Give the numbers of this server to Prometheus."""
        observer.waiting.set(editor.engine.load)
        observer.version.set(editor.version)
        observer.active.set(len(editor.active))
        return PlainTextResponse(observer.page(), media_type="text/plain; version=0.0.4")


def _add_errors(app: FastAPI) -> None:
    async def ours(_: Request, error: Exception) -> JSONResponse:
        known = ((status, code) for kind, status, code in _STATUS if isinstance(error, kind))
        status, code = next(known, (500, "internal"))
        body = error_body(str(error), code)
        if isinstance(error, DidNotTake):
            body["outcomes"] = [one.to_dict() for one in error.outcomes]
        return JSONResponse(body, status_code=status)

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        message = f"{place or 'the body'}: {first['msg']}"
        return JSONResponse(error_body(message, "invalid", place or None), status_code=400)

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return JSONResponse(
            error_body(str(error.detail), "http"), error.status_code, headers=error.headers
        )

    async def defect(_: Request, error: Exception) -> JSONResponse:
        logger.error("a request failed on a defect of emend", exc_info=error)
        body = error_body("the server failed on this request: its log has more", "internal")
        return JSONResponse(body, status_code=500)

    app.add_exception_handler(EmendError, ours)
    app.add_exception_handler(RequestValidationError, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, defect)


async def _follow(editor: Editor) -> None:
    """Serve what other programs write into the ledger."""
    while True:
        await asyncio.sleep(FOLLOW)
        try:
            await asyncio.wrap_future(editor.submit(editor.follow))
        except EmendError as error:
            logger.error("the ledger's edits cannot be served, the former ones are: %s", error)
        except RuntimeError:  # the editor is closed
            return


def run(app: Any, host: str, port: int, drain: float) -> None:
    """Serve an application until SIGTERM or SIGINT, which let requests under way end.

    Args:
        app: Of `create_app`.
        host: The address.
        port: The port.
        drain: Seconds that requests under way may take after the signal.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(drain) or None,
    )
    before = signal.signal(signal.SIGTERM, _nothing)  # uvicorn raises it again when it is done
    try:
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run()
    finally:
        signal.signal(signal.SIGTERM, before)


def _nothing(_number: int, _frame: Any) -> None:
    """Take a signal that was dealt with."""
