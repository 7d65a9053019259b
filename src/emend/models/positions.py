"""From characters to tokens: where the subject ends, and where a target begins.

Positions come from the character offsets of the fast tokenizer in the full sentence, never from
counting the tokens of a prefix: merges across the boundary, a BOS token and multi-byte characters
all break the counting (spec S1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from emend._brief import brief
from emend.edits.joining import continuation, without_end_spaces
from emend.errors import InvalidInput, SubjectNotFound
from emend.models.start import start_ids

Span = tuple[int, int]

_NEUTRAL = ("\n", ".")


@brief
@dataclass(frozen=True)
class Encoded:
    """A padded batch of token ids.

    Attributes:
        input_ids: (B, T) int64.
        attention_mask: (B, T) int64, 1 at tokens and 0 at padding.
        lookup: (B,) int64, position of each subject's last token in its padded row; None where
            no spans were given.
    """

    input_ids: Tensor
    attention_mask: Tensor
    lookup: Tensor | None = None

    @property
    def position_ids(self) -> Tensor:
        """(B, T) int64, each token's position in its own text; 0 at padding on the left."""
        return (self.attention_mask.cumsum(-1) - 1).clamp(min=0)

    @property
    def lengths(self) -> Tensor:
        """(B,) int64, number of tokens in each row."""
        return self.attention_mask.sum(-1)

    def to(self, device: torch.device | str) -> Encoded:
        """Return the same batch on another device."""
        lookup = None if self.lookup is None else self.lookup.to(device)
        return Encoded(self.input_ids.to(device), self.attention_mask.to(device), lookup)


def encode(
    tokenizer: Any,
    texts: Sequence[str],
    spans: Sequence[Span] | None = None,
    padding_side: Literal["left", "right"] = "right",
    add_special_tokens: bool = True,
) -> Encoded:
    """Tokenize and pad texts; find the last token of each span.

    Args:
        tokenizer: a Hugging Face tokenizer; a fast one where spans are given. Its own padding
            side, padding token and truncation are neither used nor changed.
        texts: full sentences.
        spans: for each text, the (start, end) characters of its subject.
        padding_side: where the padding goes.
        add_special_tokens: whether the tokenizer adds its BOS and the like.

    Raises:
        InvalidInput: a text without tokens, or spans with a slow tokenizer.
        SubjectNotFound: no token overlaps a span.
    """
    if spans is not None and len(spans) != len(texts):
        raise InvalidInput(f"{len(spans)} spans for {len(texts)} texts; give one span a text")
    encodings = _tokenize(tokenizer, texts, add_special_tokens, offsets=spans is not None)
    rows: list[list[int]] = encodings["input_ids"]
    for text, row in zip(texts, rows, strict=True):
        if not row:
            raise InvalidInput(f"the tokenizer makes no tokens of {text!r}; give it some text")
    lookup = None
    if spans is not None:
        lookup = [
            _last_overlap(offsets, text, span)
            for offsets, text, span in zip(encodings["offset_mapping"], texts, spans, strict=True)
        ]
    return pad(rows, pad_id(tokenizer), padding_side, lookup)


def pad(
    rows: Sequence[Sequence[int]],
    padding: int = 0,
    side: Literal["left", "right"] = "right",
    lookup: Sequence[int] | None = None,
) -> Encoded:
    """Stack rows of token ids to one batch; `lookup` counts from each row's first token."""
    if side not in ("left", "right"):
        raise InvalidInput(f"padding_side is {side!r}; it must be 'left' or 'right'")
    longest = max(map(len, rows), default=0)
    input_ids = torch.full((len(rows), longest), padding, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    shifts = [longest - len(row) if side == "left" else 0 for row in rows]
    for index, (row, shift) in enumerate(zip(rows, shifts, strict=True)):
        input_ids[index, shift : shift + len(row)] = torch.tensor(row, dtype=torch.long)
        mask[index, shift : shift + len(row)] = 1
    if lookup is None:
        return Encoded(input_ids, mask)
    return Encoded(input_ids, mask, torch.tensor(lookup) + torch.tensor(shifts))


def pad_id(tokenizer: Any) -> int:
    """Return a token id to pad with; which one does not matter, since padding is masked."""
    for name in ("pad_token_id", "eos_token_id"):
        value = getattr(tokenizer, name, None)
        if isinstance(value, int):
            return value
    return 0


def subject_token(tokenizer: Any, text: str, span: Span, *, add_special_tokens: bool = True) -> int:
    """Find the last token that overlaps a span of characters, as an index in the unpadded text.

    Where a merge crosses the end of the span, the token that holds the span's last character is
    taken; of the several byte tokens of one character, the last.

    Raises:
        InvalidInput: a slow tokenizer, or a span outside the text.
        SubjectNotFound: no token overlaps the span.
    """
    encodings = _tokenize(tokenizer, [text], add_special_tokens, offsets=True)
    return _last_overlap(encodings["offset_mapping"][0], text, span)


def subject_tokens(tokenizer: Any, text: str, span: Span) -> tuple[int, int]:
    """Find the first and the last token that overlap a span; see `subject_token`."""
    offsets = _tokenize(tokenizer, [text], True, offsets=True)["offset_mapping"][0]
    first = last = _last_overlap(offsets, text, span)
    while first > 0 and offsets[first - 1][1] > span[0] and offsets[first - 1][0] < span[1]:
        first -= 1
    return first, last


def beyond_subjects(
    tokenizer: Any, texts: Sequence[str], spans: Sequence[Span]
) -> list[tuple[str, str]]:
    """Find subjects whose last token goes on beyond them.

    Returns:
        For each text that token's text and the part of it beyond the subject, "公司的" and "的" of
        "苹果公司的创始人是"; both "" where nothing, or white space alone, is beyond it.
    """
    encodings = _tokenize(tokenizer, texts, True, offsets=True)
    found: list[tuple[str, str]] = []
    for offsets, text, span in zip(encodings["offset_mapping"], texts, spans, strict=True):
        start, end = offsets[_last_overlap(offsets, text, span)]
        beyond = text[span[1] : end].strip()
        found.append((text[start:end].strip(), beyond) if beyond else ("", ""))
    return found


def _last_overlap(offsets: Sequence[Span], text: str, span: Span) -> int:
    start, end = span
    if not 0 <= start < end <= len(text):
        raise InvalidInput(
            f"span {start}..{end} of a text of {len(text)} characters; expected 0 <= start < end"
        )
    # A space at the end belongs to the next word's token.
    end = start + len(text[start:end].rstrip()) or end
    for index in range(len(offsets) - 1, -1, -1):
        first, last = offsets[index]
        if first < end and last > start and first < last:
            return index
    raise SubjectNotFound(
        f"the tokenizer makes no token of the subject {text[start:end]!r} in {text!r}; "
        "write the subject in characters that it knows"
    )


def join_target(tokenizer: Any, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """Tokenise a prompt and the target that follows it.

    The space between them is decided by `emend.edits.joining.continuation`; spaces at the end of
    the prompt go to the target. The prompt has the tokenizer's own special tokens, the target
    none.

    Raises:
        InvalidInput: an empty prompt or target, or one that the tokenizer makes no token of.
    """
    return join_targets(tokenizer, [prompt], [target])[0]


def join_targets(
    tokenizer: Any, prompts: Sequence[str], targets: Sequence[str]
) -> list[tuple[list[int], list[int]]]:
    """Tokenise many pairs at once like `join_target`."""
    if len(prompts) != len(targets):
        raise InvalidInput(f"{len(prompts)} prompts for {len(targets)} targets; give one each")
    special = tuple(getattr(tokenizer, "all_special_tokens", ()))
    pairs = [
        continuation(prompt, _checked(target), special)
        for prompt, target in zip(prompts, targets, strict=True)
    ]
    prompt_ids = prompt_tokens(tokenizer, [prompt for prompt, _ in pairs])
    if getattr(tokenizer, "is_fast", False):
        target_ids = _targets_in_place(tokenizer, pairs)
    else:
        target_ids = _tokenize(tokenizer, [target for _, target in pairs], False)["input_ids"]
    for (_, target), ids in zip(pairs, target_ids, strict=True):
        if not ids:
            raise InvalidInput(f"the tokenizer makes no token of the target {target!r}")
    return list(zip(prompt_ids, target_ids, strict=True))


def prompt_tokens(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Tokenise prompts to be continued: special tokens before the text, none after it.

    Spaces after a prompt's last word are left out, as before a target (`join_targets`): they are
    part of the word that follows.

    Raises:
        InvalidInput: a prompt without tokens.
    """
    prompts = [without_end_spaces(prompt) for prompt in prompts]
    plain = _tokenize(tokenizer, prompts, True, special_mask=True)
    rows: list[list[int]] = []
    for prompt, ids, special in zip(
        prompts, plain["input_ids"], plain["special_tokens_mask"], strict=True
    ):
        end = len(ids)
        while end > 1 and special[end - 1] and not all(special[:end]):
            end -= 1
        if not ids:
            raise InvalidInput(f"the tokenizer makes no token of the prompt {prompt!r}")
        rows.append(ids[:end])
    return rows


def text_tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokenise texts alone, with no special tokens.

    Raises:
        InvalidInput: A text without tokens.
    """
    rows: list[list[int]] = _tokenize(tokenizer, texts, False)["input_ids"]
    for text, row in zip(texts, rows, strict=True):
        if not row:
            raise InvalidInput(f"the tokenizer makes no tokens of {text!r}: give it some text")
    return rows


def _checked(target: str) -> str:
    if not target.strip():
        raise InvalidInput(f"the target is {target!r}; give it some text")
    return target


def _targets_in_place(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Tokenise targets in place after the prompt, or alone where a merge crosses the boundary.

    A target tokenized alone is wrong for tokenizers that put a space before every text
    (SentencePiece); in its place it is right for all. Where it needs no space before it, the
    place may be after another character that no merge joins it to.
    """
    found = _ids_after(tokenizer, pairs)
    for other in _NEUTRAL:
        crossed = [
            row
            for row, (_, target) in enumerate(pairs)
            if found[row] is None and not target[0].isspace()
        ]
        again = _ids_after(tokenizer, [(other, pairs[row][1]) for row in crossed])
        for row, ids in zip(crossed, again, strict=True):
            found[row] = ids
    alone = _tokenize(tokenizer, [target for _, target in pairs], False)["input_ids"]
    return [ids if ids is not None else rest for ids, rest in zip(found, alone, strict=True)]


def _ids_after(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[list[int] | None]:
    """Tokenise the second text after the first; None where a token holds parts of both."""
    joined = _tokenize(tokenizer, ["".join(pair) for pair in pairs], False, True)
    rows: list[list[int] | None] = []
    for (before, _), ids, offsets in zip(
        pairs, joined["input_ids"], joined["offset_mapping"], strict=True
    ):
        first = [index for index, (start, _) in enumerate(offsets) if start < len(before)]
        last = first[-1] if first else -1
        clean = last < 0 or offsets[last][1] <= len(before)
        rows.append(ids[last + 1 :] if clean else None)
    return rows


def _tokenize(
    tokenizer: Any,
    texts: Sequence[str],
    add_special_tokens: bool,
    offsets: bool = False,
    special_mask: bool = False,
) -> Any:
    if offsets and not getattr(tokenizer, "is_fast", False):
        raise InvalidInput(
            f"{type(tokenizer).__name__} is a slow tokenizer without character offsets; "
            "load a fast one (AutoTokenizer.from_pretrained(..., use_fast=True))"
        )
    if not texts:  # transformers fails on an empty batch
        return {"input_ids": [], "offset_mapping": [], "special_tokens_mask": []}
    encodings: Any = tokenizer(
        list(texts),
        add_special_tokens=add_special_tokens,
        padding=False,
        truncation=False,
        return_offsets_mapping=offsets,
        return_special_tokens_mask=special_mask,
        return_attention_mask=False,
        verbose=False,
    )
    if add_special_tokens and (start := start_ids(tokenizer)):
        _put_in_front(start, encodings, set(tokenizer.all_special_ids))
    return encodings


def _put_in_front(start: Sequence[int], encodings: Any, special: set[int]) -> None:
    """Put the start token in front of each row that does not begin with a special token itself."""
    fillers = {"offset_mapping": (0, 0), "special_tokens_mask": 1}
    begun = [bool(row) and row[0] not in special for row in encodings["input_ids"]]
    for name in encodings:
        front = [fillers[name]] * len(start) if name in fillers else [*start]
        rows = zip(encodings[name], begun, strict=True)
        encodings[name] = [[*front, *row] if in_front else row for row, in_front in rows]
