"""What an engine in this process is given: a text to write, and who waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from emend.server.engines._prompts import Prompt
from emend.server.engines._sampling import TokenScore

Finish = Literal["stop", "length"]


class Awaited(Protocol):
    """What a request waits for."""

    error: BaseException | None

    @property
    def is_open(self) -> bool:
        """Whether it goes on."""
        ...


class Text:
    """A text that somebody waits for.

    Args:
        prompt: What it follows.
        tell: Called in the engine's thread after each new token, and where it fails.

    Attributes:
        prompt: Its token ids.
        after_space: Whether the space that the text begins with is in the prompt.
        scores: Of each new token, where asked for.
        new_tokens: How many were written.
        text: As far as the next tokens cannot change it.
        finish: Why it ended; None while it goes on.
        error: What it failed on.
        cancelled: Set by whoever does not wait any more.
    """

    def __init__(self, prompt: Prompt, tell: Callable[[], None]) -> None:
        self.prompt, self.after_space, self.tell = prompt.tokens, prompt.after_space, tell
        self.scores: list[TokenScore] = []
        self.new_tokens = 0
        self.text = ""
        self.finish: Finish | None = None
        self.error: BaseException | None = None
        self.cancelled = False

    @property
    def is_open(self) -> bool:
        """Whether it goes on."""
        return self.finish is None and self.error is None and not self.cancelled

    def fail(self, error: BaseException) -> None:
        """End it by an error."""
        self.error = error
        self.tell()
