"""What every request passes first: its size, its pace, its token; and what is noted of it."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emend.server.observing import Observer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

VERSION_HEADER = b"x-emend-ledger-version"
COOKIE = "emend_token"
GUARDED = ("/v1/edits", "/studio/edits")
"""Beginnings of the paths that only writers may post to."""

OUTSIDE = "(no such route)"


@dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Attributes:
        body_bytes: The longest body.
        body_seconds: For how long a body may arrive.
        waiting: How many texts may wait for the engine or be under way.
        edits_per_minute: Changes of the edits, all writers together.
    """

    body_bytes: int = 1_000_000
    body_seconds: float = 30.0
    waiting: int = 256
    edits_per_minute: int = 60


def error_body(message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return an error in the form of OpenAI's interface."""
    kind = "server_error" if code == "internal" else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Pace:
    """At most a number of acts in any minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = per_minute, clock
        self._times: deque[float] = deque()

    def wait(self) -> float:
        """Take a place, and return 0; where there is none, return the seconds until there is."""
        now = self._clock()
        while self._times and now - self._times[0] >= 60:
            self._times.popleft()
        if len(self._times) >= self._most:
            return 60 - (now - self._times[0])
        self._times.append(now)
        return 0.0


class _Refused(Exception):
    """A request that is answered by the guard itself."""

    def __init__(self, status: int, message: str, code: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


class Guard:
    """An ASGI middleware around the whole application.

    Args:
        app: The application.
        limits: What is accepted.
        token: What writers must send (``Authorization: Bearer TOKEN``, or the studio's cookie).
        observer: Notes each answer.
        version: Returns the ledger's version, for the header of answers that set none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        token: str,
        observer: Observer,
        version: Callable[[], int],
    ) -> None:
        self.app, self.limits, self.observer, self.version = app, limits, observer, version
        self._token = token.encode()
        self._pace = Pace(limits.edits_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                if all(name.lower() != VERSION_HEADER for name, _ in headers):
                    headers.append((VERSION_HEADER, str(self.version()).encode()))
                headers += [(b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            self._admit(scope)
            body = await self._body(scope, receive)
            await self.app(scope, _given(body, receive), noted)
        except _Refused as refused:
            await _refuse(refused, noted)
        finally:
            route = getattr(scope.get("route"), "path", None) or OUTSIDE
            seconds = time.perf_counter() - started
            more = scope.get("state", {}).get("noted", {})
            self.observer.answered(route, scope["method"], status, seconds, **more)

    def _admit(self, scope: Scope) -> None:
        """Refuse writers without the token, and those that come too fast."""
        path, method = scope["path"], scope["method"]
        if method in ("GET", "HEAD", "OPTIONS") or not path.startswith(GUARDED):
            return
        if not hmac.compare_digest(_token_of(scope), self._token):
            raise _Refused(
                401,
                "no valid token, expected the header Authorization: Bearer TOKEN with the token "
                "of --token_file (or the one that the server printed at its start)",
                "invalid_token",
                **{"WWW-Authenticate": "Bearer"},
            )
        if seconds := self._pace.wait():
            raise _Refused(
                429,
                f"more than {self.limits.edits_per_minute} changes in a minute: try again in "
                f"{seconds:.0f} s",
                "too_many_edits",
                **{"Retry-After": str(int(seconds) + 1)},
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Read a body, of a size and in a time that are accepted."""
        most = self.limits.body_bytes
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if not said.isdigit() or int(said) > most:
            raise _too_large(most)
        parts: list[bytes] = []
        ends = time.monotonic() + self.limits.body_seconds
        while True:
            try:
                message = await asyncio.wait_for(receive(), max(ends - time.monotonic(), 0.01))
            except asyncio.TimeoutError:
                raise _Refused(
                    408, f"the body did not arrive in {self.limits.body_seconds:g} s", "timeout"
                ) from None
            if message["type"] != "http.request":
                return b"".join(parts)
            parts.append(message.get("body", b""))
            if sum(map(len, parts)) > most:
                raise _too_large(most)
            if not message.get("more_body"):
                return b"".join(parts)


def _too_large(most: int) -> _Refused:
    return _Refused(413, f"the body is longer than {most:,} bytes: send less at once", "too_large")


def _token_of(scope: Scope) -> bytes:
    headers = dict(scope["headers"])
    kind, _, token = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"bearer":
        return token.strip()
    for part in headers.get(b"cookie", b"").split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == COOKIE.encode():
            return value
    return b""


def _given(body: bytes, receive: Receive) -> Receive:
    """Give the application a body that was read, then whatever comes (the client leaves)."""
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


async def _refuse(refused: _Refused, send: Send) -> None:
    body = json.dumps(error_body(str(refused), refused.code)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode()) for name, value in refused.headers.items()),
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
