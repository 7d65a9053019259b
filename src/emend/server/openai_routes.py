"""The OpenAI-compatible part: models, completions and chats, whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from emend.errors import EmendError, InvalidInput
from emend.server.bodies import Chat, Completion, Tokenize
from emend.server.editor import Editor
from emend.server.engines import Served
from emend.server.guard import Limits, error_body
from emend.server.observing import Observer

LEFT = 499
"""Status in the log for a client that left before its answer."""


class Busy(EmendError):
    """More texts wait for the engine than is accepted."""


def openai_router(
    editor: Editor, observer: Observer, limits: Limits, *, log_prompts: bool
) -> APIRouter:
    """Make the routes under /v1 that OpenAI's clients use, and those that lm-eval asks for."""
    router = APIRouter(tags=["models"])
    started = int(time.time())
    answers = _Answers(editor, observer, limits, log_prompts)

    def described(one: Served) -> dict[str, Any]:
        return {
            "id": one.name,
            "object": "model",
            "created": started,
            "owned_by": "emend",
            "parent": one.parent,
            "ledger_version": one.version,
            "patch": one.hash or None,
        }

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the base, the edited model, and one for each further patch."""
        return {"object": "list", "data": [described(one) for one in editor.all_served()]}

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """Describe one model."""
        return described(editor.served(name))

    @router.post("/v1/completions")
    async def completions(request: Request, body: Completion) -> Any:
        """Continue texts."""
        return await answers.to(request, "completions", body)

    @router.post("/v1/chat/completions")
    async def chat(request: Request, body: Chat) -> Any:
        """Answer in a chat."""
        return await answers.to(request, "chat", body)

    _add_tokenizer(router, editor)
    return router


@dataclass(frozen=True)
class _Answers:
    """How requests are answered: by whom, within which limits, and what is logged."""

    editor: Editor
    observer: Observer
    limits: Limits
    log_prompts: bool

    async def to(self, request: Request, kind: str, body: Completion | Chat) -> Any:
        """Answer a request for texts, whole or as a stream."""
        editor, limits = self.editor, self.limits
        served = editor.served(body.model)
        if body.texts > limits.waiting:
            raise InvalidInput(
                f"the request asks for {body.texts} texts, expected at most {limits.waiting} at "
                "once: send several requests"
            )
        if editor.engine.load + body.texts > limits.waiting:
            raise Busy("too many texts wait already: try again in a moment")
        headers = {"x-emend-ledger-version": str(served.version)}
        if served.hash:
            headers["x-emend-patch"] = served.hash
        noted: dict[str, Any] = {"model": served.name, "ledger_version": served.version}
        request.state.noted = noted
        given = body.given()
        if self.log_prompts:
            noted["prompt"] = given.get("prompt") or given.get("messages")
        if body.stream:
            chunks = editor.engine.stream(served.handle, kind, given)
            first = await anext(chunks, None)  # what is refused, is refused before the stream
            lines = _lines(first, chunks, served, self.observer)
            return StreamingResponse(lines, media_type="text/event-stream", headers=headers)
        answer = await _unless_gone(request, editor.engine.answer(served.handle, kind, given))
        if answer is None:
            return Response(status_code=LEFT)
        tokens = answer.get("usage", {}).get("completion_tokens", 0)
        self.observer.tokens.labels(served.name).inc(tokens)
        noted["tokens"] = tokens
        return JSONResponse({**answer, "model": served.name}, headers=headers)


def _add_tokenizer(router: APIRouter, editor: Editor) -> None:
    @router.get("/tokenizer_info")
    async def tokenizer_info() -> dict[str, Any]:
        """Name the special tokens, as lm-evaluation-harness asks."""
        names = ("bos_token", "eos_token", "unk_token", "pad_token")
        found = {name: getattr(editor.tokenizer, name, None) for name in names}
        template = getattr(editor.tokenizer, "chat_template", None)
        return {**found, "chat_template": template if isinstance(template, str) else None}

    @router.post("/tokenize")
    def tokenize(body: Tokenize) -> dict[str, Any]:  # not async: a long text keeps nobody waiting
        """Tokenise a text by the model's own tokenizer, without emend's start token."""
        ids = editor.tokenizer(
            body.prompt, add_special_tokens=body.add_special_tokens, verbose=False
        )["input_ids"]
        return {"tokens": ids, "count": len(ids)}


async def _lines(
    first: dict[str, Any] | None,
    rest: AsyncIterator[dict[str, Any]],
    served: Served,
    observer: Observer,
) -> AsyncIterator[str]:
    """Write chunks as server-sent events."""
    try:
        if first is not None:
            yield _event({**first, "model": served.name})
        async for chunk in rest:
            observer.tokens.labels(served.name).inc(_written(chunk))
            yield _event({**chunk, "model": served.name})
    except EmendError as error:  # the status was sent long ago
        yield _event(error_body(str(error), "internal"))
        return
    yield "data: [DONE]\n\n"


def _written(chunk: Mapping[str, Any]) -> int:
    """Count the parts of a chunk that hold text: about as many tokens."""
    parts = [one.get("delta") or one for one in chunk.get("choices", ())]
    return sum(bool(one.get("content") or one.get("text")) for one in parts)


def _event(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _unless_gone(request: Request, answer: Any) -> dict[str, Any] | None:
    """Wait for an answer; where the client leaves first, give it up and return None."""
    task = asyncio.ensure_future(answer)

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watch = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            return None
        return task.result()
    finally:
        watch.cancel()
