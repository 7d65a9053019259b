"""Serve a model with its edits: an OpenAI-compatible interface, and one that edits.

By file:

app, guard, observing      the application; what requests pass first; what operators see
openai_routes, bodies      models, completions and chats; bodies of all requests
edit_routes, editor        edits by request; the ledger and the engine kept in step
engines                    who answers: transformers in this process, llama.cpp, vLLM
"""

from __future__ import annotations

from emend.server.app import create_app, run
from emend.server.editor import Change, DidNotTake, Editor, EditorOptions
from emend.server.engines import Engine, Release, Served
from emend.server.guard import Limits

__all__ = [
    "Change",
    "DidNotTake",
    "Editor",
    "EditorOptions",
    "Engine",
    "Limits",
    "Release",
    "Served",
    "create_app",
    "run",
]
