"""What the browser asks for; what edits is under /studio/edits, which needs the token."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from emend.chat import Statement
from emend.errors import EmendError, InvalidInput
from emend.models import has_chat_template
from emend.report.markup import Markup, style_sheet
from emend.server.editor import Editor
from emend.server.guard import COOKIE
from emend.server.studio import pages
from emend.server.studio.jobs import Job, Jobs

METHODS = ("memit", "rome", "alphaedit", "ft", "lora", "grace")
"""Methods that are compared on one edit: those that need no training before."""

ANSWER, CHANCES = 48, 5
"""Tokens of an answer, and first tokens whose probabilities are shown."""

DRAWS = 3
"""How often noise is drawn for a trace; `emend trace` draws ten times."""

POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'"
)


def studio_router(editor: Editor, token: str) -> APIRouter:
    """Make the routes of the studio.

    Args:
        editor: Whose edits are shown and made.
        token: What writers sign in with.
    """
    router = APIRouter(include_in_schema=False)
    studio = _Studio(editor, token)
    for path, method, act in (
        ("/studio", "GET", studio.page),
        ("/studio/style.css", "GET", studio.style),
        ("/studio/htmx.js", "GET", _script("htmx.min.js")),
        ("/studio/studio.js", "GET", _script("studio.js")),
        ("/studio/login", "POST", studio.login),
        ("/studio/state", "GET", studio.state),
        ("/studio/ledger", "GET", studio.ledger),
        ("/studio/ask", "POST", studio.ask),
        ("/studio/edits/subject", "POST", studio.subject),
        ("/studio/edits", "POST", studio.edit),
        ("/studio/edits/compare", "POST", studio.compare),
        ("/studio/edits/revert", "POST", studio.revert),
        ("/studio/edits/trace", "POST", studio.trace),
        ("/studio/jobs/{id}", "GET", studio.job),
    ):
        router.add_api_route(path, act, methods=[method], response_model=None)
    return router


class _Studio:
    def __init__(self, editor: Editor, token: str) -> None:
        self.editor, self.token = editor, token
        self.jobs = Jobs(editor)

    async def page(self, request: Request) -> Response:
        """Show the page; with ?token=TOKEN, as the command prints it, sign in first."""
        if self._is_token(request.query_params.get("token", "")):
            return self._welcome()
        name = self.editor.options.name
        text = pages.page(
            name,
            self.editor.edited,
            signed_in=self._signed_in(request),
            chat=has_chat_template(self.editor.tokenizer),
        )
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    async def style(self) -> Response:
        """Give the style sheets, those of the reports first."""
        sheets = [style_sheet("style.css"), style_sheet("heat.css"), _static("studio.css")]
        return Response("\n".join(sheets), media_type="text/css")

    async def login(self, request: Request) -> Response:
        """Keep the token in a cookie of this site that no script reads."""
        if not self._is_token((await _fields(request)).get("token")):
            text = pages.failed("This is not the token of the server.")
            return HTMLResponse(text, status_code=401)
        return self._welcome()

    async def state(self) -> Response:
        """Show what is served now."""
        editor = self.editor
        return _part(pages.state(editor.version, len(editor.active), editor.engine.load))

    async def ledger(self, request: Request) -> Response:
        """Show the table of the ledger."""
        entries = await asyncio.to_thread(self.editor.ledger.entries)
        return _part(pages.ledger(entries, signed_in=self._signed_in(request)))

    async def ask(self, request: Request) -> Response:
        """Ask the base and the edited model."""
        given = await _fields(request)
        question, kind = given.get("question"), given.get("form")
        names = [self.editor.options.name, self.editor.edited]
        try:
            if not question.strip():
                raise InvalidInput("the question is empty, expected some text")
            both = await asyncio.gather(*(self._answer(name, kind, question) for name in names))
        except EmendError as error:
            return _part(pages.failed(str(error)))
        return _part(pages.asked(dict(zip(names, both, strict=True))))

    async def subject(self, request: Request) -> Response:
        """Find the subject of a sentence, and ask whether it is meant."""
        line = (await _fields(request)).get("statement")

        def act() -> Markup:
            found = self.editor.read(line)
            return pages.confirmation(found.text, found.subject or "", found.target, METHODS)

        try:
            return _part(await asyncio.wrap_future(self.editor.submit(act)))
        except EmendError as error:
            return _part(pages.failed(str(error)))

    async def edit(self, request: Request) -> Response:
        """Make an edit."""
        given = await _fields(request)

        def act(job: Job) -> Markup:
            change = self.editor.add(
                _statement(given).edit(),
                author=given.get("author"),
                reason=given.get("reason"),
                supersede=given.get("supersede") == "yes",
                progress=job.say,
            )
            return pages.edited(change)

        return self._begun(act, changes=True)

    async def compare(self, request: Request) -> Response:
        """Make one edit by several methods, and keep none."""
        given = await _fields(request)
        names = [name for name in METHODS if name in given.all("method")]

        def act(job: Job) -> Markup:
            edit = _statement(given).edit()
            return pages.compared(self.editor.compare(edit, names, progress=job.say))

        return self._begun(act)

    async def revert(self, request: Request) -> Response:
        """Take an edit out."""
        given = await _fields(request)

        def act(job: Job) -> Markup:
            change = self.editor.revert([given.get("id")], progress=job.say)
            return pages.reverted(change)

        return self._begun(act, changes=True)

    async def trace(self, request: Request) -> Response:
        """Trace where a fact is recalled."""
        given = await _fields(request)

        def act(job: Job) -> Markup:
            job.say("tracing, without the edits and with them")
            return pages.traced(*self.editor.traces(given.get("id"), draws=DRAWS))

        return self._begun(act)

    async def job(self, id: str) -> Response:
        """Show how far a job is, or what it found."""
        try:
            job = self.jobs.get(id)
        except EmendError as error:
            return _part(pages.failed(str(error)))
        if not job.found.done():
            return _part(pages.waiting(job))
        headers = {"HX-Trigger": pages.CHANGED} if job.changes else {}
        try:
            return _part(job.found.result(), headers)
        except EmendError as error:
            return _part(pages.failed(str(error)), headers)

    def _begun(self, act: Callable[[Job], Markup], *, changes: bool = False) -> Response:
        return _part(pages.waiting(self.jobs.begin(act, changes=changes)))

    def _signed_in(self, request: Request) -> bool:
        return self._is_token(request.cookies.get(COOKIE, ""))

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _welcome(self) -> Response:
        answer = RedirectResponse("/studio", status_code=303)
        answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict", path="/")
        return answer

    async def _answer(self, name: str, kind: str, question: str) -> tuple[str, dict[str, float]]:
        body: dict[str, Any] = {"temperature": 0.0, "max_tokens": ANSWER}
        if kind == "chat":
            turns = [{"role": "user", "content": question}]
            body |= {"messages": turns, "logprobs": True, "top_logprobs": CHANCES}
        else:
            kind = "completions"
            body |= {"prompt": question, "logprobs": CHANCES, "stop": ["\n\n"]}
        handle = self.editor.served(name).handle
        choice = (await self.editor.engine.answer(handle, kind, body))["choices"][0]
        text = choice["message"]["content"] if kind == "chat" else choice["text"]
        return str(text).strip(), pages.chances_of(choice.get("logprobs"))


def _static(name: str) -> str:
    return (files("emend.server.studio") / "static" / name).read_text("utf-8")


def _script(name: str) -> Callable[[], Awaitable[Response]]:
    async def script() -> Response:
        return Response(_static(name), media_type="text/javascript")

    return script


class _Fields:
    """The fields of a form that was sent."""

    def __init__(self, body: bytes) -> None:
        self._found = parse_qs(body.decode(errors="replace"), keep_blank_values=True)

    def all(self, name: str) -> list[str]:
        """Return all values of a field."""
        return self._found.get(name, [])

    def get(self, name: str) -> str:
        """Return the first value of a field; "" where it was not sent."""
        return next(iter(self.all(name)), "")


async def _fields(request: Request) -> _Fields:
    return _Fields(await request.body())


def _statement(given: _Fields) -> Statement:
    return Statement(given.get("text"), given.get("target"), given.get("subject"))


def _part(markup: Markup, headers: dict[str, str] | None = None) -> Response:
    return HTMLResponse(str(markup), headers={"Cache-Control": "no-store", **(headers or {})})
