"""What is free, and what a run will take."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import TEXT, tiny_model

from emend import methods
from emend.editing import memory
from emend.editing.memory import (
    available,
    check_fits,
    estimate_covariance,
    estimate_edit,
    readable,
)
from emend.edits import Edit
from emend.errors import NotEnoughMemory
from emend.models import ModelView


def test_some_memory_is_free_and_not_more_than_there_is() -> None:
    free = available()
    assert free is not None
    assert 1e6 < free < 1e14
    assert available("meta") is None


def test_a_control_group_can_leave_less(tmp_path) -> None:
    assert memory._free_of_group(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert memory._free_of_group(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._free_of_group(tmp_path) is None


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    check_fits(1, "an edit", "wait")
    with pytest.raises(
        NotEnoughMemory, match=r"an edit will take .* free on cpu: take fewer"
    ) as one:
        check_fits(1 << 60, "an edit", "take fewer edits")
    assert isinstance(one.value, MemoryError)
    assert "\n" not in str(one.value)


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (12, "12 bytes"),
        (1234, "1.2 kB"),
        (512e6, "512 MB"),
        (3.21e9, "3.2 GB"),
        (5e15, "5000.0 TB"),
    ],
)
def test_sizes_are_readable(count, said) -> None:
    assert readable(count) == said


def test_estimate_of_second_moments() -> None:
    view = ModelView(tiny_model("gpt2")[0])  # inner 64
    found = estimate_covariance(view, [0, 1, 2], torch.float64, tokens=1024)
    assert found.sums == 3 * 64 * 64 * 8
    assert found.disk == 2 * found.sums
    assert found.memory > found.sums + 1024 * 64 * 4


def test_estimate_of_an_edit_grows_with_what_it_depends_on() -> None:
    view = ModelView(tiny_model("gpt2", layers=6)[0])
    few, many = (estimate_edit(view, edits, 6, [1, 2, 3]) for edits in (10, 10_000))
    assert many.memory > few.memory
    assert many.changes == 3 * 64 * 32 * 8  # no more than dense changes
    assert few.changes == 3 * 10 * (64 + 32) * 4
    longer = estimate_edit(view, 10, 20, [1, 2, 3])
    assert longer.search == estimate_edit(view, 5, 20, [1, 2, 3]).search  # optimised in parts
    assert few.metric == 64 * 64 * 20


@pytest.mark.parametrize("method", ["rome", "emmet", "memit", "pmet", "alphaedit"])
def test_an_edit_that_will_not_fit_is_refused_before_any_work(method, monkeypatch) -> None:
    model, tokenizer = tiny_model("gpt2")
    edits = [Edit("{} was born in", "Marie Curie", "Paris")]
    calls: list[int] = []
    view = ModelView(model)
    # What is asked of the model to see its structure is small; contexts and searches come later.
    probe = model.register_forward_hook(lambda *_: calls.append(1))
    ModelView(model)
    looked = len(calls)
    calls.clear()
    monkeypatch.setattr(memory, "available", lambda device="cpu": 1000)
    with pytest.raises(NotEnoughMemory, match=r"the edit will take .* free on cpu: give fewer"):
        methods.registry().get(method).edit(model, tokenizer, edits, texts=TEXT)
    probe.remove()
    assert len(calls) <= looked + 1
    monkeypatch.setattr(memory, "available", lambda device="cpu": None)
    memory.check_edit(view, tokenizer, edits, 6, [1])
