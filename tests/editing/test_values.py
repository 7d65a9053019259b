from __future__ import annotations

import pytest
import torch
from tests.reference import rome as reference
from tests.tiny import ARCHITECTURES, tiny_model

from emend.editing import SearchSettings, optimise_values, subject_keys
from emend.editing.jobs import TOKENS, chunks, make_jobs
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.models import ModelView

TEMPLATES = ("{}", "Yes, it is so. {}", "He said. {}")
EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris"),
    Edit("The mother tongue of {} is", "Tom", "French"),
    Edit("{}, the", "Anna Berg", "cello"),
    # Near its target: beyond all sliding windows there is no slope, and Adam follows noise.
    Edit("In the year of the great flood {} was in", "Tom Berg", "Lyon, Poland"),
    Edit("The capital of {}", "Poland", "is Rome"),
]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_values_are_those_of_the_plain_loop(architecture) -> None:
    # In float32 Adam magnifies how gradients round, which differs between processors.
    model, tokenizer = tiny_model(architecture, dtype=torch.float64, scale=2.0)
    view = ModelView(model)
    settings = SearchSettings(steps=5, learning_rate=0.1, stop_below=-1.0)
    found = optimise_values(view, tokenizer, EDITS, TEMPLATES, 1, settings)
    for edit, value in zip(EDITS, found, strict=True):
        rows = reference.build_rows(tokenizer, edit.prompt, edit.subject, edit.target, TEMPLATES)
        expected = reference.search_value(
            model, view.down_projection(1), rows, steps=5, learning_rate=0.1, stop_below=-1.0
        )
        assert value.losses == pytest.approx(expected.losses, rel=1e-6)
        assert relative(value.initial, expected.v_init) < 1e-6
        assert relative(value.target, expected.v_star) < 1e-6


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neo", "llama", "gemma2", "bloom"])
def test_batches_give_what_one_by_one_gives(architecture) -> None:
    model, tokenizer = tiny_model(architecture, dtype=torch.float64, scale=2.0)
    view = ModelView(model)

    def search(edits, stop_below):
        settings = SearchSettings(steps=10, learning_rate=0.1, stop_below=stop_below, chunk=8)
        return optimise_values(view, tokenizer, edits, TEMPLATES, 1, settings)

    # A bound that some edits reach and others do not, and not all at once.
    reached = sorted(min(value.losses) for value in search(EDITS, -1.0))
    together = search(EDITS, reached[2] + 1e-3)
    assert len({len(value.losses) for value in together}) > 1
    for edit, value in zip(EDITS, together, strict=True):
        (alone,) = search([edit], reached[2] + 1e-3)
        assert len(value.losses) == len(alone.losses)
        assert relative(value.target, alone.target) < 1e-4
        assert relative(value.keys, alone.keys) < 1e-6


def test_result_does_not_depend_on_order() -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    view = ModelView(model)
    forth = optimise_values(view, tokenizer, EDITS, TEMPLATES, 1, SearchSettings(steps=4, chunk=2))
    settings = SearchSettings(steps=4, chunk=3)
    back = optimise_values(view, tokenizer, EDITS[::-1], TEMPLATES, 1, settings)[::-1]
    for one, other in zip(forth, back, strict=True):
        assert relative(one.target, other.target) < 1e-5


def test_many_contexts_are_optimised_with_fewer_others() -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    few = make_jobs(view, tokenizer, EDITS, TEMPLATES)
    assert [len(part) for part in chunks(few, 5)] == [5]
    many = make_jobs(view, tokenizer, EDITS, [f"{n}. {{}}" for n in range(40)])
    parts = chunks(many, 5)
    assert len(parts) > 1
    for part in parts:
        run = sum(len(row.ids) - row.lookup for job in part for row in job.rows)
        assert run <= TOKENS or len(part) == 1
    assert sorted(job.name for part in parts for job in part) == sorted(job.name for job in many)


def test_optimised_one_by_one_a_value_is_the_same_to_the_last_bit() -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    settings = SearchSettings(steps=6, chunk=1)
    every = optimise_values(view, tokenizer, EDITS, TEMPLATES, 1, settings)
    some = optimise_values(view, tokenizer, EDITS[2:4][::-1], TEMPLATES, 1, settings)[::-1]
    assert all(torch.equal(a.target, b.target) for a, b in zip(every[2:4], some, strict=True))


def test_keys_are_those_of_the_search() -> None:
    model, tokenizer = tiny_model("qwen3")
    view = ModelView(model)
    sites = subject_keys(view, tokenizer, EDITS, TEMPLATES, [0, 1], batch_size=4)
    found = optimise_values(view, tokenizer, EDITS, TEMPLATES, 1, SearchSettings(steps=1))
    for index, value in enumerate(found):
        assert relative(sites[1].keys[index], value.keys) < 1e-5
        assert relative(sites[1].outputs[index], value.outputs) < 1e-5
    assert sites[0].keys.shape == (len(EDITS), len(TEMPLATES), view.intermediate_size(0))
    for index, edit in enumerate(EDITS):
        key, output = reference.key_at_subject(
            model,
            view.down_projection(0),
            tokenizer,
            TEMPLATES[1].format(edit.prompt),
            edit.subject,
        )
        assert relative(sites[0].keys[index, 1], key) < 1e-5
        assert relative(sites[0].outputs[index, 1], output) < 1e-5


def test_clamp_holds() -> None:
    model, tokenizer = tiny_model("llama")
    settings = SearchSettings(steps=6, clamp=0.5, stop_below=-1.0)
    (value,) = optimise_values(ModelView(model), tokenizer, EDITS[:1], TEMPLATES, 1, settings)
    assert float(value.delta.norm() / value.initial.norm()) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype) -> None:
    values = []
    for kind in (torch.float32, dtype):
        model, tokenizer = tiny_model("llama", dtype=kind, scale=1.0)
        settings = SearchSettings(4, learning_rate=0.05, norm_penalty=0.0, stop_below=-1.0)
        view = ModelView(model)
        values.extend(optimise_values(view, tokenizer, EDITS[:1], TEMPLATES, 1, settings))
    whole, half = values
    assert half.target.dtype == half.keys.dtype == torch.float32
    assert half.losses == pytest.approx(whole.losses, rel=0.02)
    assert float(torch.cosine_similarity(half.delta, whole.delta, dim=0)) > 0.9


def test_templates_are_checked() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    for templates in ((), ("no place",), ("{} and {}",)):
        with pytest.raises(InvalidInput, match="template"):
            optimise_values(view, tokenizer, EDITS, templates, 1)
