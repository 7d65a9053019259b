"""Continuations agree with the plain greedy loop, at every batch size and padding side."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.tiny import ARCHITECTURES, tiny_model

from emend.errors import InvalidInput
from emend.models import chat_prompt, generate, has_chat_template, stream

PROMPTS = [
    "Marie Curie was born in",
    "The capital of France is",
    "北京 is the capital of",
    "Anna",
    "Anna Berg works for Nordlicht and plays the",
    "Question: where was Marie Curie born? Answer:",
]


def plain_continuation(model, tokenizer, prompt, count):
    """One text at a time, no cache: the oracle. Returns the text and the new ids."""
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    for _ in range(count):
        with torch.no_grad():
            chosen = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()
        if chosen == tokenizer.eos_token_id:
            break
        ids.append(chosen.item())
    before = tokenizer.decode(ids[:start], skip_special_tokens=True)
    return tokenizer.decode(ids, skip_special_tokens=True)[len(before) :], ids[start:]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_do_not_depend_on_batch_or_padding(architecture, side):
    model, tokenizer = tiny_model(
        architecture, layers=2, tokenizer="bytes" if side == "left" else "metaspace_bos"
    )
    tokenizer.padding_side = side
    expected = [plain_continuation(model, tokenizer, prompt, 6)[0] for prompt in PROMPTS]
    for batch_size in (1, 64):
        found = generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=batch_size)
        assert found == expected


def with_end(model, token):
    model.generation_config.eos_token_id = [token]


def test_stops_at_an_end_of_text_token():
    model, tokenizer = tiny_model("llama", layers=2)
    _, ids = plain_continuation(model, tokenizer, PROMPTS[1], 8)
    end = next(one for one in ids if one != ids[0])
    whole = generate(model, tokenizer, [PROMPTS[1]], max_new_tokens=8)[0]
    with_end(model, end)
    cut = generate(model, tokenizer, PROMPTS, max_new_tokens=8)[1]
    assert cut == tokenizer.decode(ids[: ids.index(end)])
    assert whole.startswith(cut)
    assert len(cut) < len(whole)


def test_stops_before_a_string():
    model, tokenizer = tiny_model("granite", layers=2)
    whole = generate(model, tokenizer, PROMPTS, max_new_tokens=12)
    stop = whole[0][3:6]
    for batch_size in (1, 64):
        cut = generate(
            model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=batch_size, stop=stop
        )
        assert cut == [text.split(stop)[0] for text in whole]
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=12, stop=["\x00none", stop]) == cut


def test_a_stop_string_saves_steps():
    model, tokenizer = tiny_model("gpt2", layers=2)
    text = generate(model, tokenizer, ["Anna"], max_new_tokens=16)[0]
    steps = []
    handle = model.register_forward_pre_hook(lambda module, taken: steps.append(1))
    generate(model, tokenizer, ["Anna"], max_new_tokens=16, stop=text[0])
    handle.remove()
    assert len(steps) < 16


def test_limits():
    model, tokenizer = tiny_model("gpt2", layers=2, positions=16)
    prompt = "one two three"
    room = 16 - len(tokenizer(prompt)["input_ids"]) + 1
    expected = plain_continuation(model, tokenizer, prompt, room)[0]
    found = generate(model, tokenizer, [prompt, "Anna"], max_new_tokens=99)
    assert found[0] == expected
    with pytest.raises(InvalidInput, match="reads 16"):
        generate(model, tokenizer, ["one two three " * 20])


def test_the_space_it_begins_with_is_kept():
    model, tokenizer = tiny_model("llama", layers=2, tokenizer="metaspace")
    word = tokenizer("France", add_special_tokens=False)["input_ids"]
    prompt, target = "The capital of", tokenizer.convert_ids_to_tokens(word)
    assert target[0].startswith("▁")
    forced = iter([*word, tokenizer.eos_token_id])

    def force(module, taken, given):
        logits = torch.zeros_like(given)
        logits[..., next(forced)] = 1
        return logits

    handle = model.lm_head.register_forward_hook(force)
    text = generate(model, tokenizer, [prompt], max_new_tokens=9)[0]
    handle.remove()
    assert text == " France"


def test_nothing_of_the_users_changes():
    model, tokenizer = tiny_model("gpt2", layers=2, resid_pdrop=0.5)
    expected = generate(model, tokenizer, PROMPTS)
    model.train()
    generation = model.generation_config.to_dict()
    config = model.config.to_dict()
    assert generate(model, tokenizer, PROMPTS) == expected
    assert all(module.training for module in model.modules())
    assert model.generation_config.to_dict() == generation
    assert model.config.to_dict() == config
    assert tokenizer.pad_token is None
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_bad_input():
    model, tokenizer = tiny_model("gpt2", layers=1)
    assert generate(model, tokenizer, []) == []
    with pytest.raises(InvalidInput, match="max_new_tokens"):
        generate(model, tokenizer, ["a"], max_new_tokens=0)
    with pytest.raises(InvalidInput, match="stop"):
        generate(model, tokenizer, ["a"], stop="")
    with pytest.raises(InvalidInput, match="prompt"):
        generate(model, tokenizer, [""])


def test_a_prompt_that_ends_with_a_space_is_read_without_it():
    """Fault B4: what is generated follows the tokens that an edit of this prompt is made with."""
    model, tokenizer = tiny_model("gpt2", layers=2)
    plain, spaced = generate(model, tokenizer, ["born in", "born in "], max_new_tokens=6)
    assert spaced == plain.lstrip(" ")


@pytest.mark.parametrize("kind", ["bytes", "bytes_bos", "metaspace_bos"])
@pytest.mark.parametrize("stop", [None, "an", ("\n", "e ", "q")])
def test_a_text_that_streams_only_grows_and_ends_as_generated(kind, stop):
    model, tokenizer = tiny_model("llama", layers=2, tokenizer=kind)
    for prompt in (*PROMPTS, "Anna Berg "):
        (whole,) = generate(model, tokenizer, [prompt], max_new_tokens=12, stop=stop)
        seen = list(stream(model, tokenizer, prompt, max_new_tokens=12, stop=stop))
        assert seen[-1] == whole
        assert all(later.startswith(sooner) for sooner, later in itertools.pairwise(seen))
        assert len(seen) > 1 or stop


def test_two_texts_stream_side_by_side_and_leave_gradients_on():
    model, tokenizer = tiny_model("llama", layers=2)
    texts = [stream(model, tokenizer, prompt, max_new_tokens=4) for prompt in PROMPTS[:2]]
    seen = [(next(texts[0]), next(texts[1])) for _ in range(4)]
    assert torch.is_grad_enabled()
    assert list(seen[-1]) == generate(model, tokenizer, PROMPTS[:2], max_new_tokens=4)
    with pytest.raises(InvalidInput, match="max_new_tokens"):
        next(stream(model, tokenizer, "a", max_new_tokens=0))


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[bot]"
)


@pytest.mark.parametrize("kind", ["bytes", "bytes_bos"])
def test_a_question_in_chat_has_one_start_token(kind):
    _, tokenizer = tiny_model("llama", layers=1, tokenizer=kind)
    assert not has_chat_template(tokenizer)
    with pytest.raises(InvalidInput, match="no chat template"):
        chat_prompt(tokenizer, "Who?")
    tokenizer.chat_template = TEMPLATE if kind == "bytes_bos" else TEMPLATE[15:]
    assert chat_prompt(tokenizer, "Who?") == "[user] Who?\n[bot]"
    tokenizer.chat_template = "{{ raise_exception('no users here') }}"
    with pytest.raises(InvalidInput, match="no users here"):
        chat_prompt(tokenizer, "Who?")
