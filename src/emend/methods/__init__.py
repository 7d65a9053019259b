"""Methods: one file each, found by its name. `registry().names()` lists them."""

from __future__ import annotations

from emend._registry import Registry
from emend.methods._method import Method, method, recommended

__all__ = ["Method", "method", "recommended", "registry"]


def registry() -> Registry[Method]:
    """The methods there are: those of this package, and those of others (`emend.methods`)."""
    return Registry("method", "emend.methods", "emend.methods")
