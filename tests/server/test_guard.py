"""What a server refuses, and that refusing it harms nobody."""

from __future__ import annotations

import json
import logging
import re
import select
import socket
import time

import httpx2
import pytest
from tests.server.process import LEAK
from tests.server.running import AUTHORIZED, serving
from tests.tiny import tiny_model

from emend.errors import InvalidInput, StoreFailure
from emend.ledger import Ledger
from emend.server import Editor, EditorOptions, Limits
from emend.server.engines.transformers import TransformersEngine

HEAD = (
    "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    "Content-Length: {}\r\n\r\n"
)
ASKED = {"model": "base", "prompt": "Anna Berg", "max_tokens": 3, "temperature": 0}


def check_error(answer, status, code=None):
    """Check that an answer is an error in OpenAI's form that tells nothing of the machine."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["code"] == code or code is None
    assert not LEAK.search(answer.text)
    assert "x-emend-ledger-version" in answer.headers
    return error["message"]


@pytest.fixture(scope="module")
def tiny():
    return tiny_model("llama")


@pytest.fixture(scope="module")
def running(tiny, tmp_path_factory):
    limits = Limits(body_seconds=4, edits_per_minute=1000)
    path = tmp_path_factory.mktemp("ledger") / "facts.db"
    engine = TransformersEngine(*tiny, max_prompt_tokens=40)
    with serving(*tiny, path, method="rome", limits=limits, engine=engine) as found:
        yield found


def sent(server, *parts):
    """Send bytes by hand; return what comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as one:
        for part in parts:
            one.sendall(part)
        found = b""
        while more := one.recv(65536):
            found += more
    return found.decode()


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer", "Basic a-token-of-tests", "é"])
def test_writers_need_the_token(running, given):
    headers = {"Authorization": given.encode("latin-1")} if given else {}
    edit = {"statement": "The {Eiffel Tower} is in -> Rome"}
    for method, path in (
        ("POST", "/v1/edits"),
        ("POST", "/v1/edits:check"),
        ("DELETE", "/v1/edits/x"),
    ):
        body = {"json": edit} if method == "POST" else {}
        answer = running.client.request(method, path, headers=headers, **body)
        check_error(answer, 401, "invalid_token")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert running.get("/v1/edits", params={"status": "proposed"}).json()["data"] == []


def test_a_body_of_50_mb_is_refused_before_it_is_read(running):
    body = json.dumps({**ASKED, "prompt": "a" * 50_000_000}).encode()
    before = time.monotonic()
    check_error(running.client.post("/v1/completions", content=body), 413, "too_large")

    def pieces():
        for at in range(0, len(body), 1 << 16):
            yield body[at : at + (1 << 16)]

    check_error(running.client.post("/v1/completions", content=pieces()), 413, "too_large")
    assert time.monotonic() - before < 20
    head = HEAD.format(len(body)).encode()
    assert " 413 " in sent(running, head, b"{").splitlines()[0]
    assert running.complete("base", "Anna Berg", max_tokens=3)["choices"][0]["text"]


def test_a_slow_client_keeps_nobody_waiting_and_is_given_up(running):
    body = json.dumps(ASKED).encode()
    head = HEAD.format(len(body))
    slow = [socket.create_connection(("127.0.0.1", running.port), timeout=20) for _ in range(20)]
    try:
        for one in slow:
            one.sendall(head.encode() + body[: len(body) // 2])
        for _ in range(5):
            assert running.complete("base", "Anna Berg", max_tokens=3)
        assert not select.select(slow, [], [], 0)[0]  # none was given up: all were waited for
        slow[0].sendall(body[len(body) // 2 :])
        assert b" 200 " in slow[0].recv(65536).splitlines()[0]
        for one in slow[1:]:
            assert b" 408 " in one.recv(65536).splitlines()[0]
    finally:
        for one in slow:
            one.close()


def test_a_client_that_leaves_in_any_place_is_no_failure(running, caplog):
    body = json.dumps({**ASKED, "max_tokens": 80}).encode()
    head = HEAD.format(len(body)).encode()
    with caplog.at_level(logging.INFO):
        for cut in (len(head) // 2, len(head), len(head) + 9, len(head) + len(body)):
            with socket.create_connection(("127.0.0.1", running.port)) as one:
                one.sendall((head + body)[:cut])
                time.sleep(0.03)
        ends = time.monotonic() + 10
        while running.editor.engine.load and time.monotonic() < ends:
            time.sleep(0.05)
    assert running.editor.engine.load == 0
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert running.complete("base", "Anna Berg", max_tokens=3)


@pytest.mark.parametrize(
    ("path", "content", "code"),
    [
        ("/v1/completions", b"", None),
        ("/v1/completions", b"{", None),
        ("/v1/completions", b"[]", None),
        ("/v1/completions", b"\xff\xfe\x00", None),
        ("/v1/completions", b"[" * 200_000, None),
        ("/v1/completions", b'{"model": "base", "prompt": "a", "\\ud800": 1}', "invalid"),
        ("/v1/completions", b'{"model": "base", "prompt": "\\ud800"}', "invalid"),
        ("/v1/completions", b'{"model": "base", "prompt": "a", "temperature": NaN}', "invalid"),
        ("/v1/completions", b'{"model": "base", "prompt": "a", "tools": []}', "invalid"),
        ("/v1/completions", b'{"model": "base", "prompt": [[]]}', "invalid"),
        ("/v1/completions", b'{"model": "base", "prompt": [true]}', "invalid"),
        ("/v1/completions", b'{"model": "base", "prompt": [1e400]}', "invalid"),
        ("/v1/completions", b'{"model": "base", "prompt": [%s]}' % (b"9" * 5000), None),
        ("/v1/completions", json.dumps({**ASKED, "prompt": "word " * 60}).encode(), "invalid"),
        ("/v1/completions", json.dumps({**ASKED, "prompt": [5] * 41}).encode(), "invalid"),
        ("/v1/chat/completions", b'{"model": "base", "messages": []}', "invalid"),
        ("/tokenize", b'{"prompt": 3}', "invalid"),
        ("/v1/edits", b'{"statement": "no arrow"}', "invalid"),
        ("/v1/edits", b'{"statement": "a -> b", "edit": {}}', "invalid"),
        ("/v1/edits", b'{"edit": {}}', "invalid"),
        ("/v1/edits", b'{"edit": {"prompt": "{} is", "subject": "A", "target": "\\ud800"}}', None),
        ("/v1/edits", b'{"edit": {"prompt": "{} is", "subject": "A", "target": 1e999}}', None),
        ("/v1/edits", b'{"edit": {"prompt": "is", "subject": "A", "target": "b"}}', None),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(running, path, content, code):
    headers = {**AUTHORIZED, "Content-Type": "application/json"}
    message = check_error(running.client.post(path, content=content, headers=headers), 400, code)
    assert "\n" not in message


def test_what_is_not_there_is_not_found(running):
    check_error(running.post("/v1/completions", {**ASKED, "model": "other"}), 404, "not_found")
    check_error(running.get("/v1/models/other"), 404, "not_found")
    check_error(running.get("/v1/edits/other"), 404, "not_found")
    check_error(running.revert("other"), 404, "not_found")
    check_error(running.get("/v1/../../etc/passwd"), 404)
    check_error(running.get("/docs"), 404)
    check_error(running.client.put("/v1/completions", json=ASKED), 405)


def test_operators_see_numbers_and_a_log_without_prompts(running, caplog):
    with caplog.at_level(logging.INFO):
        running.complete("base", "Anna Berg a-secret-word", max_tokens=3)
        running.edit(statement="{A-secret-word} is a -> secret", author="another-secret-word")
    own = [one for one in caplog.records if one.name.startswith("emend.server")]
    lines = [one.getMessage() for one in own]
    assert not [one for one in lines if "secret" in one]
    access = [json.loads(one) for one in lines if one.startswith('{"route"')]
    assert access[0]["route"] == "/v1/completions"
    assert access[0]["tokens"] <= 3
    assert access[0]["model"] == "base"
    assert running.get("/healthz").json() == {"status": "ok"}
    assert running.get("/readyz").json()["status"] == "ready"
    running.get("/no/such/route")
    page = running.get("/metrics").text
    found = re.search(r'emend_requests_total\{route="/v1/completions",status="200"\} (\S+)', page)
    assert found
    assert float(found[1]) >= 1
    assert "/no/such/route" not in page
    assert "emend_ledger_version" in page
    assert "emend_tokens_total" in page


def test_edits_come_at_a_pace(tiny, tmp_path):
    with serving(*tiny, tmp_path / "facts.db", limits=Limits(edits_per_minute=2)) as server:
        statuses = [server.revert(f"none-{number}").status_code for number in range(3)]
        assert statuses == [404, 404, 429]
        answer = server.revert("none")
        check_error(answer, 429, "too_many_edits")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        refused = server.client.delete("/v1/edits/x", headers={"Authorization": "Bearer wrong"})
        assert refused.status_code == 401
        assert server.complete("base", "Anna", max_tokens=2)


def test_a_full_queue_is_refused(tiny, tmp_path):
    with serving(*tiny, tmp_path / "facts.db", limits=Limits(waiting=4)) as server:
        body = {**ASKED, "prompt": ["Anna Berg"] * 5}
        check_error(server.post("/v1/completions", body), 400, "invalid")
        check_error(server.post("/v1/completions", {**body, "prompt": "A", "n": 5}), 400, "invalid")
        full = {**ASKED, "prompt": ["Anna Berg"] * 4, "max_tokens": 110, "stream": True}
        with server.client.stream("POST", "/v1/completions", json=full) as under_way:
            lines = under_way.iter_lines()
            assert "data" in next(lines)
            check_error(server.post("/v1/completions", ASKED), 429, "busy")
            assert [one for one in lines if one][-1] == "data: [DONE]"
        assert server.post("/v1/completions", {**full, "stream": False}).status_code == 200


def test_one_server_has_a_ledger(running, tiny):
    with pytest.raises(StoreFailure, match="served by another process"):
        Editor(*tiny, running.editor.ledger.path, TransformersEngine(*tiny), EditorOptions("base"))


def test_a_ledger_of_another_model_is_refused_and_let_go(tiny, tmp_path):
    path = tmp_path / "facts.db"
    other = tiny_model("gpt2")
    Editor(*other, path, TransformersEngine(*other), EditorOptions("base")).close()
    engine = TransformersEngine(*tiny)
    for _ in range(2):  # the second is not refused because the first still has the ledger
        with pytest.raises(InvalidInput, match="the ledger is of the model 'base' with"):
            Editor(*tiny, path, engine, EditorOptions("base"))
    engine.close()


def test_a_conflict_is_refused_or_won_and_what_does_not_take_changes_nothing(server, edits):
    prompt = edits[0]["prompt"].replace("{}", edits[0]["subject"])
    other = {**edits[0], "target": "Burning Desert"}
    first = server.edit(edits[0]).json()
    before = server.text(server.edited, prompt)
    check_error(server.edit(other), 409, "conflict")
    check_error(server.edit(edits[0]), 400)
    assert server.text(server.edited, prompt) == before
    server.editor.options.settings["steps"] = 1  # too few for an edit to take
    answer = server.edit(edits[1])
    check_error(answer, 422, "did_not_take")
    assert not answer.json()["outcomes"][0]["took"]
    server.editor.options.settings.clear()
    listed = {one["id"]: one["status"] for one in server.get("/v1/edits").json()["data"]}
    assert [one for one, status in listed.items() if status == "active"] == [first["id"]]
    assert "proposed" not in listed.values()
    assert server.text(server.edited, prompt) == before
    won = server.edit(other, supersede=True)
    assert won.status_code == 201, won.text
    assert server.text(server.edited, prompt).strip().startswith(other["target"])
    assert server.get(f"/v1/edits/{first['id']}").json()["status"] == "superseded"


def test_what_another_program_does_to_the_ledger_is_served(server, edits):
    prompt = edits[0]["prompt"].replace("{}", edits[0]["subject"])
    base = server.text(server.base, prompt)
    made = server.edit(edits[0]).json()
    assert server.text(server.edited, prompt) != base
    with Ledger.open(server.editor.ledger.path) as ledger:
        ledger.revert(made["id"], author="ann", reason="from outside")
        version = ledger.version
    ends = time.monotonic() + 15
    while server.text(server.edited, prompt) != base:
        assert time.monotonic() < ends
        time.sleep(0.1)
    answer = httpx2.get(f"{server.url}/readyz")
    assert answer.json()["ledger_version"] == version
