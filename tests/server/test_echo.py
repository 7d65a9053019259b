"""The contract that lm-evaluation-harness reads: /v1/completions with echo and logprobs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tests.server.running import serving
from tests.tiny import tiny_model

from emend.models import score

TEXTS = ("Marie Curie was born in Warsaw", "one two three", "Zürich is a city.", "北京 is")
ASKED = {"max_tokens": 1, "temperature": 0, "logprobs": 1, "seed": 1234, "echo": True}


@pytest.fixture(scope="module", params=["bytes", "metaspace_bos"])
def tiny(request):
    return tiny_model("llama", tokenizer=request.param)


@pytest.fixture(scope="module")
def running(tiny, tmp_path_factory):
    with serving(*tiny, tmp_path_factory.mktemp("ledger") / "facts.db", method="rome") as found:
        yield found


def plain(model, row):
    """Return log-probabilities of the tokens after the first, and greedy flags, by a plain pass."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row])).logits[0].float()
    scores = logits.log_softmax(-1)
    rest = torch.tensor(row[1:])
    greedy = (scores[:-1].argmax(-1) == rest).tolist()
    return scores[:-1].gather(-1, rest[:, None])[:, 0].tolist(), greedy, int(logits[-1].argmax())


def check(choice, row, model):
    """Check a choice against a plain pass over the token ids of its prompt."""
    expected, greedy, _ = plain(model, row)
    found = choice["logprobs"]
    values, tops = found["token_logprobs"], found["top_logprobs"]
    assert len(values) == len(tops) == len(found["tokens"]) == len(row) + 1
    assert values[0] is None
    assert tops[0] is None
    assert values[1:-1] == pytest.approx(expected, abs=1e-4)
    pairs = zip(values[1:-1], tops[1:-1], strict=True)
    flags = [value == max(top.values()) for value, top in pairs]
    assert flags == greedy
    assert values[-1] == max(tops[-1].values())


def rows_of(tokenizer):
    return [tokenizer(one)["input_ids"] for one in TEXTS]


def test_ids_are_scored_as_a_plain_pass_scores_them(running, tiny):
    model, tokenizer = tiny
    rows = rows_of(tokenizer)
    rows.append([int(one) for one in rows[0][:2]] + [tokenizer.eos_token_id, *rows[1]])
    together = running.complete("base", rows, **ASKED)
    for number, row in enumerate(rows):
        check(together["choices"][number], row, model)
        (alone,) = running.complete("base", row, **ASKED)["choices"]
        (nested,) = running.complete("base", [row], **ASKED)["choices"]
        check(alone, row, model)
        check(nested, row, model)
        assert alone["text"] == tokenizer.decode(row) + alone["logprobs"]["tokens"][-1]
    (single,) = running.complete("base", rows[0][:1], **ASKED)["choices"]
    assert single["logprobs"]["token_logprobs"][0] is None
    assert len(single["logprobs"]["token_logprobs"]) == 2


def test_greedy_texts_have_true_flags(running, tiny):
    model, tokenizer = tiny
    row = tokenizer("Anna Berg")["input_ids"]
    for _ in range(4):
        row.append(plain(model, row)[2])
    (choice,) = running.complete("base", row, **ASKED)["choices"]
    scores = choice["logprobs"]
    pairs = zip(scores["token_logprobs"][-5:-1], scores["top_logprobs"][-5:-1], strict=True)
    assert all(value == max(top.values()) for value, top in pairs)


def test_texts_are_scored_as_emend_scores_them(running, tiny):
    """A start token that the tokenizer or emend puts in front of a text is not shown."""
    model, tokenizer = tiny
    choices = running.complete("base", list(TEXTS), **ASKED)["choices"]
    for text, choice in zip(TEXTS, choices, strict=True):
        first, _, rest = text.partition(" ")
        (expected,) = score(model, tokenizer, [first], [f" {rest}"])
        found = choice["logprobs"]
        assert choice["text"].startswith(text)
        count = len(expected.log_probs)
        assert found["token_logprobs"][-count - 1 : -1] == pytest.approx(
            expected.log_probs, abs=1e-4
        )
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert len(found["tokens"]) == len(own) + 1


def test_ids_that_decode_to_one_text_keep_the_larger_value(running, tiny):
    _, tokenizer = tiny
    row = tokenizer("北京 is the capital")["input_ids"]
    (choice,) = running.complete("base", row, **{**ASKED, "logprobs": 20})["choices"]
    values, tops = (choice["logprobs"][name][1:] for name in ("token_logprobs", "top_logprobs"))
    for value, top in zip(values, tops, strict=True):
        assert value <= max(top.values())
        assert list(top.values()) == sorted(top.values(), reverse=True)
    if len(tokenizer) > 256:  # bytes of letters decode to one replacement character
        assert min(map(len, tops)) < 20


def test_requests_that_come_together_are_scored_as_each_alone(running, tiny):
    model, tokenizer = tiny
    rows = rows_of(tokenizer) * 6

    def choice(row):
        return running.complete("base", row, **ASKED)["choices"][0]

    with ThreadPoolExecutor(8) as pool:
        for row, found in zip(rows, pool.map(choice, rows), strict=True):
            check(found, row, model)


def test_only_the_prompt_is_scored_and_longer_texts_follow_it(running, tiny):
    model, tokenizer = tiny
    row = tokenizer(TEXTS[0])["input_ids"]
    (only,) = running.complete("base", row, **{**ASKED, "max_tokens": 0})["choices"]
    assert only["text"] == tokenizer.decode(row)
    assert only["logprobs"]["token_logprobs"][1:] == pytest.approx(plain(model, row)[0], abs=1e-4)
    (longer,) = running.complete("base", row, **{**ASKED, "max_tokens": 5})["choices"]
    alone = running.text("base", row, max_tokens=5)
    assert longer["text"] == only["text"] + alone
    assert len(longer["logprobs"]["tokens"]) == len(row) + 5
    (bare,) = running.complete("base", row, echo=True, max_tokens=5)["choices"]
    assert (bare["text"], bare["logprobs"]) == (longer["text"], None)


def test_the_remote_tokenizer_is_the_models_own(running, tiny):
    tokenizer = tiny[1]
    info = running.get("/tokenizer_info").json()
    assert info["eos_token"] == tokenizer.eos_token
    for special in (True, False):
        body = {"prompt": TEXTS[0], "add_special_tokens": special}
        found = running.post("/tokenize", body).json()["tokens"]
        assert found == tokenizer(TEXTS[0], add_special_tokens=special)["input_ids"]
