"""The lab's tokenizer: a unigram model in which every word of the lab is one token.

Spaces are kept as the usual meta symbol in front of a word, also before the first word of a text,
so that a name is the same token everywhere. Letters and bytes encode all other text.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

from emend.lab.language import template_words
from emend.lab.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
_PUNCTUATION = ".,:;?!\"'()-"


def vocabulary(world: World) -> list[str]:
    """Return the words of the lab, sorted: of the templates and of the world's names."""
    texts = [*template_words(), *world.name_words]
    words = {word for text in texts for word in re.findall(r"[A-Za-z]+", text)}
    return sorted(words)


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a world (no training: the vocabulary is known).

    Returns:
        A fast tokenizer without beginning-of-text token; `<|endoftext|>` ends and pads.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = vocabulary(world)
    pieces: list[tuple[str, float]] = [(END_OF_TEXT, 0.0), ("<unk>", -100.0)]
    pieces += [(f"▁{word}", -5.0) for word in words]
    pieces += [(character, -6.0) for character in "\n" + _PUNCTUATION + string.digits]
    pieces += [(character, -12.0) for character in "▁" + string.ascii_letters]
    pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    model = models.Unigram(pieces, unk_id=1, byte_fallback=True)  # pyright: ignore[reportCallIssue]
    tokenizer = Tokenizer(model)
    # A line begins with a word like any other: its first word gets the space too.
    tokenizer.normalizer = normalizers.Replace(Regex(r"\n(?=[^\n ])"), "\n ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="first", split=True),
            pre_tokenizers.Split(Regex(rf"[{re.escape(_PUNCTUATION)}\n\d]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.ByteFallback(),
            decoders.Metaspace(prepend_scheme="first"),
            decoders.Fuse(),
            decoders.Replace(Regex(r"\n "), "\n"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
