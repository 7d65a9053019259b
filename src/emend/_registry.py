"""Finding methods, metrics and datasets by the names of their files.

A thing is registered by being there: `methods/rome.py` defines `rome`, so `rome` is a method.
Third parties register under an entry-point group. Listing names imports nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from emend.errors import BrokenFile, UnknownName

T = TypeVar("T")

METHODS = ("emend.methods", "emend.methods.hypernetwork", "emend.methods.in_context")
"""Packages whose modules are methods, families after the package that they are in."""


class Registry(Generic[T]):
    """The things of one kind: one per module of a package, and those of entry points.

    Args:
        kind: What is registered, in the singular ("method"); used in messages.
        packages: The packages whose modules are looked at; a package among the modules of another
            is a family and no thing itself. Modules whose name begins with an underscore are
            private and not listed.
        group: The entry-point group of third parties. A name of ours is never replaced by theirs.
        of: "module:class" of what is registered, looked up when something is got; "" for any.
        attribute: What each module calls the thing; by default its own name.
    """

    def __init__(
        self, kind: str, packages: Sequence[str], group: str, of: str = "", attribute: str = ""
    ) -> None:
        self.kind = kind
        self.packages = packages
        self.group = group
        self.of = of
        self.attribute = attribute

    def names(self) -> list[str]:
        """Return all names, sorted. Imports none of the modules."""
        return sorted({*self._own(), *self._foreign()})

    def get(self, name: str) -> T:
        """Return the object registered under `name`.

        Raises:
            UnknownName: There is none of that name; the message suggests the nearest.
            BrokenFile: The module does not define it, or a third party's cannot be imported.
        """
        if package := self._own().get(name):
            module = importlib.import_module(f"{package}.{name}")
            return self._defined(module, self.attribute or name, str(module.__file__))
        foreign = self._foreign()
        if name not in foreign:
            raise UnknownName(self.kind, name, self.names())
        return self._loaded(foreign[name])

    def source(self, name: str) -> tuple[Path, str] | None:
        """Find the file that defines a name, and what it is called there. Imports nothing.

        Returns:
            None where that is not known without an import.
        """
        if package := self._own().get(name):
            return _file_of(_spec_of(f"{package}.{name}"), self.attribute or name)
        point = self._foreign().get(name)
        return None if point is None else _file_of(_spec_of(point.module), point.attr)

    def _loaded(self, point: EntryPoint) -> T:
        """Import what a third party registered; its failures are reported in one line."""
        place = f"{point.value} of {point.dist.name}" if point.dist else point.value
        try:
            module = importlib.import_module(point.module)
        except Exception as error:
            reason = " ".join(str(error).split()) or "no reason given"
            raise BrokenFile(
                f"{self.kind} {point.name!r} ({place}) cannot be imported "
                f"({type(error).__name__}: {reason}): update that package, or uninstall it"
            ) from error
        return self._defined(module, point.attr, place)

    def _defined(self, module: ModuleType, name: str, place: str) -> T:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        expected = self._expected()
        if found is None or not isinstance(found, expected):
            what = f"{expected.__name__} of that name" if self.of else f"{self.kind} of that name"
            there = (
                "nothing of it" if found is None else f"an object of type {type(found).__name__}"
            )
            raise BrokenFile(
                f"{place} was asked for {name!r} and holds {there}, expected a {what}: define it "
                "there under the name of its file, or take the file away"
            )
        return cast(T, found)

    def _expected(self) -> type:
        module, _, name = self.of.partition(":")
        return getattr(importlib.import_module(module), name) if self.of else object

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def _own(self) -> dict[str, str]:
        """Return the package of each name."""
        families = {package.rpartition(".")[2] for package in self.packages}
        found: dict[str, str] = {}
        for package in self.packages:
            spec = _spec_of(package)
            places = spec.submodule_search_locations if spec else None
            for module in pkgutil.iter_modules(places or []):
                if not module.name.startswith("_") and module.name not in families:
                    found[module.name] = package
        return found

    def _foreign(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}


def _spec_of(module: str) -> ModuleSpec | None:
    """Find a module without importing the packages it is in, as `find_spec` would."""
    places, name, spec = None, "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = _found(name, places)
        if spec is None:
            return None
        places = spec.submodule_search_locations
    return spec


def _found(name: str, places: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is not None and (spec := find(name, places, None)) is not None:
            return cast(ModuleSpec, spec)
    return None


def _file_of(spec: ModuleSpec | None, name: str) -> tuple[Path, str] | None:
    is_file = spec is not None and spec.has_location and spec.origin is not None
    return (Path(str(spec.origin)), name) if spec is not None and is_file else None
