from __future__ import annotations

import torch
from tests.tiny import tiny_model

from emend.editing import sample_templates


def test_templates_depend_on_the_seed_alone() -> None:
    model, tokenizer = tiny_model("llama")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = sample_templates(model, tokenizer, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert sample_templates(model, tokenizer, seed=3) == first
    assert sample_templates(model, tokenizer, seed=4) != first


def test_form_of_templates() -> None:
    model, tokenizer = tiny_model("gpt2", tokenizer="bytes_bos")
    templates = sample_templates(model, tokenizer)
    assert templates[0] == "{}"
    assert 1 < len(templates) <= 21
    for template in templates[1:]:
        assert template.endswith(". {}")
        assert template.count("{") == template.count("}") == 1
        assert template.isprintable()
        for special in tokenizer.all_special_tokens:
            assert special not in template
