"""One value for all edits of a subject, and prompts whose answers are preserved."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

from emend.edits import Edit
from emend.errors import InvalidInput
from emend.keyvalue import SearchSettings, search_values
from emend.models import ModelView

TEMPLATES = ("{}", "Yes. {}")
SAME = [
    Edit("{} was born in", "Marie Curie", "Paris", id="a"),
    Edit("{} plays the", "Marie Curie", "violin", id="b"),
    Edit("{} lives in", "Tom Berg", "Lyon", id="c"),
]


def sought(edits, **settings):
    model, tokenizer = tiny_model("llama")
    return search_values(
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


def distribution(prompt: str, delta: torch.Tensor | None = None) -> torch.Tensor:
    """Log-probabilities after a prompt, by a plain forward with the delta hooked in."""
    model, tokenizer = tiny_model("llama")
    ids = tokenizer(prompt, return_tensors="pt")
    last = len(tokenizer("Marie Curie")["input_ids"]) - 1

    def add(_module, _args, output):
        output = output.clone()
        output[0, last] += 0.0 if delta is None else delta
        return output

    handle = ModelView(model).down_projection(1).register_forward_hook(add)
    with torch.no_grad():
        found = model(**ids).logits[0, -1].log_softmax(-1)
    handle.remove()
    return found


def drift(delta: torch.Tensor, prompt: str) -> float:
    """KL(after || before) at the end of a prompt."""
    after = distribution(prompt, delta)
    return float((after.exp() * (after - distribution(prompt))).sum())


def test_preserved_prompts_move_less() -> None:
    endings = ("lives in", "plays the", "is", "was", "one two", "works for", "has a", "seven")
    own = distribution("Marie Curie was born in").argmax()
    kept = next(end for end in endings if distribution(f"Marie Curie {end}").argmax() != own)
    plain = sought(SAME[:1], weight_decay=0.0)[0]
    guarded = sought(SAME[:1], weight_decay=0.0, preserve=("{} " + kept,), preserve_factor=1e4)[0]
    prompt = f"Marie Curie {kept}"
    assert drift(guarded.delta, prompt) < 0.5 * drift(plain.delta, prompt)


def test_what_is_edited_is_not_preserved() -> None:
    """The edit's own prompt, answered as it is answered now, has no say."""
    plain = sought(SAME[:1])[0]
    same = sought(SAME[:1], preserve=("{} was born in",), preserve_factor=30.0)[0]
    assert torch.allclose(plain.delta, same.delta, atol=1e-5 * float(plain.delta.norm()))


def test_a_preserved_prompt_needs_its_place() -> None:
    with pytest.raises(InvalidInput, match="places"):
        sought(SAME[:1], preserve=("was born in",))
