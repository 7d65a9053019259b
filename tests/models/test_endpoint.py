"""A model behind an endpoint: asked with bounded patience, and nothing it said is lost."""

from __future__ import annotations

import json

import pytest
from tests.endpoint_server import Server

from emend import datasets, models
from emend.api import edit, evaluate
from emend.edits import Edit, Probe
from emend.errors import EndpointFailure, InvalidInput, MissingExtra, UnsupportedModel
from emend.lab import SETTINGS
from emend.models.endpoint import Endpoint, EndpointOptions

pytest.importorskip("openai")
EDIT = Edit(
    "{} was born in",
    "Ana Bel",
    "Oslo",
    original="Rome",
    probes=(Probe("neighborhood", "Bo Li was born in", ("Lima",)),),
)


@pytest.fixture
def serve():
    """Starts servers and closes them."""
    started = []

    def start(answer=lambda prompt, *_: f" <{prompt}>", faults=(), **options):
        server = Server(answer, faults)
        started.append(server)
        defaults = {"base_url": server.url, "timeout": 5.0, "parallel": 1}
        model = Endpoint("openai:some", EndpointOptions(**{**defaults, **options}))
        model.waited = []
        model.pause = model.waited.append
        return server, model

    yield start
    for server in started:
        server.close()


def test_it_continues_texts_greedily_and_equal_ones_once(serve) -> None:
    server, model = serve(parallel=3)
    texts = models.generate(model, None, ["a", "b", "a"], max_new_tokens=7, stop=["!"])
    assert texts == [" <a>", " <b>", " <a>"]
    assert len(server.requests) == 2
    assert {request["max_tokens"] for request in server.requests} == {7}
    assert {request["temperature"] for request in server.requests} == {0}
    assert server.requests[0]["stop"] == ["!"]
    assert server.requests[0]["model"] == "some"


def test_stop_strings_end_a_text_whatever_the_server_does(serve) -> None:
    _, model = serve(lambda *_: " one. two")
    assert models.generate(model, None, ["a"], stop=".") == [" one"]


def test_chat_endpoints(serve) -> None:
    server, _ = serve(lambda prompt, *_: prompt[::-1])
    model = Endpoint("openai-chat:some", EndpointOptions(base_url=server.url))
    assert models.generate(model, None, ["abc"]) == ["cba"]
    assert server.requests[0]["path"] == "/v1/chat/completions"


@pytest.mark.parametrize(
    "fault",
    [500, 503, 429, "{", "[]", '{"choices": []}', '{"choices": [{"text": null}]}', "<html>"],
)
def test_what_may_pass_is_tried_again(serve, fault) -> None:
    server, model = serve(faults=[fault, fault])
    assert models.generate(model, None, ["a"]) == [" <a>"]
    assert len(server.requests) == 3
    assert model.waited == [0.5, 1.0]


def test_patience_ends(serve) -> None:
    server, model = serve(faults=["{"] * 9, attempts=3)
    with pytest.raises(EndpointFailure, match=r"no format of OpenAI's.*3 attempts"):
        models.generate(model, None, ["a"])
    assert len(server.requests) == 3
    assert len(model.waited) == 2


def test_retry_after_is_kept_to(serve) -> None:
    _, model = serve(faults=[(429, {"retry-after": "7"}), (503, {"retry-after": "0"})])
    assert models.generate(model, None, ["a"]) == [" <a>"]
    assert model.waited == [7.0, 0.0]


def test_retry_after_may_be_a_time_of_day(serve) -> None:
    _, model = serve(faults=[(429, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})])
    assert models.generate(model, None, ["a"]) == [" <a>"]
    assert model.waited == [0.0]


def test_too_long_a_wait_is_an_end(serve) -> None:
    server, model = serve(faults=[(429, {"retry-after": "3600"})])
    with pytest.raises(EndpointFailure, match="asks to wait 3600 s"):
        models.generate(model, None, ["a"])
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 404])
def test_what_will_not_pass_is_an_end_at_once(serve, status) -> None:
    server, model = serve(faults=[status])
    with pytest.raises(EndpointFailure, match=f"answers {status}"):
        models.generate(model, None, ["a"])
    assert len(server.requests) == 1


def test_a_slow_endpoint(serve) -> None:
    _, model = serve(faults=[1.0, 1.0], timeout=0.2, attempts=2)
    with pytest.raises(EndpointFailure, match=r"no answer within 0.2 s"):
        models.generate(model, None, ["a"])


def test_a_dead_endpoint(serve) -> None:
    server, model = serve(attempts=2)
    server.close()
    with pytest.raises(EndpointFailure, match=r"cannot be reached.*2 attempts"):
        models.generate(model, None, ["a"])


def test_nothing_that_was_answered_is_lost(serve, tmp_path) -> None:
    path = tmp_path / "run" / "answers.jsonl"
    server, model = serve(faults=[None, None, 401])
    model.keep_answers(path)
    with pytest.raises(EndpointFailure, match=r"answers\.jsonl"):
        models.generate(model, None, ["a", "b", "c", "d"])
    kept = [json.loads(line)["prompt"] for line in path.read_text().splitlines()]
    assert kept in (["a", "b"], ["a", "b", "d"])  # the fourth may be under way already
    with path.open("a") as file:
        file.write('{"key": "cut sh')
    server.answer = lambda prompt, *_: f" again {prompt}"
    _, again = serve(base_url=server.url)
    again.keep_answers(path)
    texts = models.generate(again, None, ["a", "b", "c", "d"])
    assert texts[:3] == [" <a>", " <b>", " again c"]
    assert texts[3] == (" <d>" if "d" in kept else " again d")
    asked = len(server.requests)
    _, third = serve(base_url=server.url)
    third.keep_answers(path)
    assert models.generate(third, None, ["a", "b", "c", "d"]) == texts
    assert len(server.requests) == asked
    # Another length is another question.
    models.generate(third, None, ["a"], max_new_tokens=3)
    assert len(server.requests) == asked + 1


def test_no_server_is_answered_from_the_journal_of_another(serve, tmp_path) -> None:
    """Fault 11: the key of an answer lacked the address."""
    path = tmp_path / "answers.jsonl"
    _, first = serve(lambda *_: " Rome")
    _, second = serve(lambda *_: " Paris")
    for model, expected in ((first, " Rome"), (second, " Paris"), (first, " Rome")):
        model.keep_answers(path)
        assert models.generate(model, None, ["The city is"]) == [expected]
    assert len(path.read_text().splitlines()) == 2
    _, slashed = serve(base_url=f"{first.options.base_url}/")
    slashed.keep_answers(path)
    assert models.generate(slashed, None, ["The city is"]) == [" Rome"]
    assert len(path.read_text().splitlines()) == 2


def test_probabilities_are_not_to_be_had(serve) -> None:
    _, model = serve()
    with pytest.raises(UnsupportedModel, match="no probabilities"):
        models.score(model, None, ["a"], ["b"])


def test_methods_that_need_a_models_inside_are_refused(serve) -> None:
    _, model = serve()
    with pytest.raises(UnsupportedModel, match="rome needs the model's weights"):
        edit(model, None, [EDIT], method="rome")
    with pytest.raises(UnsupportedModel, match="leave contrast=0"):
        edit(model, None, [EDIT], method="ike", contrast=0.5)


def follows(prompt, *_):
    """A model that says what the nearest fact before the prompt says, or what it knows."""
    fact = f"{EDIT.text} "
    told = prompt.rpartition(f"New Fact: {fact}")[2].partition(".")[0] if fact in prompt else ""
    if prompt.endswith(EDIT.text):
        return f" {told}." if f"New Fact: {fact}" in prompt else " Rome."
    return " Lima."


def test_prompts_edit_a_model_behind_an_endpoint(serve, tmp_path) -> None:
    server, model = serve(follows)
    patch = edit(model, None, [EDIT], method="ike", k=4)
    patch = models_patch(patch, tmp_path)
    with patch.applied(model):
        report = evaluate(model, None, [EDIT])
    summary = report.summary
    assert (summary["reliability"]["before"], summary["reliability"]["after"]) == (0, 1)
    assert summary["locality"]["after"] == 1
    assert list(summary["reliability"]["protocols"]) == ["exact_match"]
    assert report.settings["model"]["name"] == "openai:some"
    assert any(request["prompt"].count("New Fact:") == 6 for request in server.requests)


def models_patch(patch, tmp_path):
    from emend.patches import load_patch

    return load_patch(patch.save_pretrained(tmp_path / "patch"))


def test_the_lab_model_behind_an_endpoint_answers_as_it_does_here(serve) -> None:
    lab, tokenizer = models.load("lab/qwen3")

    def answer(prompt, max_tokens, stop):
        return models.generate(lab, tokenizer, [prompt], max_new_tokens=max_tokens, stop=stop)[0]

    server, model = serve(answer, faults=[None, 429, "{"], timeout=60.0)
    (instance,) = datasets.load_multi_hop("lab", limit=1, seed=0)
    prompts = [f"Question: {question} Answer:" for question in instance.questions[:2]]
    prompts.append(instance.edits[0].text)
    said = []
    for asked, words in ((lab, tokenizer), (model, None)):
        patch = edit(asked, words, instance.edits, method="mello", **SETTINGS["mello"])
        with patch.applied(asked):
            said.append(models.generate(asked, words, prompts, max_new_tokens=4, stop="\n"))
            said.append([one["steps"] for one in models.attachments(asked)[0].samples()])
    assert said[:2] == said[2:]
    assert said[0][2].strip(" .") == instance.edits[0].target
    assert len(server.requests) > 6


def test_names_and_options_are_checked(monkeypatch) -> None:
    for name in ("openai:", "other:some", "some"):
        with pytest.raises(InvalidInput, match="expected openai:NAME"):
            Endpoint(name)
    with pytest.raises(InvalidInput, match="from 1 on"):
        Endpoint("openai:some", EndpointOptions(base_url="http://127.0.0.1:1/v1", attempts=0))
    with pytest.raises(InvalidInput, match="base_url is given"):
        models.load("lab/gptneo", base_url="http://127.0.0.1:1/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InvalidInput, match="set OPENAI_API_KEY"):
        models.load("openai:some")
    model, tokenizer = models.load("openai:some", base_url="http://127.0.0.1:1/v1")
    assert isinstance(model, Endpoint)
    assert tokenizer is None


def test_the_client_is_an_extra(monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"emend\[openai\]"):
        Endpoint("openai:some", EndpointOptions(base_url="http://127.0.0.1:1/v1"))
