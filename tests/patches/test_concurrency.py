"""Which patch acts belongs to the call: threads, tasks, nesting, recomputation, failures."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
from tests.patches.helpers import EDITS
from tests.tiny import tiny_model

from emend import models
from emend.errors import InvalidInput
from emend.methods.grace import CodebookPatch
from emend.patches import LowRank, WeightPatch

DOWN = "model.layers.0.mlp.down_proj"
PASSES = 1000


def weight_patch(model, *names, seed=0, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name in names or (DOWN,):
        module = model.get_submodule(name)
        a = torch.randn(2, module.in_features, generator=generator)
        factors[name] = LowRank(a, size * torch.randn(module.out_features, 2, generator=generator))
    return WeightPatch(factors)


def memory_patch(model, name=DOWN):
    """A codebook that answers every prompt."""
    module = model.get_submodule(name)
    tensors = {
        "keys": torch.zeros(1, module.in_features),
        "values": torch.full((1, module.out_features), 3.0),
        "radii": torch.tensor([1e9]),
    }
    details = {"module": name, "labels": [[1]], "replaced": "query"}
    return CodebookPatch(edits=EDITS[:1], tensors=tensors, details=details)


def logits(model, ids=((5, 6, 7),)):
    with torch.no_grad():
        return model(input_ids=torch.tensor(ids), use_cache=False).logits


def asked_by_threads(*asking):
    """Run functions at the same time, each many times, and raise what they raise."""
    barrier = threading.Barrier(len(asking))

    def run(ask):
        barrier.wait()
        for _ in range(PASSES):
            ask()

    with ThreadPoolExecutor(len(asking)) as pool:
        for future in [pool.submit(run, ask) for ask in asking]:
            future.result()


@pytest.mark.parametrize(
    ("make", "way"),
    [(weight_patch, "attached"), (weight_patch, "applied"), (memory_patch, "attached")],
)
def test_two_threads_get_the_base_and_the_edited_model(make, way):
    """Fault 14: a patch attached while another thread is in ``base``."""
    model, _ = tiny_model("llama", layers=1, width=16)
    patch = make(model)
    plain = logits(model)
    with patch.applied(model):
        edited = logits(model)
    assert not torch.equal(plain, edited)
    if way == "attached":
        patch.attach(model)

    def ask_base():
        with models.base(model):
            assert torch.equal(logits(model), plain)

    def ask_edited():
        with patch.applied(model) if way == "applied" else nullcontext():
            assert torch.equal(logits(model), edited)

    asked_by_threads(ask_base, ask_edited)
    if way == "attached":
        patch.detach(model)
    assert torch.equal(logits(model), plain)
    assert not any(module._forward_hooks for module in model.modules())


def test_scores_and_continuations_in_threads():
    """Fault 14, through `score` and `generate`, whose own hooks belong to their thread too."""
    model, tokenizer = tiny_model("llama", layers=2)
    first, second = weight_patch(model), weight_patch(model, seed=1)
    prompts, targets = ["Marie Curie was born in", "Anna"], ["Paris", "Tom Berg"]

    def answers():
        said = models.score(model, tokenizer, prompts, targets)
        return said, models.generate(model, tokenizer, prompts, max_new_tokens=4)

    blocks = {
        "base": lambda: models.base(model),
        "first": lambda: first.applied(model),
        "second": lambda: second.applied(model),
    }
    expected = {}
    for name, block in blocks.items():
        with block():
            expected[name] = answers()
    assert expected["base"] != expected["first"] != expected["second"]

    def asking(name):
        def ask():
            with blocks[name]():
                assert answers() == expected[name]

        return ask

    threads = [asking(name) for name in blocks]
    global PASSES
    before, PASSES = PASSES, 30
    try:
        asked_by_threads(*threads)
    finally:
        PASSES = before


def test_generation_loops_of_transformers_in_threads():
    """Fault 14, in `model.generate`, whose loop is transformers' own."""
    model, tokenizer = tiny_model("llama", layers=2)
    patch = memory_patch(model)
    given = tokenizer("Marie Curie was born in", return_tensors="pt")

    def written():
        return model.generate(**given, max_new_tokens=6, do_sample=False, pad_token_id=0).tolist()

    plain = written()
    with patch.applied(model):
        edited = written()
    assert plain != edited

    def ask(block, expected):
        for _ in range(25):
            with block():
                assert written() == expected

    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(ask, lambda: models.base(model), plain),
            pool.submit(ask, lambda: patch.applied(model), edited),
        ]
        for job in jobs:
            job.result()


def test_tasks_of_asyncio_have_a_patch_each():
    """Fault 14: tasks share one thread, so that thread-locals alone would mix them."""
    model, _ = tiny_model("llama", layers=2)
    patches = [weight_patch(model, seed=seed) for seed in range(4)]
    expected = []
    for patch in patches:
        with patch.applied(model):
            expected.append(logits(model))
    plain = logits(model)

    async def ask(patch, wanted):
        for _ in range(50):
            with patch.applied(model) if patch else models.base(model):
                await asyncio.sleep(0)
                assert torch.equal(logits(model), wanted)
                await asyncio.sleep(0)
                assert torch.equal(await asyncio.to_thread(logits, model), wanted)

    async def everyone():
        pairs = zip([*patches, None], [*expected, plain], strict=True)
        await asyncio.gather(*(ask(patch, wanted) for patch, wanted in pairs))

    asyncio.run(everyone())


def test_blocks_nest_and_may_be_left_in_any_order():
    """Fault 14: what acts follows from the blocks that a context is in, not from their order."""
    model, _ = tiny_model("llama", layers=2)
    first, second = weight_patch(model), weight_patch(model, seed=1)
    plain = logits(model)
    with (first + second).applied(model):
        both = logits(model)
    with first.applied(model):
        alone = logits(model)
        with second.applied(model):
            torch.testing.assert_close(logits(model), both)
            with models.base(model):
                assert torch.equal(logits(model), plain)
                with first.applied(model):
                    assert torch.equal(logits(model), alone)
            torch.testing.assert_close(logits(model), both)
        assert torch.equal(logits(model), alone)
        with pytest.raises(InvalidInput, match="already"), first.applied(model):
            pass
        with pytest.raises(InvalidInput, match="leave the with block"):
            first.detach(model)
    outer, inner = first.applied(model), second.applied(model)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    assert torch.equal(logits(model), plain)
    assert models.attachments(model) == ()


def test_a_thread_outside_of_all_blocks_is_warned():
    """Fault 14: a new thread starts outside of the block it was started in; that is stated."""
    model, _ = tiny_model("llama", layers=2)
    patch = weight_patch(model)
    plain = logits(model)
    with patch.applied(model), ThreadPoolExecutor(1) as pool:
        with pytest.warns(UserWarning, match="thread outside of every patch's block"):
            assert torch.equal(pool.submit(logits, model).result(), plain)

        def ask():
            with models.base(model):
                return logits(model)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(pool.submit(ask).result(), plain)


def test_dropout_stays_off_while_another_thread_leaves():
    """Fault 14: `score` in one thread must not switch dropout on in the pass of another."""
    model, tokenizer = tiny_model("gpt2", layers=2, resid_pdrop=0.5)
    model.train()
    expected = models.score(model, tokenizer, ["Anna"], ["Tom"])

    def ask():
        assert models.score(model, tokenizer, ["Anna"], ["Tom"]) == expected

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(lambda: [ask() for _ in range(100)]) for _ in range(2)]
        for job in jobs:
            job.result()
    assert all(module.training for module in model.modules())


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def a_loss(model):
    ids = torch.tensor([[5, 6, 7, 8]])
    return model(input_ids=ids, labels=ids, use_cache=False).loss


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("where", ["inside", "after", "another thread", "in base"])
@pytest.mark.parametrize("make", [weight_patch, memory_patch])
def test_checkpointed_layers_are_computed_again_with_the_same_patch(reentrant, where, make):
    """Fault 14: a backward pass may run after the block was left, or in another thread."""
    model, _ = tiny_model("llama", layers=2)
    model.train()
    patch = make(model)
    with patch.applied(model):
        wanted = gradients(model, a_loss(model))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    with patch.applied(model):
        loss = a_loss(model)
        if where == "inside":
            found = gradients(model, loss)
        elif where == "in base":
            with models.base(model):
                found = gradients(model, loss)
    if where == "after":
        found = gradients(model, loss)
    elif where == "another thread":
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(gradients, model, loss).result()
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    del loss, found
    gc.collect()
    assert models.attachments(model) == ()
    assert not model.get_submodule(DOWN)._forward_hooks


class Failing(torch.nn.Linear):
    """A module that takes no hook."""

    def register_forward_hook(self, *_args, **_kwargs):
        raise RuntimeError("no hook here")


@pytest.mark.parametrize("way", ["attach", "applied"])
def test_attaching_a_weight_patch_is_all_or_nothing(way):
    """Fault 9: the first hooks stayed live where a later one could not be set."""
    model, _ = tiny_model("llama", layers=3)
    names = [f"model.layers.{layer}.mlp.down_proj" for layer in range(3)]
    patch = weight_patch(model, *names)
    plain = logits(model)
    module = model.get_submodule(names[1])
    module.__class__ = Failing
    for _ in range(2):  # the second try fails alike: nothing says "attached already"
        begin = patch.attach if way == "attach" else lambda one: patch.applied(one).__enter__()
        with pytest.raises(RuntimeError, match="no hook here"):
            begin(model)
        assert models.attachments(model) == ()
        assert not any(one._forward_hooks for one in model.modules())
        assert not any(one._forward_pre_hooks for one in model.modules())
        assert torch.equal(logits(model), plain)
    module.__class__ = torch.nn.Linear
    patch.attach(model)
    assert not torch.equal(logits(model), plain)
    patch.detach(model)


def test_attaching_a_memory_patch_is_all_or_nothing():
    """Fault 9: the hooks on the model itself stayed where that on the module could not be set."""
    model, _ = tiny_model("llama", layers=2)
    patch = memory_patch(model)
    plain = logits(model)
    model.get_submodule(DOWN).__class__ = Failing
    with pytest.raises(RuntimeError, match="no hook here"):
        patch.attach(model)
    assert models.attachments(model) == ()
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("make", [weight_patch, memory_patch])
def test_a_float64_model_goes_through_float64_hooks(make):
    """Fault 33: the rest of a float64 output was rounded to float32 by the hook."""
    model, _ = tiny_model("llama", layers=2, dtype=torch.float64)
    if make is weight_patch:
        patch = weight_patch(model)
        reference, _ = tiny_model("llama", layers=2, dtype=torch.float64)
        with torch.no_grad():
            a, b = patch.factors[DOWN].matrices()
            reference.get_submodule(DOWN).weight += b.double() @ a.double()
        with patch.applied(model):
            torch.testing.assert_close(logits(model), logits(reference), rtol=1e-11, atol=1e-11)
        return
    patch = memory_patch(model)
    seen = []
    handle = model.get_submodule(DOWN).register_forward_hook(lambda *all: seen.append(all[2]))
    with patch.applied(model):
        logits(model)
    handle.remove()
    assert seen[0].dtype == torch.float64
