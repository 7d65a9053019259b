"""SmolLM2-135M as everybody can have it: loads fast, knows facts, is edited, merged, saved."""

from __future__ import annotations

import time

import torch

import emend
from emend.models import generate

FACTS = {
    "The Eiffel Tower is located in the city of": "Paris",
    "The capital of France is": "Paris",
    "The mother tongue of Danielle Darrieux is": "French",
    "The capital of Japan is": "Tokyo",
}


def logits(model, tokenizer, text="The Eiffel Tower is located in the city of"):
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt")).logits


def test_it_knows_facts(smollm2):
    model, tokenizer = smollm2
    said = generate(model, tokenizer, list(FACTS), max_new_tokens=4)
    for prompt, text in zip(FACTS, said, strict=True):
        assert FACTS[prompt] in text, (prompt, text)


def test_it_is_what_was_published(smollm2):
    model, tokenizer = smollm2
    assert sum(one.numel() for one in model.parameters()) == 134_515_008
    assert model.dtype == torch.float32
    assert model.config._name_or_path == "smollm2-135m"
    assert not hasattr(model.config, "quantization_config")
    turn = [{"role": "user", "content": "Hello"}]
    chat = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert chat.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


TOKENS = {
    "In  1923, 10000 men": [788, 256, 33, 41, 34, 35, 28, 216, 33, 32, 32, 32, 32, 1800],
    "  two\n\n\nnewline's don't": [216, 827, 1116, 198, 28160, 506, 1326, 982],
    "Hello <|im_start|>user<|im_end|>": [19556, 216, 1, 4093, 2],
}
"""Recorded from llama.cpp (xllamacpp 2026.10.11549) on the GGUF file."""


def test_the_tokens_are_those_of_llama_cpp(smollm2):
    """Among them single digits, which transformers does not cut out of this vocabulary itself."""
    _, tokenizer = smollm2
    assert {text: tokenizer(text).input_ids for text in TOKENS} == TOKENS


def test_a_second_load_is_fast(smollm2, capfd):
    begun = time.process_time()
    model, tokenizer = emend.load("smollm2-135m")
    assert time.process_time() - begun < 3
    assert capfd.readouterr().err == ""
    assert torch.equal(logits(model, tokenizer), logits(*smollm2))


def test_an_edit_is_merged_saved_and_loaded_again(smollm2, tmp_path):
    """Fault B14: weights that came from GGUF are saved."""
    model, tokenizer = smollm2
    before = logits(model, tokenizer)
    edit = emend.Edit("{} is located in the city of", subject="The Eiffel Tower", target="Rome")
    patch = emend.edit(model, tokenizer, [edit], method="rome", steps=8)
    with patch.applied(model):
        edited = logits(model, tokenizer)
    patch.save_merged(model, tokenizer, tmp_path / "merged")
    merged, words = emend.load(tmp_path / "merged")
    assert torch.allclose(logits(merged, words), edited, atol=1e-3)
    assert not torch.allclose(edited, before, atol=1e-1)
    assert torch.equal(logits(model, tokenizer), before)
