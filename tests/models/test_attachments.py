"""What hangs on a model is seen by score and generate, and by nothing inside `base`."""

from __future__ import annotations

import copy

import pytest
from tests.tiny import tiny_model

from emend.errors import InvalidInput
from emend.models import Attachment, acting, attach, attachments, base, detach, generate, score


class Prefix(Attachment):
    """A prompt patch that puts a text before each prompt."""

    def __init__(self, text):
        super().__init__("prefix")
        self.text = text

    def prepare(self, prompts, tokenizer):
        assert tokenizer("Anna")["input_ids"]
        assert len(set(prompts)) == len(prompts)
        return [self.text + prompt for prompt in prompts]


def test_prompts_pass_through_in_order():
    model, tokenizer = tiny_model("gpt2", layers=2)
    prompts, targets = ["Anna Berg", "Lyon is in"], ["Tom", "France"]
    plain = score(model, tokenizer, prompts, targets)
    expected = score(model, tokenizer, [f"two one {one}" for one in prompts], targets)
    written = generate(model, tokenizer, [f"two one {one}" for one in prompts])
    first, second = Prefix("one "), Prefix("two ")
    attach(model, first)
    attach(model, second)
    assert attachments(model) == (first, second)
    assert score(model, tokenizer, prompts, targets) == expected
    assert generate(model, tokenizer, prompts) == written
    with base(model) as same:
        assert same is model
        assert not first.active
        assert score(model, tokenizer, prompts, targets) == plain
    assert first.active
    assert score(model, tokenizer, prompts, targets) == expected
    detach(model, first)
    detach(model, second)
    assert attachments(model) == ()
    assert score(model, tokenizer, prompts, targets) == plain


def test_base_gives_back_after_an_error_and_when_nested():
    model, _ = tiny_model("gpt2", layers=1)
    one, other = Prefix("a"), Prefix("b")
    attach(model, one)

    def fail():
        with base(model), base(model):
            assert attachments(model) == ()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert attachments(model) == (one,)
    assert one.active
    with base(model):
        attach(model, other)
        assert attachments(model) == ()
        with acting(model, Prefix("c")):
            assert len(attachments(model)) == 1
    assert attachments(model) == (one, other)


def test_twice_or_never():
    model, _ = tiny_model("gpt2", layers=1)
    one = Prefix("a")
    attach(model, one)
    with pytest.raises(InvalidInput, match="already"):
        attach(model, one)
    detach(model, one)
    with pytest.raises(InvalidInput, match="not attached"):
        detach(model, one)


def test_a_model_keeps_its_own():
    first, _ = tiny_model("gpt2", layers=1)
    second = copy.deepcopy(first)
    attach(first, Prefix("a"))
    assert attachments(second) == ()
    assert "_emend_attachments" not in first.state_dict()
    detach(first, attachments(first)[0])
    assert not hasattr(first, "_emend_attachments")
