"""Import a package's names when they are first used, so that importing it loads no torch.

A package lists such names once, as a type checker reads them:

    if TYPE_CHECKING:
        from emend.ledger.building import build as build

    __getattr__, __dir__ = lazily(__name__)
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any


def lazily(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package, for the names under ``if TYPE_CHECKING:``.

    Args:
        package: Its name. Imports in its ``__init__.py`` have the form ``from a.b import c as c``;
            where a.b is the package itself, c is a module of it.
    """

    @cache
    def homes() -> dict[str, str]:
        source = Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8")
        return dict(_checked_imports(ast.parse(source)))

    def find(name: str) -> Any:
        home = homes().get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if home == package:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(home), name)

    def names() -> list[str]:
        return sorted({*sys.modules[package].__all__, *homes()})

    return find, names


def _checked_imports(tree: ast.Module) -> list[tuple[str, str]]:
    """Return each name that is imported for the type checker alone, with its module."""
    return [
        (one.name, imported.module or "")
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for imported in block.body
        if isinstance(imported, ast.ImportFrom)
        for one in imported.names
        if one.asname == one.name
    ]
