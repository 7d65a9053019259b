"""A small OpenAI-compatible server on 127.0.0.1, with faults to order; standard library only."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves completions of a function until it is closed.

    Args:
        answer: (prompt, max_tokens, stop) -> what follows the prompt.
        faults: One for each of the first requests: an HTTP status, a (status, headers) pair, a
            text that is sent as the body of a 200, a number of seconds to sleep as a float, or
            None for a right answer. Later requests are answered right.
    """

    def __init__(self, answer: Callable[[str, int, list[str]], str], faults=()) -> None:
        self.answer = answer
        self.faults = list(faults)
        self.requests: list[dict] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.serve(self, json.loads(body))

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def serve(self, handler: BaseHTTPRequestHandler, request: dict) -> None:
        with self.lock:
            self.requests.append({"path": handler.path, **request})
            fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, float):
            time.sleep(fault)
            fault = None
        if isinstance(fault, int):
            fault = (fault, {})
        if isinstance(fault, tuple):
            self.send(handler, fault[0], json.dumps({"error": {"message": "as ordered"}}), fault[1])
        elif isinstance(fault, str):
            self.send(handler, 200, fault, {})
        else:
            self.send(handler, 200, json.dumps(self.answered(handler.path, request)), {})

    def answered(self, path: str, request: dict) -> dict:
        stop = request.get("stop") or []
        if path.endswith("/chat/completions"):
            prompt = request["messages"][-1]["content"]
            text = self.answer(prompt, request["max_completion_tokens"], stop)
            choice = {"message": {"role": "assistant", "content": text}}
        else:
            text = self.answer(request["prompt"], request["max_tokens"], stop)
            choice = {"text": text}
        choice |= {"index": 0, "finish_reason": "stop"}
        return {"id": "1", "object": "x", "created": 0, "model": request["model"],
                "choices": [choice]}  # fmt: skip

    def send(self, handler: BaseHTTPRequestHandler, status: int, body: str, headers: dict) -> None:
        try:
            handler.send_response(status)
            for name, value in {"content-type": "application/json", **headers}.items():
                handler.send_header(name, value)
            handler.send_header("content-length", str(len(body.encode())))
            handler.end_headers()
            handler.wfile.write(body.encode())
        except OSError:  # the client has gone: it did not want to wait
            pass
