from __future__ import annotations

from tests.methods.closed_form import COMMON, EDITS, difference, tiny_model

from emend.methods import registry


def test_is_not_memit() -> None:
    model, tokenizer = tiny_model("gpt2")
    pmet = registry().get("pmet").edit(model, tokenizer, EDITS, **COMMON)
    memit = registry().get("memit").edit(model, tokenizer, EDITS, **COMMON)
    assert difference(pmet, memit) > 0.1
