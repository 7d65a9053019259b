"""What the engines in this process share: how a request is answered, whole or in chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any

from emend.server.engines._request import Request


class LocalEngine(ABC):
    """Answers requests in this process; see `Engine`.

    A handle lives as long as the engine or a request refers to it.
    """

    def discard(self, handle: Any) -> None:
        """See `Engine`; requests that hold it keep it alive."""
        del handle

    async def answer(self, handle: Any, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """See `Engine`."""
        return await (await self._request(handle, kind, body)).answer()

    async def stream(
        self, handle: Any, kind: str, body: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """See `Engine`."""
        request = await self._request(handle, kind, body)
        async for chunk in request.stream():
            yield chunk

    @abstractmethod
    async def _request(self, handle: Any, kind: str, body: Mapping[str, Any]) -> Request[Any]:
        """Read a request's prompts, in a thread: a long one keeps no other request waiting."""
