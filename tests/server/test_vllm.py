"""vLLM behind the server, by a stand-in that speaks its documented endpoints: no vLLM is run."""

from __future__ import annotations

import json
import logging

import pytest
from tests.server.running import serving
from tests.server.vllm_stand_in import stand_in

from emend.cli import run
from emend.errors import EndpointFailure
from emend.server.engines import Unreachable
from emend.server.engines.vllm import VllmEngine, VllmOptions

NAME = "lab/gptneo"


@pytest.fixture
def stood(lab, tmp_path):
    folder = tmp_path / "adapters"
    with stand_in(*lab, NAME, folder) as (state, url):
        yield state, url


@pytest.fixture
def server(lab, stood, tmp_path):
    state, url = stood
    engine = VllmEngine(*lab, VllmOptions(url, NAME, state.folder))
    with serving(*lab, tmp_path / "facts.db", engine=engine, method="rome") as running:
        yield running


def text_of(record):
    return record["prompt"].replace("{}", record["subject"])


def test_an_edit_is_a_new_folder_that_requests_are_sent_to(server, stood, edits):
    state, _ = stood
    prompt, target = text_of(edits[0]), edits[0]["target"].strip()
    before = server.text("base", prompt)
    assert server.edit(edits[0]).status_code == 201
    assert server.text(server.edited, prompt).strip().startswith(target)
    (first,) = state.folder.iterdir()
    assert state.requests[-1]["model"] == first.name
    written = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    second = server.edit(edits[1])
    assert second.status_code == 201, second.text
    assert len(list(state.folder.iterdir())) == 2
    assert server.revert(second.json()["id"]).status_code == 200
    assert server.text(server.edited, prompt).strip().startswith(target)
    assert state.requests[-1]["model"] == first.name
    assert {path.name: path.stat().st_mtime_ns for path in first.iterdir()} == written
    assert server.text("base", prompt) == before
    assert state.requests[-1]["model"] == NAME


def test_streams_pass_through(server, edits):
    body = {"model": "base", "prompt": text_of(edits[0]), "max_tokens": 6, "temperature": 0}
    lines = server.post("/v1/completions", {**body, "stream": True}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    text = "".join(one["text"] for chunk in chunks for one in chunk["choices"])
    assert text == server.text("base", body["prompt"], max_tokens=6)
    assert {chunk["model"] for chunk in chunks} == {"base"}


@pytest.mark.parametrize(("fault", "status"), [(500, 502), (503, 503), (400, 400)])
def test_failures_of_the_engine_are_stated(server, stood, fault, status, edits):
    stood[0].fault = fault
    for stream in (False, True):
        body = {"model": "base", "prompt": "Hello", "max_tokens": 2, "stream": stream}
        answer = server.post("/v1/completions", body)
        assert answer.status_code == status
        assert "as ordered" in answer.json()["error"]["message"]
    assert server.edit(edits[0]).status_code == status
    stood[0].fault = None
    assert server.edit(edits[0]).status_code == 201


def test_an_engine_that_is_not_there_or_of_another_model_is_refused(lab, stood, tmp_path):
    with pytest.raises(Unreachable, match="--engine_url"):
        VllmEngine(*lab, VllmOptions("http://127.0.0.1:9", NAME, tmp_path))
    with pytest.raises(EndpointFailure, match="lab/gptneo, expected 'other'"):
        VllmEngine(*lab, VllmOptions(stood[1], "other", tmp_path))


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--engine", "vllm"], "--adapter_dir"),
        (["--engine", "llamacpp"], "expected a .gguf file"),
        (["--engine_url", "http://127.0.0.1:1"], "expected --engine vllm"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, found, tmp_path, capsys, monkeypatch):
    for name in ("emend.server", "uvicorn.error"):  # the command writes its log to this stderr
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    ledger = str(tmp_path / "facts.db")
    assert run(["serve", "--model", NAME, "--ledger", ledger, *flags]) == 2
    assert found in capsys.readouterr().err
