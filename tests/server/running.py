"""A server in this process, on a free port of 127.0.0.1, and requests to it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import httpx2
import uvicorn

from emend.server import Editor, EditorOptions, Limits, create_app
from emend.server.engines.transformers import TransformersEngine

TOKEN = "a-token-of-tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


class Running:
    """A server, and a client of it."""

    def __init__(self, editor, port):
        self.editor, self.port = editor, port
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx2.Client(base_url=self.url, timeout=60)
        self.base = editor.options.name
        self.edited = editor.edited

    def get(self, path, **more):
        return self.client.get(path, **more)

    def post(self, path, body, **more):
        return self.client.post(path, json=body, **more)

    def edit(self, edit=None, **body):
        given = {"edit": edit} if edit else {}
        return self.post("/v1/edits", {"probes": "none", **given, **body}, headers=AUTHORIZED)

    def revert(self, id):
        return self.client.delete(f"/v1/edits/{id}", headers=AUTHORIZED)

    def complete(self, model, prompt, **body):
        given = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0, **body}
        answer = self.post("/v1/completions", given)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def text(self, model, prompt, **body):
        return self.complete(model, prompt, **body)["choices"][0]["text"]


@contextmanager
def serving(model, tokenizer, ledger, *, limits=None, engine=None, **options):
    """Run a server for a model and a ledger until the block ends."""
    engine = engine or TransformersEngine(model, tokenizer)
    editor = Editor(model, tokenizer, ledger, engine, EditorOptions(**{"name": "base", **options}))
    app = create_app(editor, token=TOKEN, limits=limits or Limits(edits_per_minute=1000))
    with listening(app) as port:
        running = Running(editor, port)
        with running.client:
            yield running


@contextmanager
def listening(app):
    """Run an application until the block ends; gives its port."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)
