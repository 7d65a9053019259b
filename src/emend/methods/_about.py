"""Read what a method declares from its source, so that listing methods loads no torch.

A method's decorator holds literals only, so its title, paper and flags are read by parsing its
file. A method that cannot be read in this way is imported.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

Continuation = Literal["joint", "additive", "sequential", "append"]
"""How a method continues an earlier patch; see `About`."""


@dataclass(frozen=True)
class About:
    """The declaration of a method.

    Attributes:
        name: Name of its module.
        title: One line that describes it.
        paper: Authors, year and address.
        when: When to use it.
        continues: How it continues an earlier patch. "joint": all edits, the earlier ones too, are
            solved together on the unedited model, and known target values are taken from the
            patch, which may be another method's. "additive": the new edits are made on the
            unedited model, and their changes added. "sequential": the new edits are made on the
            edited model, and their changes added. "append": the new edits join the memory.
        order_invariant: Whether the same edits in any order and any batches make the same patch, to
            rounding.
        prompt_only: Whether it changes only the prompt, so that it works on an endpoint.
        by_subject: Whether it writes at the subject's last token, so that a prompt must state
            something about the subject.
        aims: Whether it takes another loss in place of the target's likelihood; see
            `emend.editing.Aim`.
        avoid: When not to use it.
        version: Raised when the same settings give another patch, beyond rounding: results that a
            ledger or sweep cached of an earlier version are then computed again.
    """

    name: str
    title: str
    paper: str
    when: str
    continues: Continuation
    order_invariant: bool = False
    prompt_only: bool = False
    by_subject: bool = False
    aims: bool = False
    avoid: str = ""
    version: int = 1

    @property
    def is_memory(self) -> bool:
        """Whether its patches are memories next to the weights."""
        return self.continues == "append"


def read_about(path: Path, name: str) -> About | None:
    """Read a method's declaration from its source.

    Args:
        path: The module's file.
        name: The decorated function.

    Returns:
        None where the file does not define the function once, at module level, under emend's own
        decorator with literal arguments; it must then be imported.
    """
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return None
    bound = [node for node in body if name in _names_bound(node)]
    if len(bound) != 1 or not isinstance(bound[0], ast.FunctionDef):
        return None
    function = bound[0]
    if len(function.decorator_list) != 1:
        return None
    call = function.decorator_list[0]
    if not isinstance(call, ast.Call) or not _is_ours(call.func, body) or call.args:
        return None
    try:
        declared = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except ValueError:
        return None
    if not declared.keys() <= {field.name for field in fields(About)}:
        return None
    try:
        return About(name=name, **declared)
    except TypeError:  # a field is missing
        return None


def _names_bound(node: ast.stmt) -> set[str]:
    """Return the names that a statement binds in its module, those inside `if` and `try` too."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and _stores(n)}
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Import, ast.ImportFrom)):
            found |= {one.asname or one.name.partition(".")[0] for one in inner.names}
        elif isinstance(inner, (ast.FunctionDef, ast.ClassDef)):
            found.add(inner.name)
    return found


def _stores(name: ast.Name) -> bool:
    return isinstance(name.ctx, (ast.Store, ast.Del))


def _is_ours(decorator: ast.expr, body: list[ast.stmt]) -> bool:
    """Return whether a decorator is `method` as imported from `emend.methods`."""
    if not isinstance(decorator, ast.Name):
        return False
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module in ("emend.methods", "emend.methods._method")
        and any(one.name == "method" and (one.asname or one.name) == decorator.id for one in names)
        for node in body
        for names in [getattr(node, "names", [])]
    )
