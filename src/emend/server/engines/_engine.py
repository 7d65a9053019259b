"""What an engine is to the server: it prepares a release of the edits, and answers requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from emend.errors import EndpointFailure, InvalidInput
from emend.patches import Patch, WeightPatch


class Unreachable(EndpointFailure):
    """An engine outside this process does not answer, or takes no requests now."""


@dataclass(frozen=True)
class Release:
    """The edits of a ledger at one version, built.

    Attributes:
        patch: The patch; empty where no edit is active.
        hash: Of the patch's content.
    """

    patch: Patch
    hash: str


def weights_of(release: Release) -> WeightPatch:
    """Return a release's patch, which must be one of weights.

    Raises:
        InvalidInput: It is a memory, which no engine here serves.
    """
    if isinstance(release.patch, WeightPatch):
        return release.patch
    raise InvalidInput(
        f"the method {release.patch.method!r} makes a memory, expected a change of weights to "
        "serve: name another method (`emend methods`)"
    )


@dataclass(frozen=True)
class Served:
    """A model that requests can name; a request uses the one that it began with to its end.

    Attributes:
        name: As requests name it.
        parent: The name of the model that it is an edit of; None for the base.
        version: Of the ledger that it answers by.
        hash: Of its patch; "" for the base.
        handle: What the engine answers by.
    """

    name: str
    parent: str | None
    version: int
    hash: str
    handle: Any


class Engine(Protocol):
    """An engine behind the OpenAI-compatible interface.

    Bodies and answers are those of OpenAI's interface as JSON-able data; `kind` is "completions"
    or "chat". Methods that are not async may be slow and are called from the editing thread.
    """

    name: str
    """Of the engine, as --engine names it."""

    def base(self) -> Any:
        """Return the handle of the unedited model."""
        ...

    def prepare(self, name: str, release: Release) -> Any:
        """Make a handle that answers by a release, next to those there are.

        Raises:
            EmendError: The engine cannot; nothing has changed then.
        """
        ...

    def discard(self, handle: Any) -> None:
        """Give up a handle, once requests that began with it have ended."""
        ...

    async def answer(self, handle: Any, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a request.

        Raises:
            InvalidInput: The engine cannot do what is asked for.
        """
        ...

    def stream(
        self, handle: Any, kind: str, body: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """Answer a request in chunks; raises as `answer`, before the first chunk."""
        ...

    @property
    def load(self) -> int:
        """How many texts wait or are under way."""
        ...

    def close(self) -> None:
        """Finish what was begun, and end."""
        ...
