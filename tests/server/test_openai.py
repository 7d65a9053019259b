"""OpenAI's own client: completions and chats, whole and streamed, alone and together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.server.running import serving
from tests.tiny import tiny_model

from emend.models import generate

openai = pytest.importorskip("openai")

CHAT = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[bot]"
PROMPTS = ("Anna Berg", "The capital of", "Marie Curie was born in", "one two three four", "Zürich")


@pytest.fixture(scope="module")
def tiny():
    model, tokenizer = tiny_model("llama")
    tokenizer.chat_template = CHAT
    return model, tokenizer


@pytest.fixture(scope="module")
def running(tiny, tmp_path_factory):
    with serving(*tiny, tmp_path_factory.mktemp("ledger") / "facts.db", method="rome") as found:
        yield found


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def test_models_are_listed_and_described(client):
    assert [one.id for one in client.models.list()] == ["base", "base:facts"]
    assert client.models.retrieve("base:facts").id == "base:facts"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.body["message"].startswith("'other'") or "other" in str(caught.value)


def test_a_completion_is_what_the_model_generates_and_its_stream_is_the_same_text(client, tiny):
    for prompt in PROMPTS:
        asked = {"model": "base", "prompt": prompt, "max_tokens": 20, "temperature": 0}
        whole = client.completions.create(**asked)
        assert whole.choices[0].text == generate(*tiny, [prompt], max_new_tokens=20)[0]
        assert whole.choices[0].finish_reason in ("length", "stop")
        assert whole.usage.completion_tokens <= 20
        assert whole.usage.total_tokens == (
            whole.usage.prompt_tokens + whole.usage.completion_tokens
        )
        chunks = list(client.completions.create(**asked, stream=True))
        assert "".join(one.choices[0].text for one in chunks) == whole.choices[0].text
        reasons = [one.choices[0].finish_reason for one in chunks]
        assert reasons[-1] == whole.choices[0].finish_reason
        assert set(reasons[:-1]) <= {None}
        assert len({one.id for one in chunks}) == 1
        assert all(one.model == "base" for one in chunks)


def test_a_text_ends_before_a_stop_string_which_no_stream_shows(client):
    asked = {"model": "base", "prompt": "Anna Berg", "max_tokens": 40, "temperature": 0}
    text = client.completions.create(**asked).choices[0].text
    stop = text[7:10]
    expected = text[: text.index(stop)]
    for given in (stop, ["never in a text", stop]):
        whole = client.completions.create(**asked, stop=given).choices[0]
        assert (whole.text, whole.finish_reason) == (expected, "stop")
        chunks = client.completions.create(**asked, stop=given, stream=True)
        assert "".join(one.choices[0].text for one in chunks) == expected


def test_a_prompt_that_ends_with_a_space_is_continued_after_it(server, edits, lab):
    prompt = edits[0]["prompt"].replace("{}", edits[0]["subject"])
    expected = generate(*lab, [prompt], max_new_tokens=4)[0]
    assert expected.startswith(" ")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        for spaces in ("", " ", "  "):
            asked = {"model": "base", "prompt": prompt + spaces, "max_tokens": 4, "temperature": 0}
            text = expected.lstrip(" ") if spaces else expected
            assert client.completions.create(**asked).choices[0].text == text
            chunks = client.completions.create(**asked, stream=True)
            assert "".join(one.choices[0].text for one in chunks) == text


def test_several_prompts_and_several_answers_are_numbered(client):
    asked = {"model": "base", "max_tokens": 6, "temperature": 0}
    alone = [client.completions.create(prompt=one, **asked).choices[0].text for one in PROMPTS]
    found = client.completions.create(prompt=list(PROMPTS), n=2, **asked)
    assert [one.index for one in found.choices] == list(range(10))
    assert [one.text for one in found.choices] == [text for text in alone for _ in range(2)]
    texts = [""] * 10
    for chunk in client.completions.create(prompt=list(PROMPTS), n=2, stream=True, **asked):
        for one in chunk.choices:
            texts[one.index] += one.text
    assert texts == [one.text for one in found.choices]


def test_a_seed_repeats_what_is_drawn(client):
    asked = {"model": "base", "prompt": "Anna", "max_tokens": 12, "temperature": 1.5, "n": 4}
    first, again, other, unseeded = (
        [one.text for one in client.completions.create(**asked, seed=seed).choices]
        for seed in (5, 5, 6, None)
    )
    assert first == again != other
    assert len(set(first)) == 4
    assert unseeded != first
    greedy = client.completions.create(**{**asked, "temperature": 0, "n": 1}).choices[0].text
    for narrow in ({"top_p": 1e-9}, {"top_p": 5e-324}, {"temperature": 5e-324}):
        found = client.completions.create(**{**asked, "n": 1, **narrow})
        assert found.choices[0].text == greedy


def test_a_chat_is_put_in_the_template_and_its_stream_is_the_same_text(client, tiny):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Who?"}]},
    ]
    asked = {"model": "base", "messages": turns, "max_completion_tokens": 16, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    prompt = "[system] Be brief.\n[user] Who?\n[bot]"
    assert whole.choices[0].message.content == generate(*tiny, [prompt], max_new_tokens=16)[0]
    assert whole.choices[0].message.role == "assistant"
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert not chunks[-1].choices


def test_the_log_probabilities_of_an_answer_and_of_its_stream(client, tiny):
    asked = {"model": "base", "prompt": "Marie Curie", "max_tokens": 9, "temperature": 0}
    whole = client.completions.create(**asked, logprobs=3).choices[0]
    scores = whole.logprobs
    assert "".join(scores.tokens) == whole.text
    assert len(scores.tokens) == len(scores.token_logprobs) == len(scores.top_logprobs) == 9
    for value, top in zip(scores.token_logprobs, scores.top_logprobs, strict=True):
        assert value == max(top.values())
        assert len(top) <= 3
    streamed = list(client.completions.create(**asked, logprobs=3, stream=True))
    for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        pieces = [getattr(one.choices[0].logprobs, field) for one in streamed]
        assert [each for piece in pieces for each in piece] == getattr(scores, field)
    turns = [{"role": "user", "content": "Who?"}]
    chat = client.chat.completions.create(
        model="base", messages=turns, max_tokens=5, temperature=0, logprobs=True, top_logprobs=2
    ).choices[0]
    content = chat.logprobs.content
    assert b"".join(bytes(one.bytes) for one in content).decode() == chat.message.content
    for one in content:
        assert one.top_logprobs[0].logprob == one.logprob
        assert len(one.top_logprobs) == 2


def test_requests_that_come_together_are_answered_as_each_alone(client, tiny):
    prompts = [f"{one} {number}" for number in range(6) for one in PROMPTS]
    expected = [generate(*tiny, [one], max_new_tokens=10)[0] for one in prompts]

    def text(number):
        asked = {"model": "base", "prompt": prompts[number], "max_tokens": 10, "temperature": 0}
        if number % 3:
            return client.completions.create(**asked).choices[0].text
        chunks = client.completions.create(**asked, stream=True)
        return "".join(one.choices[0].text for one in chunks)

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(text, range(len(prompts))))
    assert found == expected


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"max_tokens": 0}, 400),
        ({"temperature": 3}, 400),
        ({"presence_penalty": 1.0}, 400),
        ({"best_of": 3}, 400),
        ({"logit_bias": {"5": 1}}, 400),
        ({"extra_body": {"tools": []}}, 400),
        ({"prompt": ""}, 400),
        ({"prompt": []}, 400),
        ({"prompt": [99_999]}, 400),
        ({"prompt": [-1]}, 400),
        ({"prompt": "word " * 500}, 400),
        ({"stream": True, "prompt": "word " * 500}, 400),
        ({"stream": True, "echo": True}, 400),
        ({"model": "other"}, 404),
    ],
)
def test_what_is_not_served_is_refused_in_the_form_of_openai(client, more, status):
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(**{"model": "base", "prompt": "Anna", "max_tokens": 3, **more})
    assert caught.value.status_code == status
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    assert caught.value.body["type"] == "invalid_request_error"


def test_a_model_without_a_chat_template_is_asked_no_chat(server):
    turns = [{"role": "user", "content": "Who?"}]
    answer = server.post("/v1/chat/completions", {"model": server.base, "messages": turns})
    assert answer.status_code == 400
    assert "/v1/completions" in answer.json()["error"]["message"]
