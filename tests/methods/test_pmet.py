from __future__ import annotations

from tests.methods.closed_form import COMMON, difference, edited, tiny_model


def test_is_not_memit() -> None:
    model, tokenizer = tiny_model("gpt2")
    pmet = edited("pmet", model, tokenizer, **COMMON)
    memit = edited("memit", model, tokenizer, **COMMON)
    assert difference(pmet, memit) > 0.1
