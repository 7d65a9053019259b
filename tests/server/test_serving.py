"""Requests and edits of a running server: transformers in this process, a lab model."""

from __future__ import annotations

from emend.models import generate


def text_of(record):
    return record["prompt"].replace("{}", record["subject"])


def test_an_edit_is_answered_and_reverted_and_the_base_is_as_before(server, edits, lab):
    prompt, target = text_of(edits[0]), edits[0]["target"].strip()
    before = server.text(server.base, prompt)
    assert before == generate(*lab, [prompt], max_new_tokens=8)[0]
    assert server.text(server.edited, prompt) == before
    made = server.edit(edits[0], reason="a test", author="ann")
    assert made.status_code == 201, made.text
    assert made.json()["took"]
    assert made.json()["author"] == "ann"
    answer = server.complete(server.edited, prompt)
    assert answer["choices"][0]["text"].strip().startswith(target)
    assert server.text(server.base, prompt) == before
    listed = server.get("/v1/edits", params={"status": "active"}).json()
    assert [one["id"] for one in listed["data"]] == [made.json()["id"]]
    gone = server.revert(made.json()["id"])
    assert gone.status_code == 200, gone.text
    assert gone.json()["ledger_version"] > made.json()["ledger_version"]
    assert server.text(server.edited, prompt) == before
    history = server.get(f"/v1/edits/{made.json()['id']}").json()["history"]
    assert [one["what"] for one in history] == ["added", "noted", "accepted", "reverted"]


def test_every_answer_names_the_version_that_it_was_given_by(server, edits):
    first = server.get("/v1/models").headers["x-emend-ledger-version"]
    server.edit(edits[0])
    answer = server.post(
        "/v1/completions", {"model": server.edited, "prompt": "Hello", "max_tokens": 1}
    )
    models = {one["id"]: one for one in server.get("/v1/models").json()["data"]}
    version = models[server.edited]["ledger_version"]
    assert int(answer.headers["x-emend-ledger-version"]) == version > int(first)
    assert answer.headers["x-emend-patch"] == models[server.edited]["patch"]
    assert models[server.edited]["parent"] == server.base
