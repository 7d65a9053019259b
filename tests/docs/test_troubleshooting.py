"""Every message that the page on troubleshooting quotes is one that emend's code can print."""

from __future__ import annotations

import ast
import re

import pytest
from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.split("\n") if line.startswith("| ")][1:]
MESSAGES = [quoted for row in ROWS for quoted in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
VARIES = r"\.\.\.|'[^']*'|\d+|\b(?:edit|method|memit|rome|ft|ike|read YAML)\b"
"""What a message fills in: what is left out in the quotation, values, numbers and names."""


def texts(tree):
    """The texts of a file but docstrings; a NUL takes the place of what an f-string fills in."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in documentation:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (one.value if isinstance(one, ast.Constant) else "\0" for one in node.values)
            yield "".join(parts)


SOURCE = [
    text
    for file in sorted((ROOT / "src" / "emend").rglob("*.py"))
    for text in texts(ast.parse(file.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_in_the_code(message):
    fragments = [one.strip(" :,") for one in re.split(VARIES, message)]
    fragments = [one for one in fragments if re.search(r"\w", one)]
    assert fragments, "a quotation of nothing but what varies"
    for fragment in fragments:
        assert any(fragment in text for text in SOURCE), fragment


def test_messages_are_quoted():
    assert len(MESSAGES) > 10
    assert sum("`" not in row.split(" | ")[0] for row in ROWS) <= 1, "a row quotes its message"
