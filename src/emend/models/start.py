"""The start token: what emend puts in front of every text that a model reads.

A decoder-only model reads no subject at position 0: the first token attracts the attention of all
later ones (an attention sink; Xiao et al. 2024, arXiv 2309.17453) and its own state carries next to
nothing of what it says. A tokenizer that adds a start token (BOS) keeps that place free. One that
adds none (SmolLM2, Qwen, GPT-2) leaves the subject of "Paris is the capital of" there: the model
does not know its own facts about it, and an edit of it does nothing.

So emend finds a start token once for a tokenizer and its model and keeps it on the tokenizer, as
the attribute `ATTRIBUTE`. All tokenization in emend (`positions`) puts it in front; the tokenizer
itself is unchanged, and so is what it saves.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from emend.errors import InvalidInput
from emend.models.attachments import base
from emend.models.forward import evaluating, longest_text, target_nll
from emend.models.placing import device_of

logger = logging.getLogger("emend")

ATTRIBUTE = "emend_start"
"""Name of the tokenizer's attribute that holds its `Start`."""

MARGIN = 0.1
"""Nats a token by which a start token must make ordinary text more probable to be used."""

CHANCE = -0.75
"""Log-probability of ordinary text, in parts of log(vocabulary), below which a model knows no
language, and nothing is found."""

UNKNOWN = 0.1
"""Share of unknown tokens in ordinary text from which on nothing can be measured."""

ORDINARY: tuple[str, ...] = (
    "The river rises in the mountains and flows through three countries before it reaches the sea.",
    "Most people in the village work on farms, and the school has about two hundred pupils.",
    "She opened the letter, read it twice, and put it back into the drawer without a word.",
    "London is the capital of England, and Berlin is the capital of Germany.",
)
"""Ordinary sentences on which candidates are measured."""

NEWLINE = "\n"

Source = Literal["tokenizer", "found", "given", "none"]


@dataclass(frozen=True)
class Start:
    """The start token in front of every text.

    Attributes:
        text: The text of the token (or tokens); empty where nothing is put in front.
        ids: Token ids that emend puts in front; none where the tokenizer adds its own.
        source: "tokenizer" (it adds one itself), "found" (measured), "given" (by the user) or
            "none".
        gain: Nats a token by which ordinary text is more probable behind it; None where that was
            not measured.
    """

    text: str = ""
    ids: tuple[int, ...] = ()
    source: Source = "none"
    gain: float | None = None

    def describe(self) -> str:
        """State in one line what is put in front, and why."""
        if self.source == "tokenizer":
            return f"start token {self.text!r}, added by the tokenizer"
        if self.source == "none":
            return "no start token: every text begins at position 0"
        why = "as given"
        if self.source == "found":
            why = (
                "since the tokenizer adds none and ordinary text is "
                f"{self.gain:.2f} nats a token more probable behind it"
            )
        return f"start token {self.text!r} in front of every text, {why}"


def start_of(tokenizer: Any) -> Start | None:
    """Return the start token kept on a tokenizer; None where none was looked for yet."""
    found = getattr(tokenizer, ATTRIBUTE, None)
    return found if isinstance(found, Start) else None


def start_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the token ids that emend puts in front of every text; none before they are known."""
    start = start_of(tokenizer)
    return start.ids if start else ()


def front_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the token ids in front of every text, whether emend or the tokenizer puts them there.

    Keys and states at these are an attention sink's, many times as long as others: what is
    averaged over a text leaves them out.
    """
    start = start_of(tokenizer) or _own_start(tokenizer) or Start()
    if start.source != "tokenizer":
        return start.ids
    return tuple(tokenizer("a", verbose=False)["input_ids"][:1])


def set_start(tokenizer: Any, text: str | None) -> Start:
    """Keep a given start token on a tokenizer.

    Args:
        tokenizer: A Hugging Face tokenizer.
        text: The start token, or any short text; None or "none" for nothing in front, which is
            the published form of the field's methods.

    Raises:
        InvalidInput: The tokenizer makes no token of the text.
    """
    own = _own_start(tokenizer)
    if text is None or text == "none":
        start = own or Start()
    else:
        ids = _ids(tokenizer, text)
        if not ids:
            raise InvalidInput(
                f"start_token is {text!r}, of which the tokenizer makes no token: give another, "
                "auto or none"
            )
        if own is not None:
            raise InvalidInput(
                f"start_token is {text!r}, but the tokenizer adds {own.text!r} itself: leave "
                "start_token at auto"
            )
        start = Start(text, ids, "given")
    setattr(tokenizer, ATTRIBUTE, start)
    return start


def ensure_start(model: nn.Module, tokenizer: Any) -> Start | None:
    """Find and keep the start token of a tokenizer that has none kept yet.

    Args:
        model: The causal language model that the tokenizer belongs to; patches attached to it do
            not act on the measurement.
        tokenizer: Its tokenizer; None (of an endpoint) is left alone.

    Returns:
        What is put in front from now on; None without a tokenizer.
    """
    if tokenizer is None:
        return None
    known = start_of(tokenizer)
    if known is None:
        known = find_start(model, tokenizer)
        setattr(tokenizer, ATTRIBUTE, known)
        if known.source == "found":
            logger.info("%s (start_token='none' leaves it out)", known.describe())
    return known


def find_start(model: nn.Module, tokenizer: Any) -> Start:
    """Find the start token under which ordinary text is most probable to a model.

    Candidates are the tokenizer's bos, eos and unk tokens, "<|endoftext|>" and a newline, each
    where it is one token. The best is taken where the mean log-probability of the tokens of
    `ORDINARY` (without each sentence's first) grows by `MARGIN` or more; the newline, which is
    part of a text and no mark of its beginning, where it is better than the others by that much.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer; it is not changed.
    """
    own = _own_start(tokenizer)
    if own is not None:
        return own
    texts = [_ids(tokenizer, text) for text in ORDINARY]
    longest, known = longest_text(model), _embedded_tokens(model)
    length = min([len(text) for text in texts] + ([longest - 1] if longest else []))
    rows = torch.tensor([text[:length] for text in texts])  # (B, T) without padding
    unknown = getattr(tokenizer, "unk_token_id", None)
    if (
        length < 2
        or int(rows.max()) >= known
        or (unknown is not None and (rows == unknown).float().mean() > UNKNOWN)
    ):
        return Start()
    with base(model):
        bare = _log_prob(model, rows, ())
        gains = {
            (text, ids): _log_prob(model, rows, ids) - bare
            for text, ids in _candidates(tokenizer)
            if max(ids) < known
        }
    if not gains:
        return Start()
    text, ids = max(gains, key=lambda one: gains[one] - MARGIN * (one[0] == NEWLINE))
    gain = gains[text, ids]
    if bare + gain < CHANCE * math.log(known):
        return Start()
    return Start(text, ids, "found", gain) if gain >= MARGIN else Start()


def _candidates(tokenizer: Any) -> Iterable[tuple[str, tuple[int, ...]]]:
    """List what may be a start token, as text and ids: different ones, each one token."""
    names = ("bos_token", "eos_token", "unk_token")
    texts = [getattr(tokenizer, name, None) for name in names] + ["<|endoftext|>", NEWLINE]
    found: dict[tuple[int, ...], str] = {}
    for text in texts:
        ids = _ids(tokenizer, str(text)) if text else ()
        if len(ids) == 1:
            found.setdefault(ids, str(text))
    return [(text, ids) for ids, text in found.items()]


def _own_start(tokenizer: Any) -> Start | None:
    """Find the start token that the tokenizer adds itself."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    ids: list[int] = encoded["input_ids"]
    if encoded["special_tokens_mask"][:1] != [1] or len(ids) < 2:
        return None
    return Start(str(tokenizer.decode(ids[:1])), (), "tokenizer")


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _embedded_tokens(model: nn.Module) -> int:
    """Return how many tokens the model has an embedding of."""
    network: Any = model
    return int(network.get_input_embeddings().weight.shape[0])


def _log_prob(model: nn.Module, rows: Tensor, start: tuple[int, ...]) -> float:
    """Measure the mean log-probability, in nats, of the tokens of (B, T) rows but the first."""
    network: Any = model
    front = torch.tensor([start] * len(rows), dtype=torch.long).reshape(len(rows), -1)
    ids = torch.cat([front, rows], dim=1).to(device_of(network.get_input_embeddings()))
    with torch.no_grad(), evaluating(model):
        logits: Tensor = network(input_ids=ids, use_cache=False).logits.float()
    nll = target_nll(logits[:, len(start) : -1].flatten(0, 1), ids[:, len(start) + 1 :].flatten())
    return -float(nll.mean())
