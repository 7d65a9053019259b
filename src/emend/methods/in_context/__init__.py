"""Editing by what the model reads: facts before prompts (IKE), questions in steps (MeLLo).

_facts.py             a fact in a prompt: how it is written, which one a prompt gets, what fits
_demonstrations.py    demonstrations of how a fact is used (IKE)
_steps.py             the loop that answers a question in steps (MeLLo)
"""

from __future__ import annotations
