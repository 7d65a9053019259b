"""Every public name is there, and documented where it can be."""

from __future__ import annotations

import importlib
import inspect

import pytest

import emend

ROOMS = ["emend", *(f"emend.{room}" for room in sorted({*dir(emend)} - {*emend.__all__}))]


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_are_documented(room):
    module = importlib.import_module(room)
    assert (module.__doc__ or "").strip()
    names = getattr(module, "__all__", None) or [
        name
        for name, one in vars(module).items()
        if not name.startswith("_") and getattr(one, "__module__", "") == room
    ]
    assert names
    undocumented = []
    for name in names:
        one = getattr(module, name)
        if inspect.isclass(one) or inspect.isroutine(one) or inspect.ismodule(one):
            said = vars(one).get("__doc__") if inspect.isclass(one) else one.__doc__
            # A dataclass without a docstring gets its signature as one.
            if not said or said.startswith(f"{name}("):
                undocumented.append(name)
    assert not undocumented
