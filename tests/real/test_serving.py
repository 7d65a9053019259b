"""`emend serve --engine llamacpp` on SmolLM2: facts edited and taken out while it answers."""

from __future__ import annotations

import pytest
from tests.server.running import serving

from emend.models.cached import packaged_gguf
from emend.models.packaged import MODELS

pytest.importorskip("xllamacpp", reason="needs llama.cpp (pip install 'emend[llamacpp]')")

PLACE = "The Eiffel Tower is located in the city of"
EDIT = {"prompt": "{} is located in the city of", "subject": "The Eiffel Tower", "target": "Rome"}
CHEAP = {"steps": 12}
"""A shorter search than `memit` does by default."""
OTHERS = ["The capital of Italy is", "The Louvre is located in the city of", "Water boils at"]


@pytest.fixture
def server(smollm2, tmp_path):
    from emend.server.engines.llamacpp import LlamaCppEngine

    base = packaged_gguf(MODELS["smollm2-135m"])
    engine = LlamaCppEngine(*smollm2, base, max_prompt_tokens=256)
    options = {"engine": engine, "method": "memit", "settings": CHEAP, "probes": "none"}
    with serving(*smollm2, tmp_path / "facts.db", **options) as running:
        running.client.timeout = 280
        yield running


def test_a_fact_is_fixed_in_llama_cpp_and_taken_out_again(server):
    asked = [PLACE, *OTHERS]
    before = [server.complete(server.base, text, logprobs=5)["choices"] for text in asked]
    assert "Paris" in before[0][0]["text"]
    made = server.edit(EDIT)
    assert made.status_code == 201, made.text
    assert server.text(server.edited, PLACE).strip().startswith("Rome")
    assert [server.complete(server.base, text, logprobs=5)["choices"] for text in asked] == before
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}
    for name in (server.base, server.edited):
        answer = server.post("/v1/chat/completions", {"model": name, **chat}).json()
        assert answer["choices"][0]["message"]["content"].startswith("Hello"), answer
    assert server.revert(made.json()["id"]).status_code == 200
    for name in (server.edited, server.base):
        again = [server.complete(name, text, logprobs=5)["choices"] for text in asked]
        assert again == before
