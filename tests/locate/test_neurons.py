from __future__ import annotations

import pytest
import torch
from tests.reference import neurons as reference
from tests.tiny import ARCHITECTURES, tiny_model

from emend.errors import InvalidInput
from emend.locate import attribute, attribute_tokens, coarse, knowledge_neurons, refine
from emend.models import ModelView, join_targets

PROMPT, ANSWER = "Marie Curie was born in", "Warsaw"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_attribution_is_that_of_autograd_through_scaled_activations(architecture) -> None:
    model, tokenizer = tiny_model(architecture)
    expected = reference.attribute(model, tokenizer, PROMPT, ANSWER, steps=5)
    found = attribute(ModelView(model), tokenizer, PROMPT, ANSWER, steps=5)
    assert found.shape == expected.shape
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_many_at_once_are_as_each_alone_in_any_layers_and_batches() -> None:
    model, tokenizer = tiny_model("qwen3")
    view = ModelView(model)
    prompts = [PROMPT, "Tom speaks", "The capital of France is", "One"]
    answers = ["Warsaw", "Danish", "Paris", "two three"]
    pairs = join_targets(tokenizer, prompts, answers)
    together = attribute_tokens(view, pairs, steps=3, layers=(2, -1), batch_size=4)
    for prompt, answer, found in zip(prompts, answers, together, strict=True):
        alone = attribute(view, tokenizer, prompt, answer, steps=3)[[2, 3]]
        assert (found - alone).abs().max() <= 1e-4 * alone.abs().max()


def test_attributions_sum_to_what_the_layer_does_for_the_answer() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    found = attribute(view, tokenizer, PROMPT, "W", steps=200)
    ids, tokens = join_targets(tokenizer, [PROMPT], ["W"])[0]
    assert len(tokens) == 2  # a space and a letter: take the first one alone
    first = attribute_tokens(view, [(ids, tokens[:1])], steps=200)[0]
    assert not torch.equal(first, found)

    def chance() -> float:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        return float(logits.softmax(-1)[tokens[0]])

    for layer in range(view.num_layers):

        def empty(_module, args):
            cleared = args[0].clone()
            cleared[:, -1] = 0
            return (cleared,)

        whole = chance()
        handle = view.down_projection(layer).register_forward_pre_hook(empty)
        without = chance()
        handle.remove()
        scale = first[layer].abs().sum()
        assert abs(float(first[layer].sum()) - (whole - without)) < 2e-2 * scale


def test_an_attached_patch_counts() -> None:
    from tests.patches.helpers import random_patch

    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    plain = attribute(view, tokenizer, PROMPT, ANSWER, steps=3)
    with random_patch(model, "gpt2", scale=1.0).applied(model):
        expected = reference.attribute(model, tokenizer, PROMPT, ANSWER, steps=3)
        found = attribute(view, tokenizer, PROMPT, ANSWER, steps=3)
    assert not torch.allclose(plain, found, rtol=1e-2)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_coarse_set() -> None:
    found = torch.tensor([[0.0, 1.0, 0.25], [0.15, -3.0, 0.9]])
    assert coarse(found, 0.2) == [(0, 1), (0, 2), (1, 2)]
    assert coarse(found, 0.95, layers=(4, 7)) == [(4, 1)]
    assert coarse(-found.abs() - 1, 0.2) == [(0, 0)]  # nothing helps: the least harmful one


def test_refinement_keeps_what_most_prompts_share() -> None:
    sets = [[(0, 1), (1, 5)], [(0, 1), (2, 2)], [(0, 1), (1, 5)], [(3, 3)]]
    assert refine(sets, 0.5) == [(0, 1)]
    assert refine(sets, 0.4) == [(0, 1), (1, 5)]
    assert refine([[(1, 1)], [(2, 2)]], 0.5) == [(1, 1), (2, 2)]  # none in more than half
    assert refine([[]], 0.5) == []


def test_neurons_of_a_fact_without_those_of_others() -> None:
    model, tokenizer = tiny_model("gpt_neo")
    view = ModelView(model)
    prompts = [PROMPT, "The birthplace of Marie Curie is"]
    maps = [attribute(view, tokenizer, prompt, ANSWER, steps=4) for prompt in prompts]
    expected = refine([coarse(one, 0.1) for one in maps], 0.4)
    settings = {"threshold": 0.1, "share": 0.4, "steps": 4}
    found = knowledge_neurons(view, tokenizer, prompts, ANSWER, **settings)
    assert found == expected
    same = [(prompts, ANSWER)]
    assert knowledge_neurons(view, tokenizer, prompts, ANSWER, others=same, **settings) == []
    other = knowledge_neurons(view, tokenizer, ["Tom Berg works for"], "Lyon", **settings)
    kept = knowledge_neurons(
        view, tokenizer, prompts, ANSWER, others=[(["Tom Berg works for"], "Lyon")], **settings
    )
    assert kept == [neuron for neuron in found if neuron not in other]


def test_misuse_is_refused() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    with pytest.raises(InvalidInput, match="steps is 0"):
        attribute(view, tokenizer, PROMPT, ANSWER, steps=0)
    with pytest.raises(InvalidInput, match="4 blocks"):
        attribute(view, tokenizer, PROMPT, ANSWER, layers=(4,))
    with pytest.raises(InvalidInput, match="no prompts"):
        knowledge_neurons(view, tokenizer, [], ANSWER)
