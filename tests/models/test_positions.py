"""The subject's last token and the target's first, whatever the tokenizer does."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_tokenizer
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from emend.errors import InvalidInput, SubjectNotFound
from emend.models import beyond_subjects, encode, join_target, subject_token
from emend.models.positions import prompt_tokens

KINDS = ("bytes", "bytes_bos", "metaspace", "metaspace_bos")
SENTENCES = (
    ("Marie Curie was born in", "Marie Curie"),
    ("The spouse of Anna Berg is", "Anna Berg"),
    ("the singer Beyoncé", "Beyoncé"),
    ("Beyoncé sang in Malmö, not in Zürich", "Malmö"),
    ("北京 is the capital of 中国", "北京"),
    ("北京 is the capital of 中国", "中国"),
    ("a 🙂 smile", "🙂"),
    ("Is Kraków? Yes.", "Kraków"),
)


def locate(text, subject):
    start = text.index(subject)
    return start, start + len(subject)


def token_text(tokenizer, text, index):
    """Characters under one token, by an encoding of our own."""
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    return offsets[index]


class Slow:
    is_fast = False

    def __call__(self, texts, **options):
        return {
            "input_ids": [[ord(one) for one in text] for text in texts],
            "special_tokens_mask": [[0] * len(text) for text in texts],
        }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("text", "subject"), SENTENCES)
def test_the_last_token_of_the_subject(kind, text, subject):
    tokenizer = tiny_tokenizer(kind)
    span = locate(text, subject)
    index = subject_token(tokenizer, text, span)
    start, end = token_text(tokenizer, text, index)
    assert start < span[1] <= end  # it holds the subject's last character
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert all(first >= span[1] or first == last for first, last in offsets[index + 1 :])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_lookup_in_a_padded_batch(kind, side):
    tokenizer = tiny_tokenizer(kind)
    tokenizer.padding_side = "right" if side == "left" else "left"  # not ours to use
    texts = [text for text, _ in SENTENCES]
    spans = [locate(*sentence) for sentence in SENTENCES]
    batch = encode(tokenizer, texts, spans, padding_side=side)
    for row, (text, span) in enumerate(zip(texts, spans, strict=True)):
        alone = tokenizer(text)["input_ids"]
        kept = batch.input_ids[row][batch.attention_mask[row].bool()].tolist()
        assert kept == alone
        position = batch.lookup[row].item()
        assert batch.attention_mask[row, position] == 1
        assert batch.position_ids[row, position] == subject_token(tokenizer, text, span)
        assert batch.input_ids[row, position] == alone[subject_token(tokenizer, text, span)]
    assert batch.attention_mask[:, -1 if side == "left" else 0].all()
    assert batch.lengths.tolist() == [len(tokenizer(text)["input_ids"]) for text in texts]
    assert tokenizer.padding_side != side


def test_a_subject_that_occurs_twice():
    tokenizer = tiny_tokenizer()
    text = "Anna Berg knows Anna Berg well"
    first = subject_token(tokenizer, text, (0, 9))
    second = subject_token(tokenizer, text, (16, 25))
    ids = tokenizer(text)["input_ids"]
    assert first < second
    assert ids[second] == ids[subject_token(tokenizer, text[:25], (16, 25))]


def test_a_merge_across_the_end_of_the_subject():
    tokenizer = tiny_tokenizer()
    text = "in Poland is"
    assert len(tokenizer(" Poland")["input_ids"]) == 1  # one token over the boundary below
    index = subject_token(tokenizer, text, (3, 6))  # "Pol"
    assert token_text(tokenizer, text, index) == (3, 9)


def test_all_bytes_of_the_last_character():
    tokenizer = tiny_tokenizer()
    text = "x 漢 y"  # not in the training text: three byte tokens
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    over = [index for index, (start, end) in enumerate(offsets) if start <= 2 < end]
    assert len(over) >= 2
    assert subject_token(tokenizer, text, (2, 3)) == over[-1]


def test_a_space_at_the_end_of_the_span_is_not_the_subject():
    tokenizer = tiny_tokenizer("bytes_bos")
    text = "Anna Berg was born"
    assert subject_token(tokenizer, text, (0, 10)) == subject_token(tokenizer, text, (0, 9))


def test_a_subject_without_tokens():
    from tokenizers import normalizers

    tokenizer = tiny_tokenizer("metaspace")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("Q", "")
    with pytest.raises(SubjectNotFound, match="'Q'") as refusal:
        subject_token(tokenizer, "is Q here", (3, 4))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("span", [(3, 3), (4, 2), (-1, 2), (0, 99)])
def test_bad_spans(span):
    with pytest.raises(InvalidInput, match="span"):
        subject_token(tiny_tokenizer(), "short text", span)


def test_a_slow_tokenizer_is_refused_where_offsets_are_needed():
    with pytest.raises(InvalidInput, match="fast"):
        encode(Slow(), ["abc"], [(0, 1)])
    assert encode(Slow(), ["abc", "d"]).input_ids.tolist() == [[97, 98, 99], [100, 0, 0]]


def test_bad_batches():
    tokenizer = tiny_tokenizer()
    with pytest.raises(InvalidInput, match="no tokens"):
        encode(tokenizer, ["fine", ""])
    with pytest.raises(InvalidInput, match="1 spans for 2 texts"):
        encode(tokenizer, ["a", "b"], [(0, 1)])
    with pytest.raises(InvalidInput, match="padding_side"):
        encode(tokenizer, ["a"], padding_side="both")


def test_special_tokens_can_be_left_out():
    tokenizer = tiny_tokenizer("bytes_bos")
    assert encode(tokenizer, ["Anna"]).input_ids[0, 0] == tokenizer.bos_token_id
    bare = encode(tokenizer, ["Anna"], [(0, 4)], add_special_tokens=False)
    assert bare.input_ids[0].tolist() == tokenizer("Anna", add_special_tokens=False)["input_ids"]
    assert bare.lookup.tolist() == [bare.input_ids.shape[1] - 1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["Warsaw", " Warsaw", "the capital of Poland", "中国"])
def test_the_target_in_its_place(kind, target):
    tokenizer = tiny_tokenizer(kind)
    prompt = "Marie Curie was born in"
    prompt_ids, target_ids = join_target(tokenizer, prompt, target)
    assert prompt_ids == tokenizer(prompt)["input_ids"]
    joined = tokenizer(f"{prompt} {target.strip()}")["input_ids"]
    assert tokenizer.decode(prompt_ids + target_ids) == tokenizer.decode(joined)
    if kind.startswith("bytes"):  # the convention of the reference implementations
        alone = tokenizer(f" {target.strip()}", add_special_tokens=False)["input_ids"]
        assert target_ids == alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("prompt", "target"),
    [
        ("法国的首都是", "巴黎"),
        ("北京 is the capital of 中", "国"),
        ("https://www.", "example.org"),
        ("the year 2024-", "05"),
        ('She said "', "Warsaw"),
    ],
)
def test_a_target_without_a_space_is_tokenized_without_one(kind, prompt, target):
    """Fault B4: also where the tokenizer puts a space before every text, or merges across."""
    tokenizer = tiny_tokenizer(kind)
    prompt_ids, target_ids = join_target(tokenizer, prompt, target)
    assert prompt_ids == tokenizer(prompt)["input_ids"]
    text = tokenizer.decode(prompt_ids + target_ids, skip_special_tokens=True)
    assert text == tokenizer.decode(
        tokenizer(prompt + target)["input_ids"], skip_special_tokens=True
    )


def test_no_space_is_put_after_a_special_token():
    """Fault B4."""
    tokenizer = tiny_tokenizer()
    prompt, target = join_target(tokenizer, "born where?<|endoftext|>", "Warsaw")
    assert tokenizer.decode(prompt + target) == "born where?<|endoftext|>Warsaw"


def test_a_prompt_is_read_alike_with_and_without_a_target():
    """Fault B4: what follows "born in " is generated from the tokens that the edit is made with."""
    tokenizer = tiny_tokenizer()
    assert prompt_tokens(tokenizer, ["born in "]) == [join_target(tokenizer, "born in ", "W")[0]]


def test_spaces_between_prompt_and_target():
    tokenizer = tiny_tokenizer()
    plain = join_target(tokenizer, "born in", "Warsaw")
    assert join_target(tokenizer, "born in ", "Warsaw") == plain
    assert join_target(tokenizer, "born in  ", " Warsaw") == plain
    prompt, target = join_target(tokenizer, "Answer:\n", "Warsaw")
    assert tokenizer.decode(prompt + target) == "Answer:\nWarsaw"


def test_a_closing_special_token_is_left_out_before_a_target():
    from tokenizers import processors

    tokenizer = tiny_tokenizer()
    end = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
    )
    assert tokenizer("born in")["input_ids"][-1] == end
    prompt, target = join_target(tokenizer, "born in", "Warsaw")
    assert end not in prompt + target
    assert prompt_tokens(tokenizer, ["born in<|endoftext|>"])[0][-1] == end  # the user's own stays


@pytest.mark.parametrize(("prompt", "target"), [("born in", ""), ("born in", "  "), ("", "Warsaw")])
def test_empty_prompt_or_target(prompt, target):
    with pytest.raises(InvalidInput):
        join_target(tiny_tokenizer(), prompt, target)


def test_encoded_moves():
    batch = encode(tiny_tokenizer(), ["Anna Berg"], [(0, 9)]).to("cpu")
    assert batch.input_ids.dtype == torch.int64
    assert batch.lookup is not None


def test_a_token_that_goes_on_beyond_a_subject_is_found():
    parts = ["苹", "果", "公", "司", "的", "是", " ", "苹果", "公司", "公司的"]
    vocabulary = {part: number for number, part in enumerate(parts)}
    merges = [("苹", "果"), ("公", "司"), ("公司", "的")]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE(vocabulary, merges)))
    texts, spans = (
        ["苹果公司的", "苹果公司是", "苹果公司 的", "是苹果公司"],
        [(0, 4)] * 3 + [(1, 5)],
    )
    found = beyond_subjects(tokenizer, texts, spans)
    assert found == [("公司的", "的"), ("", ""), ("", ""), ("", "")]
    assert subject_token(tokenizer, texts[0], spans[0]) == 1
