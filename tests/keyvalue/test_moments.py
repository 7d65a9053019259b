from __future__ import annotations

import pytest
import torch
from tests.reference import rome as reference
from tests.tiny import TEXT, tiny_model

from emend.errors import InvalidInput
from emend.keyvalue import moments
from emend.keyvalue.moments import second_moments
from emend.keyvalue.sources import moment_for
from emend.models import ModelView


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "llama", "gpt_neo"])
def test_padding_is_left_out(architecture) -> None:
    model, tokenizer = tiny_model(architecture)
    view = ModelView(model)
    found = second_moments(view, tokenizer, TEXT, [0, 2], batch_size=3)
    for layer, moment in found.items():
        site = view.down_projection(layer)
        expected = reference.second_moment(model, site, tokenizer, TEXT)
        assert torch.allclose(moment.matrix, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())
        assert moment.count == sum(len(tokenizer(text)["input_ids"]) for text in TEXT)


def test_pass_stops_at_the_last_layer_wanted() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    model.model.layers[1].register_forward_hook(lambda *_: pytest.fail("ran too far"))
    second_moments(view, tokenizer, TEXT, [0, 1])


def test_what_was_collected_is_kept(tmp_path, monkeypatch) -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    first = second_moments(view, tokenizer, TEXT, [1], cache=tmp_path)[1]
    monkeypatch.setattr(moments, "_collect", lambda *_: pytest.fail("collected again"))
    again = second_moments(view, tokenizer, TEXT, [1], cache=tmp_path)[1]
    assert torch.equal(first.matrix, again.matrix)
    assert first.describe() == again.describe()


@pytest.mark.parametrize("change", ["weights", "texts", "layer", "count", "dtype"])
def test_anything_that_matters_is_in_the_key(change, tmp_path) -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    second_moments(view, tokenizer, TEXT, [1], cache=tmp_path)
    layer, texts, count, dtype = 1, TEXT, None, torch.float32
    if change == "weights":
        with torch.no_grad():
            model.transformer.h[0].mlp.c_fc.weight.mul_(1.5)
    elif change == "texts":
        texts = TEXT[:-1]
    elif change == "layer":
        layer = 2
    elif change == "count":
        count = 40
    else:
        dtype = torch.float64
    second_moments(view, tokenizer, texts, [layer], max_tokens=count, dtype=dtype, cache=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_broken_files_are_made_again(tmp_path) -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    first = second_moments(view, tokenizer, TEXT, [1], cache=tmp_path)[1]
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    again = second_moments(view, tokenizer, TEXT, [1], cache=tmp_path)[1]
    assert torch.equal(first.matrix, again.matrix)


def test_texts_are_taken_until_there_are_enough_tokens() -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXT]
    found = second_moments(view, tokenizer, TEXT, [1], max_tokens=lengths[0] + 1)[1]
    assert found.count == lengths[0] + lengths[1]
    with pytest.raises(InvalidInput, match="no texts"):
        second_moments(view, tokenizer, [], [1])


def test_without_texts_the_patch_says_so() -> None:
    model, tokenizer = tiny_model("gpt2")
    moment, note = moment_for(ModelView(model), tokenizer, 1)
    assert moment is None
    assert note["kind"] == "identity"
    assert "no texts" in note["why"]
