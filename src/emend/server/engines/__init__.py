"""Engines that answer requests: transformers in this process, llama.cpp, vLLM."""

from __future__ import annotations

from emend.server.engines._engine import Engine, Release, Served, Unreachable

__all__ = ["Engine", "Release", "Served", "Unreachable"]
