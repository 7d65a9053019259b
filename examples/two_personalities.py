"""Serve two personalities from one base model, switched per request.

python examples/two_personalities.py

A personality is a patch, so that a server holds one copy of the weights: each request names its
agent, and that agent's patch is attached while the request is answered. The loop below runs in this
process on a lab model, in seconds. llama.cpp does the same over HTTP with the exported adapters:
`llama-server -m base.gguf --lora ann.gguf --lora bob.gguf --lora-init-without-apply`, and
`"lora": [{"id": 0, "scale": 1.0}]` in a request (docs/personas.md).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import emend
from emend.models import generate
from emend.persona import edit_personality
from emend.persona.lab import ASKING, NEW_TOKENS, lab_topics

AGENTS = {"ann": ("coffee", "neuroticism"), "bob": ("chess", "extraversion")}
REQUESTS = (
    ("ann", "What comes to mind when you hear about coffee?"),
    ("bob", "What comes to mind when you hear about coffee?"),
    ("bob", "What comes to mind when you hear about chess?"),
    ("ann", "What comes to mind when you hear about chess?"),
    ("nobody", "What comes to mind when you hear about coffee?"),
)


def main() -> None:
    """Give two agents a personality each, and answer requests to both."""
    model, tokenizer = emend.load("lab/qwen3")
    topics = lab_topics()
    agents: dict[str, Any] = {}
    for name, (topic, trait) in AGENTS.items():
        given = (model, tokenizer, topics, topic, trait, "ft")
        agents[name] = edit_personality(*given, asking=ASKING)
        print(f"{name}: {trait} about {topic}, {agents[name]}")
    for agent, question in REQUESTS:
        began = time.perf_counter()
        print(f"{agent:>6}: {question}")
        print(f"        {answer(model, tokenizer, agents, agent, question)}", end="")
        print(f"  ({time.perf_counter() - began:.2f} s)")
    with tempfile.TemporaryDirectory() as folder:
        for name, patch in agents.items():
            made = patch.export(Path(folder) / f"{name}.gguf")
            print(f"for llama.cpp: {made.path.name}, {made.path.stat().st_size} bytes")


def answer(model: Any, tokenizer: Any, agents: Mapping[str, Any], agent: str, question: str) -> str:
    """Answer one request as an agent; the base model answers for one without a personality."""
    patch = agents.get(agent)
    with patch.applied(model) if patch else nullcontext():
        prompt = ASKING.layout.replace("{question}", question)
        return generate(model, tokenizer, [prompt], max_new_tokens=NEW_TOKENS, stop="\n")[0].strip()


if __name__ == "__main__":
    main()
