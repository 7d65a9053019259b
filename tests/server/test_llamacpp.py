"""llama.cpp behind the server: a tiny random model and patches of random ranks."""

from __future__ import annotations

import asyncio
import gc
import json
import time

import pytest
import torch
from tests.gguf_files import write_gguf
from tests.server.running import serving

from emend.errors import InvalidInput, MissingFile
from emend.patches import LowRank, Outcome, WeightPatch, describe_base
from emend.server import Release

pytest.importorskip("xllamacpp", reason="needs llama.cpp (pip install 'emend[llamacpp]')")

from emend.server.engines.llamacpp import LlamaCppEngine, gguf_of

SAME = 1e-4
"""Nats: a prompt that is partly in the cache is summed up in another order."""

PROMPT = [11, 45, 200, 7, 133, 90, 12]


def release(model, seed, outcomes=()):
    """A release whose patch changes every down-projection."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name, module in model.named_modules():
        if name.endswith("down_proj"):
            out, inner = module.weight.shape
            a, b = (torch.randn(*size, generator=generator) for size in ((2, inner), (out, 2)))
            factors[name] = LowRank(a, b * 0.3)
    patch = WeightPatch(factors, base=describe_base(model), outcomes=outcomes)
    return Release(patch, f"{seed:064x}")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "base.gguf"
    return path, *write_gguf(path, architecture="qwen2")


@pytest.fixture
def engine(tiny):
    path, model, tokenizer = tiny
    made = LlamaCppEngine(model, tokenizer, path, max_prompt_tokens=64, threads=1)
    yield made
    made.close()


@pytest.fixture
def server(tiny, engine, tmp_path):
    _, model, tokenizer = tiny
    patches = {name: release(model, seed).patch for name, seed in (("a", 1), ("b", 2))}
    ledger = tmp_path / "facts.db"
    with serving(model, tokenizer, ledger, engine=engine, patches=patches) as running:
        yield running


def apart(one, other):
    """The largest difference of the probabilities of first tokens, of those of both."""
    return max(abs(one[0][token] - other[0][token]) for token in one[0].keys() & other[0].keys())


def logprobs(server, model, prompt=PROMPT):
    answer = server.complete(model, prompt, max_tokens=4, logprobs=20)
    return answer["choices"][0]["logprobs"]["top_logprobs"]


def test_any_order_gives_the_numbers_of_fresh_engines(server, tiny):
    path, model, tokenizer = tiny
    names = ["base:a", "base", "base:a", "base:b", "base:a", "base", "base:b"]
    found = [logprobs(server, name) for name in names]
    by_name = dict(zip(names, found, strict=True))
    for name, one in zip(names, found, strict=True):
        assert apart(one, by_name[name]) < SAME
    assert (
        apart(by_name["base"], by_name["base:a"]) > 0.1 < apart(by_name["base"], by_name["base:b"])
    )
    fresh = LlamaCppEngine(model, tokenizer, path, max_prompt_tokens=64, threads=1)
    fields = {"prompt": PROMPT, "max_tokens": 4, "temperature": 0, "logprobs": 20}
    for name, seed in (("base:a", 1), ("base:b", 2)):
        handle = fresh.prepare(name, release(model, seed))
        answer = asyncio.run(fresh.answer(handle, "completions", fields))
        assert apart(answer["choices"][0]["logprobs"]["top_logprobs"], by_name[name]) < SAME
    fresh.close()


def test_the_numbers_are_those_of_transformers(server, tiny):
    _, model, tokenizer = tiny
    patch = release(model, 1).patch
    with torch.no_grad(), patch.applied(model):
        wanted = model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)
    best = {}
    for token, value in enumerate(wanted.tolist()):
        text = tokenizer.decode([token])
        best[text] = max(value, best.get(text, value))
    top = logprobs(server, "base:a")[0]
    assert top == pytest.approx({text: best[text] for text in top}, abs=0.02)
    assert max(top.values()) == pytest.approx(max(best.values()), abs=0.02)


def test_texts_are_whole_and_streams_give_the_same(server):
    body = {"model": "base:a", "prompt": [PROMPT, PROMPT[:3]], "max_tokens": 6, "temperature": 0}
    whole = server.post("/v1/completions", body).json()
    assert [one["index"] for one in whole["choices"]] == [0, 1]
    assert whole["usage"] == {"prompt_tokens": 10, "completion_tokens": 12, "total_tokens": 22}
    lines = server.post("/v1/completions", {**body, "stream": True}).text.split("\n\n")
    assert lines[-2] == "data: [DONE]"
    texts = ["", ""]
    for line in lines[:-2]:
        for choice in json.loads(line.removeprefix("data: "))["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [one["text"] for one in whole["choices"]]


def test_seeds_repeat_and_differ_within_a_request(server):
    body = {"prompt": PROMPT, "n": 2, "seed": 5, "temperature": 2.0, "max_tokens": 12}
    first, again = (
        [one["text"] for one in server.complete("base", **body)["choices"]] for _ in range(2)
    )
    assert first == again
    assert first[0] != first[1]


def test_echo_is_refused(server):
    body = {"model": "base", "prompt": PROMPT, "echo": True, "logprobs": 1, "max_tokens": 0}
    answer = server.post("/v1/completions", body)
    assert answer.status_code == 400
    assert "--engine transformers" in answer.json()["error"]["message"]


def test_a_client_that_leaves_ends_its_text(server, engine):
    body = {"model": "base", "prompt": PROMPT, "max_tokens": 1000, "temperature": 2, "stream": True}
    with server.client.stream("POST", "/v1/completions", json=body) as answer:
        next(answer.iter_lines())
        assert engine.load == 1
    until(lambda: engine.load == 0)


def test_an_engine_that_answers_otherwise_is_not_switched_to(engine, tiny):
    outcome = Outcome("fact", "Paris is in", " Rome", True, 0.0, 1.0, " Rome")
    with pytest.raises(InvalidInput, match=r"'Paris is in'.*expected 'Rome'.*edit fact"):
        engine.prepare("base:facts", release(tiny[1], 1, (outcome,)))
    until(lambda: engine.servers == 1)


def test_an_old_release_ends_when_nobody_is_answered_by_it(engine, tiny):
    handle = engine.prepare("base:facts", release(tiny[1], 3))
    assert engine.servers == 2
    engine.discard(handle)
    assert engine.servers == 2  # we hold it, as a request would
    assert handle.greedy([(PROMPT, 4)])[0]
    del handle
    gc.collect()
    until(lambda: engine.servers == 1)


def test_a_base_that_is_no_gguf_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"lab/gptneo.*\.gguf"):
        gguf_of("lab/gptneo")
    with pytest.raises(MissingFile, match=r"nothing\.gguf"):
        gguf_of(str(tmp_path / "nothing.gguf"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing more")
    assert gguf_of(str(broken)) == broken


def until(done, seconds=10.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)
