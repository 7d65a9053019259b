"""The start token (fault B1): found once, put in front of every text, left out on request."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.tiny import tiny_model, tiny_tokenizer

from emend.editing.texts import Texts
from emend.editing.token_batches import Layout, Position, batches_of
from emend.errors import InvalidInput
from emend.models import encode, ensure_start, join_target, set_start, start_of, subject_tokens
from emend.models.positions import prompt_tokens, text_tokens
from emend.models.start import CHANCE, MARGIN, Start, find_start, front_ids


def started(text: str = "<|endoftext|>", kind: str = "bytes"):
    tokenizer = copy.copy(tiny_tokenizer(kind))
    set_start(tokenizer, text)
    return tokenizer


def test_it_stands_in_front_of_prompts_and_moves_positions():
    bare, tokenizer = tiny_tokenizer(), started()
    end = bare.eos_token_id
    prompt, span = "Paris is the capital of", (0, 5)
    assert prompt_tokens(tokenizer, [prompt]) == [[end, *prompt_tokens(bare, [prompt])[0]]]
    expected = encode(bare, [prompt], [span]).lookup + 1
    assert encode(tokenizer, [prompt], [span]).lookup.tolist() == expected.tolist()
    first, last = subject_tokens(bare, prompt, span)
    assert subject_tokens(tokenizer, prompt, span) == (first + 1, last + 1)
    assert join_target(tokenizer, prompt, "Italy")[1] == join_target(bare, prompt, "Italy")[1]
    assert text_tokens(tokenizer, [prompt]) == text_tokens(bare, [prompt])


def test_a_text_that_begins_with_a_special_token_is_given_no_other():
    tokenizer = started("a")
    end = tokenizer.eos_token_id
    assert prompt_tokens(tokenizer, ["<|endoftext|>Paris"])[0][0] == end
    assert prompt_tokens(tokenizer, ["Paris"])[0][0] != end


def test_the_tokenizers_own_start_token_is_left_to_it():
    tokenizer = tiny_tokenizer("bytes_bos")
    own = find_start(tiny_model("llama")[0], tokenizer)
    assert own == Start("<s>", (), "tokenizer")
    assert front_ids(tokenizer) == (tokenizer.bos_token_id,)
    with pytest.raises(InvalidInput, match="adds '<s>' itself: leave start_token at auto"):
        set_start(tokenizer, "<|endoftext|>")


def test_a_model_that_knows_no_language_has_none():
    tokenizer = copy.copy(tiny_tokenizer())
    del tokenizer.emend_start
    start = ensure_start(tiny_model("gpt2")[0], tokenizer)
    assert start == Start() == start_of(tokenizer)
    assert start.describe() == "no start token: every text begins at position 0"


def test_a_start_token_without_tokens_is_refused():
    with pytest.raises(InvalidInput, match="start_token is ''"):
        set_start(copy.copy(tiny_tokenizer()), "")


class _Sink(torch.nn.Module):
    """A model that tells the next token of a text rightly wherever one token stands in front."""

    def __init__(self, vocabulary: int, sinks: dict[int, float]) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, 2)
        self.sinks = sinks
        self.config = None

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embedding

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False):
        right = torch.roll(input_ids, -1, dims=1)  # (B, T), each token's successor
        certain = torch.tensor([self.sinks.get(int(row[0]), 4.0) for row in input_ids])
        logits = torch.nn.functional.one_hot(right, len(self.embedding.weight)).float()

        class Output:
            pass

        output = Output()
        output.logits = logits * certain[:, None, None]
        return output


def found_by(sinks: dict[str, float]) -> Start:
    tokenizer = copy.copy(tiny_tokenizer())
    del tokenizer.emend_start
    ids = {tokenizer(text)["input_ids"][0]: value for text, value in sinks.items()}
    return find_start(_Sink(len(tokenizer), ids), tokenizer)


def test_the_token_under_which_ordinary_text_is_most_probable_is_found():
    assert MARGIN > 0 > CHANCE
    start = found_by({"<|endoftext|>": 9.0})
    assert (start.text, start.source) == ("<|endoftext|>", "found")
    assert start.gain is not None and start.gain > MARGIN
    assert "'<|endoftext|>' in front of every text" in start.describe()


def test_a_newline_is_taken_only_where_it_is_clearly_better():
    assert found_by({"<|endoftext|>": 9.0, "\n": 9.0}).text == "<|endoftext|>"
    assert found_by({"<|endoftext|>": 4.2, "\n": 9.0}).text == "\n"


def test_nothing_is_found_where_nothing_helps():
    assert found_by({}) == Start()


def test_keys_of_the_start_token_do_not_enter_the_covariance():
    tokenizer = started()
    end, text = tokenizer.eos_token_id, "the cat sat on the mat and the dog sat on the log"
    for packed in (True, False):
        position = Position()
        source = Texts([text, text], packed=packed)
        batches = list(batches_of(source, tokenizer, Layout(8, 2), position))
        for batch in batches:
            assert batch.real is not None
            real = batch.real.reshape(batch.input_ids.shape)
            assert not real[:, 0].any() and (batch.input_ids[:, 0] == end).all()
            assert int(real.sum()) == batch.tokens
        assert position.tokens == sum(batch.tokens for batch in batches)
