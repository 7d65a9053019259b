"""Bodies of requests: what may be in them, and within which limits."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator
from typing_extensions import Self

Tokens = Annotated[list[StrictInt], Field(min_length=1)]
Stop = (
    Annotated[str, Field(min_length=1)]
    | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=16)]
)
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[StrictInt, Field(ge=1, le=16)]
Limit = Annotated[StrictInt, Field(ge=1, le=8192)]
Seed = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Nothing = Annotated[float, Field(ge=0, le=0)]
Word = Annotated[str, Field(max_length=200)]


class Body(BaseModel):
    """A body with no fields but those that are declared: what would be ignored is refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, data: Any) -> Any:
        _check_texts(data)
        return data

    def given(self) -> dict[str, Any]:
        """Return the fields that were given."""
        return self.model_dump(exclude_unset=True)


def _check_texts(data: Any) -> None:
    """Refuse what JSON can hold and nobody can write: half a surrogate pair, NaN, infinity."""
    if isinstance(data, str):
        try:
            data.encode()
        except UnicodeEncodeError:
            raise ValueError("a text has half of a surrogate pair, expected Unicode") from None
    elif isinstance(data, float) and not math.isfinite(data):
        raise ValueError(f"found {data}, expected a finite number")
    elif isinstance(data, dict):
        for name, value in data.items():  # pyright: ignore[reportUnknownVariableType]
            _check_texts(name)
            _check_texts(value)
    elif isinstance(data, list):
        for value in data:  # pyright: ignore[reportUnknownVariableType]
            _check_texts(value)


class StreamOptions(Body):
    """How a stream ends."""

    include_usage: StrictBool = False


class _Generation(Body):
    model: str
    temperature: Temperature | None = None
    top_p: TopP | None = None
    n: Count | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    # Only what changes nothing.
    presence_penalty: Nothing | None = None
    frequency_penalty: Nothing | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None


class Completion(_Generation):
    """A body of POST /v1/completions.

    `prompt` is a text, texts, token ids or lists of token ids. With `echo` the answer begins with
    the prompt, and with `logprobs` has the log-probability of each of its tokens.
    """

    prompt: (
        str
        | Tokens
        | Annotated[list[str], Field(min_length=1, max_length=256)]
        | Annotated[list[Tokens], Field(min_length=1, max_length=256)]
    )
    max_tokens: Annotated[StrictInt, Field(ge=0, le=8192)] | None = None
    logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None
    echo: StrictBool | None = None
    best_of: Literal[1] | None = None
    suffix: None = None

    @property
    def texts(self) -> int:
        """How many texts are asked for."""
        several = isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)
        return (len(self.prompt) if several else 1) * (self.n or 1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens is 0, expected at least 1 without echo")
        if self.echo and self.stream:
            raise ValueError("echo cannot be streamed: leave echo or stream out")
        return self


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Body):
    """A turn of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: Word | None = None

    @property
    def text(self) -> str:
        """What it says."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class Chat(_Generation):
    """A body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=512)]
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None

    @property
    def texts(self) -> int:
        """How many texts are asked for."""
        return self.n or 1

    def given(self) -> dict[str, Any]:
        """Return the fields that were given, with messages of plain text."""
        turns = [{"role": one.role, "content": one.text} for one in self.messages]
        return {**super().given(), "messages": turns}


class Tokenize(Body):
    """A body of POST /tokenize."""

    prompt: str
    add_special_tokens: StrictBool = True


class Probes(Body):
    """How an edit is measured."""

    probes: Literal["auto", "given", "none"] | None = None


class EditText(Probes):
    """A fact typed as a sentence, or an edit in fields.

    `statement` is a sentence and what the model is to generate after it,
    ``"{Paris} is the capital of" -> "Italy"``; braces mark the subject, which is found where none
    is marked. `edit` is an edit as files hold it: prompt, subject, target, probes, translations.
    """

    statement: Annotated[str, Field(max_length=4000)] | None = None
    edit: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.statement is None) == (self.edit is None):
            raise ValueError("expected either statement or edit")
        return self


class NewEdit(EditText):
    """A body of POST /v1/edits."""

    author: Word = ""
    reason: Annotated[str, Field(max_length=2000)] = ""
    source: Word = ""
    tags: Annotated[list[Word], Field(max_length=32)] = []
    supersede: StrictBool = False
    keep_failed: StrictBool = False
