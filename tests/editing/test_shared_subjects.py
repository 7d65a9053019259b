"""One value for all edits of a subject, and prompts whose answers are preserved."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

import emend
from emend import datasets
from emend.editing import SearchSettings, optimise_values
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.models import ModelView

TEMPLATES = ("{}", "Yes. {}")
SAME = [
    Edit("{} was born in", "Marie Curie", "Paris", id="a"),
    Edit("{} plays the", "Marie Curie", "violin", id="b"),
    Edit("{} lives in", "Tom Berg", "Lyon", id="c"),
]


def sought(edits, **settings):
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    return optimise_values(
        ModelView(model), tokenizer, edits, TEMPLATES, 1, SearchSettings(steps=8, **settings)
    )


def test_edits_of_a_subject_share_what_is_added() -> None:
    a, b, c = sought(SAME, share_subject=True)
    assert torch.allclose(a.delta, b.delta, atol=1e-6)
    assert a.losses == b.losses != c.losses
    assert a.keys.shape == c.keys.shape  # each its own contexts
    apart = sought(SAME)
    assert not torch.allclose(apart[0].delta, apart[1].delta, atol=1e-3)
    assert torch.allclose(apart[2].delta, c.delta, atol=1e-5)


def test_the_order_of_edits_does_not_matter() -> None:
    a, b, _ = sought(SAME, share_subject=True)
    b2, a2 = sought([SAME[1], SAME[0]], share_subject=True)
    assert torch.allclose(a.delta, a2.delta, atol=1e-4 * float(a.delta.norm()))
    assert torch.allclose(b.delta, b2.delta, atol=1e-4 * float(b.delta.norm()))


def test_preserved_prompts_move_less() -> None:
    """Measured by plain forwards of a model that knows something, with the delta hooked in."""
    model, tokenizer = emend.load("lab/gptneo")
    view = ModelView(model)
    (edit,) = [e for e in datasets.load("lab", limit=30) if e.relation == "instrument"][:1]
    kept = "{} works for"
    asked = tokenizer(kept.format(edit.subject), return_tensors="pt")
    last = len(tokenizer(edit.subject)["input_ids"]) - 1

    def distribution(delta: torch.Tensor) -> torch.Tensor:
        def add(_module, _args, output):
            output = output.clone()
            output[0, last] += delta
            return output

        handle = view.down_projection(3).register_forward_hook(add)
        with torch.no_grad():
            found = model(**asked).logits[0, -1].log_softmax(-1)
        handle.remove()
        return found

    def drift(**settings) -> float:
        search = SearchSettings(steps=30, clamp=10.0, norm_penalty=1e-3, **settings)
        (value,) = optimise_values(view, tokenizer, [edit], TEMPLATES[:1], 3, search)
        before, after = distribution(torch.zeros(view.hidden_size)), distribution(value.delta)
        return float((after.exp() * (after - before)).sum())

    assert drift(preserve=(kept,), preserve_factor=10.0) < 0.5 * drift()


def test_what_is_edited_is_not_preserved() -> None:
    """The edit's own prompt, answered as it is answered now, has no say."""
    plain = sought(SAME[:1])[0]
    same = sought(SAME[:1], preserve=("{} was born in",), preserve_factor=30.0)[0]
    assert torch.allclose(plain.delta, same.delta, atol=1e-5 * float(plain.delta.norm()))


def test_a_preserved_prompt_needs_its_place() -> None:
    with pytest.raises(InvalidInput, match="places"):
        sought(SAME[:1], preserve=("was born in",))
