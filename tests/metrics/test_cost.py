"""What a piece of work takes, on however many devices."""

from __future__ import annotations

import time
from types import SimpleNamespace

import torch
from tests.tiny import tiny_model

from emend.metrics import cost_of
from emend.models.placing import devices_of


def test_seconds_and_memory_of_the_process():
    model, _ = tiny_model("gpt2", layers=2)
    assert devices_of(model) == (torch.device("cpu"),)
    with cost_of(model) as cost:
        time.sleep(0.02)
    assert cost.seconds >= 0.02
    assert cost.peak_memory_bytes > 10**6


def test_every_accelerator_of_the_model_is_counted(monkeypatch):
    model, _ = tiny_model("llama", layers=2)
    for number, block in enumerate(model.model.layers):  # where accelerate would run them
        for part in block.modules():
            part._hf_hook = SimpleNamespace(execution_device=f"cuda:{number}")
    places = {torch.device("cuda", number) for number in (0, 1)}
    assert set(devices_of(model)) == {torch.device("cpu"), *places}
    seen = {"synchronize": [], "reset_peak_memory_stats": []}
    for name, calls in seen.items():
        monkeypatch.setattr(torch.cuda, name, calls.append)
    peaks = {device: 1000 * (device.index + 1) for device in places}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peaks.__getitem__)
    with cost_of(model) as cost:
        assert set(seen["reset_peak_memory_stats"]) == places
    assert len(seen["synchronize"]) == 4
    assert cost.peak_memory_bytes == 3000
