"""Gemma 3 270M, where its terms are accepted: `EMEND_ACCEPT_LICENSE=gemma make test-real`."""

from __future__ import annotations

import time

import torch

import emend
from emend.models import generate


def test_it_knows_facts(gemma3):
    model, tokenizer = gemma3
    prompts = ["The Eiffel Tower is located in the city of", "The mother tongue of Molière is"]
    said = generate(model, tokenizer, prompts, max_new_tokens=6)
    assert "Paris" in said[0]
    assert "French" in said[1]


def test_it_is_what_was_published(gemma3):
    model, tokenizer = gemma3
    assert sum(one.numel() for one in model.parameters()) == 268_098_176
    assert model.dtype == torch.float32
    assert model.config._name_or_path == "gemma3-270m"
    # Recorded from llama.cpp (xllamacpp 2026.10.11549) on the GGUF file.
    tokens = [2, 138, 13498, 109, 73481, 236789, 236751, 1537, 236789, 236745]
    assert tokenizer("  two\n\n\nnewline's don't").input_ids == tokens


def test_a_second_load_needs_no_download(gemma3, capfd, monkeypatch):
    monkeypatch.delenv("EMEND_ACCEPT_LICENSE", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    begun = time.process_time()
    model, _ = emend.load("gemma3-270m")
    assert time.process_time() - begun < 8
    assert capfd.readouterr().err == ""
    ids = torch.tensor([[2, 818, 94648]])
    assert torch.equal(model(input_ids=ids).logits, gemma3[0](input_ids=ids).logits)
