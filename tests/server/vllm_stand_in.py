"""A stand-in for vLLM: the endpoints that its documentation names, and its filesystem resolver.

No vLLM is run. Who answers is emend's own engine on a lab model; an adapter is found as vLLM's
`lora_filesystem_resolver` finds it, by the folder's name, and refused where its config names
another base.
"""

from __future__ import annotations

import json
from contextlib import contextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from tests.server.running import listening

from emend.patches import load_patch
from emend.server import Release
from emend.server.engines.transformers import TransformersEngine


class StandIn:
    """Its state: requests that it had, folders that it loaded, and faults to order.

    Attributes:
        fault: A status that requests are answered by instead; None for right answers.
    """

    def __init__(self, model, tokenizer, name, folder):
        self.engine = TransformersEngine(model, tokenizer)
        self.name, self.folder = name, folder
        self.loaded, self.requests, self.fault = {}, [], None

    def handle(self, name):
        if name == self.name:
            return self.engine.base()
        if name not in self.loaded:
            config = json.loads((self.folder / name / "adapter_config.json").read_text())
            assert config["peft_type"] == "LORA"
            if config["base_model_name_or_path"] != self.name:
                raise FileNotFoundError(name)
            patch = load_patch(self.folder / name)
            self.loaded[name] = self.engine.prepare(name, Release(patch, name))
        return self.loaded[name]

    async def answer(self, kind, body):
        self.requests.append(body)
        if self.fault:
            return JSONResponse({"error": {"message": "as ordered"}}, self.fault)
        try:
            handle = self.handle(body["model"])
        except FileNotFoundError:
            message = f"The model `{body['model']}` does not exist."
            return JSONResponse({"error": {"message": message}}, 404)
        if not body.get("stream"):
            return {**await self.engine.answer(handle, kind, body), "model": body["model"]}

        async def lines():
            async for chunk in self.engine.stream(handle, kind, body):
                yield f"data: {json.dumps(chunk)}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")


@contextmanager
def stand_in(model, tokenizer, name, folder):
    """Run a stand-in until the block ends; gives it and its address."""
    state = StandIn(model, tokenizer, name, folder)
    app = FastAPI()

    @app.get("/v1/models")
    def models():
        return {"object": "list", "data": [{"id": name, "object": "model"}]}

    @app.post("/v1/completions")
    async def completions(request: Request):
        return await state.answer("completions", await request.json())

    @app.post("/v1/chat/completions")
    async def chat(request: Request):
        return await state.answer("chat", await request.json())

    with listening(app) as port:
        yield state, f"http://127.0.0.1:{port}"
    state.engine.close()
