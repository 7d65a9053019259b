"""A language model behind an OpenAI-compatible endpoint: it continues texts, and no more.

`load("openai:NAME", base_url="http://...")` gives one. `generate` asks it, `score` cannot: an
endpoint gives no probabilities of given texts. Every answer is written to a journal at once, where
one is named, and is not asked for again: a run that stopped in the middle goes on where it was. An
answer is known by the server's address, the interface and all of the request (`_identity`), so that
no server answers for another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Lock
from typing import Any

from torch import nn

from emend import _identity
from emend._io import append_json_line, read_kept_lines
from emend.errors import EndpointFailure, InvalidInput, MissingExtra, first_line

SCHEMES = {"openai": "completions", "openai-chat": "chat"}
"""The scheme before the model's name, and its interface."""
CHAT = "Continue the text exactly where it ends, in its layout. Write nothing but what follows."
_PASSING = (408, 409, 425, 429)
"""Client errors that may be gone at the next try."""
_FORM = (ValueError, KeyError, IndexError, TypeError, AttributeError)
"""What reading an answer that is not of the interface's form ends in."""


@dataclass(frozen=True)
class EndpointOptions:
    """How an endpoint is asked.

    Attributes:
        base_url: Its address; None for what the client takes from the environment.
        timeout: Seconds that one request may take.
        attempts: How often a request is tried, in all.
        longest_wait: Seconds between two tries, at most; an endpoint that asks for more fails.
        parallel: Requests that are under way at once.
    """

    base_url: str | None = None
    timeout: float = 60.0
    attempts: int = 5
    longest_wait: float = 60.0
    parallel: int = 4


class Endpoint(nn.Module):
    """A model behind an endpoint; it has no weights here.

    Args:
        name: With its scheme: "openai:NAME" (completions), "openai-chat:NAME".
        options: How it is asked.

    Raises:
        InvalidInput: The name has no scheme or nothing after it, or an option is out of range.
        MissingExtra: The `openai` client is not installed.
    """

    def __init__(self, name: str, options: EndpointOptions | None = None) -> None:
        super().__init__()
        scheme, _, self.served = name.partition(":")
        if scheme not in SCHEMES or not self.served:
            raise InvalidInput(
                f"endpoint model {name!r}, expected openai:NAME or openai-chat:NAME: name the model"
            )
        self.name = name
        self.options = options or EndpointOptions()
        if self.options.attempts < 1 or self.options.parallel < 1:
            raise InvalidInput("attempts and parallel are numbers from 1 on: raise them")
        self.chat = SCHEMES[scheme] == "chat"
        self._client = _client(self.options)
        self._journal: Journal | None = None
        self.pause: Callable[[float], None] = time.sleep

    def keep_answers(self, path: str | Path) -> None:
        """Write every answer to a file as it comes, and take from it what is there already."""
        self._journal = Journal(Path(path))

    def complete(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str]
    ) -> list[str]:
        """Continue each prompt greedily; equal prompts are asked once.

        Raises:
            EndpointFailure: It does not answer, or not in its own format. What it has answered
                until then is in the journal.
        """
        different = list(dict.fromkeys(prompts))
        with ThreadPoolExecutor(self.options.parallel) as pool:
            under_way = [pool.submit(self._one, p, max_new_tokens, stop) for p in different]
            try:
                wait(under_way, return_when=FIRST_EXCEPTION)
            finally:  # after an error, or ^C, nothing more is asked
                pool.shutdown(wait=False, cancel_futures=True)
        answers: dict[str, str] = {}
        for prompt, one in zip(different, under_way, strict=True):
            if not one.cancelled():
                answers[prompt] = one.result()
        return [answers[prompt] for prompt in prompts]

    def _one(self, prompt: str, max_new_tokens: int, stop: Sequence[str]) -> str:
        request = self._request(prompt, max_new_tokens, stop)
        key = self._key(request, stop)
        known = self._journal.get(key) if self._journal else None
        if known is not None:
            return known
        text = self._tried(lambda: self._ask(request))
        # Servers differ in whether a stop string is part of the text.
        cuts = [cut for one in stop if (cut := text.find(one)) >= 0]
        text = text[: min(cuts)] if cuts else text
        if self._journal:
            self._journal.add(key, prompt, text)
        return text

    def _request(self, prompt: str, max_new_tokens: int, stop: Sequence[str]) -> dict[str, Any]:
        """Build the body of a request."""
        options: dict[str, Any] = {"model": self.served, "temperature": 0}
        if stop:
            options["stop"] = list(stop)[:4]  # the interface takes no more
        if self.chat:
            messages = [{"role": "system", "content": CHAT}, {"role": "user", "content": prompt}]
            return {**options, "messages": messages, "max_completion_tokens": max_new_tokens}
        return {**options, "prompt": prompt, "max_tokens": max_new_tokens}

    def _key(self, request: dict[str, Any], stop: Sequence[str]) -> str:
        """Make the key of an answer: its server, and the whole request."""
        return _identity.key(
            "endpoint answer",
            address=str(self._client.base_url).rstrip("/"),
            interface="chat" if self.chat else "completions",
            request=request,
            stop=stop,
        )

    def _ask(self, request: dict[str, Any]) -> str:
        if self.chat:
            text: Any = self._client.chat.completions.create(**request).choices[0].message.content
        else:
            text = self._client.completions.create(**request).choices[0].text
        if not isinstance(text, str):
            raise TypeError(f"its answer holds {type(text).__name__}, expected text")
        return text

    def _tried(self, ask: Callable[[], str]) -> str:
        """Ask until there is an answer, at most so often as the options say."""
        reason = ""
        for attempt in range(self.options.attempts):
            try:
                return ask()
            except Exception as error:
                reason, asked_for = self._judged(error)
            if attempt + 1 < self.options.attempts:
                self.pause(self._patience(attempt, asked_for, reason))
        raise self._failure(f"{reason} ({self.options.attempts} attempts)")

    def _judged(self, error: Exception) -> tuple[str, float | None]:
        """Return why it failed and how long to wait; raise what waiting cannot fix."""
        import openai

        if isinstance(error, openai.APITimeoutError):
            return f"no answer within {self.options.timeout:g} s", None
        if isinstance(error, openai.APIConnectionError):
            return f"cannot be reached ({first_line(error.__cause__ or error)})", None
        if isinstance(error, openai.APIStatusError):
            reason = f"answers {error.status_code} ({first_line(error)})"
            if error.status_code < 500 and error.status_code not in _PASSING:
                raise self._failure(reason) from None
            return reason, _retry_after(error.response.headers)
        if isinstance(error, (*_FORM, openai.APIError)):
            return f"answers in no format of OpenAI's ({first_line(error)})", None
        raise error

    def _patience(self, attempt: int, asked_for: float | None, reason: str) -> float:
        if asked_for is None:
            return min(0.5 * 2**attempt, 8.0, self.options.longest_wait)
        if asked_for > self.options.longest_wait:
            raise self._failure(f"{reason}, and asks to wait {asked_for:g} s")
        return asked_for

    def _failure(self, reason: str) -> EndpointFailure:
        kept = f"; what it answered is in {self._journal.path}" if self._journal else ""
        return EndpointFailure(
            f"the endpoint {self._client.base_url} of {self.name} {reason}: "
            f"check it and call again{kept}"
        )


class Journal:
    """Answers in a file of JSON lines that only grows; a last line cut short is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._known: dict[str, str] = {}
        for entry in read_kept_lines(path):
            with suppress(KeyError, TypeError):  # another program's line
                self._known[entry["key"]] = entry["text"]
        path.parent.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> str | None:
        """Return the answer stored under a key."""
        return self._known.get(key)

    def add(self, key: str, prompt: str, text: str) -> None:
        """Keep an answer, in the file before this returns; the prompt is there for people."""
        entry = {"key": key, "prompt": prompt, "text": text}
        with self._lock:
            self._known[key] = text
            append_json_line(self.path, entry)


def is_endpoint(name: str) -> bool:
    """Return whether a model's name is an endpoint's."""
    return name.partition(":")[0] in SCHEMES and ":" in name


def _client(options: EndpointOptions) -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingExtra.of("openai", "openai", "ask an OpenAI-compatible endpoint") from error
    given: dict[str, Any] = {"timeout": options.timeout, "max_retries": 0}
    if options.base_url is not None:
        given["base_url"] = options.base_url
    try:
        return openai.OpenAI(**given)
    except openai.OpenAIError as error:
        if options.base_url is None:
            raise InvalidInput(
                f"the client of OpenAI cannot be made ({first_line(error)}): set OPENAI_API_KEY, "
                "or give base_url for a server of your own"
            ) from None
    # A server of one's own often asks for no key, but the client always sends one.
    return openai.OpenAI(api_key="none", **given)


def _retry_after(headers: Any) -> float | None:
    """Read the seconds that an endpoint asks to wait: a number, or a time of day to come again."""
    given = str(headers.get("retry-after", ""))
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None
