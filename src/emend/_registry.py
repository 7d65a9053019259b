"""Finding methods, metrics and datasets by the names of their files.

A thing is registered by being there: `methods/rome.py` defines `rome`, so `rome` is a method.
Third parties register under an entry-point group. Listing names imports nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from emend.errors import BrokenFile, UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """The things of one kind: one per module of a package, and those of entry points.

    Args:
        kind: What is registered, in the singular ("method"); used in messages.
        package: The package whose modules are looked at. Those whose name begins with an
            underscore are private and not listed.
        group: The entry-point group of third parties. A name of ours is never replaced by theirs.
        of: "module:class" of what is registered, looked up when something is got; "" for any.
    """

    def __init__(self, kind: str, package: str, group: str, of: str = "") -> None:
        self.kind = kind
        self.package = package
        self.group = group
        self.of = of

    def names(self) -> list[str]:
        """All names, sorted. Imports none of the modules."""
        return sorted({*self._own(), *self._foreign()})

    def get(self, name: str) -> T:
        """The object registered under `name`.

        Raises:
            UnknownName: There is none of that name; the message suggests the nearest.
            BrokenFile: The module does not define it, or a third party's cannot be imported.
        """
        if name in self._own():
            module = importlib.import_module(f"{self.package}.{name}")
            return self._defined(module, name, str(module.__file__))
        foreign = self._foreign()
        if name not in foreign:
            raise UnknownName(self.kind, name, self.names())
        return self._loaded(foreign[name])

    def source(self, name: str) -> tuple[Path, str] | None:
        """Find the file that defines a name, and what it is called there. Imports nothing.

        Returns:
            None where that is not known without an import.
        """
        if name in self._own():
            return _file_of(_spec_of(f"{self.package}.{name}"), name)
        point = self._foreign().get(name)
        return None if point is None else _file_of(_spec_of(point.module), point.attr)

    def _loaded(self, point: EntryPoint) -> T:
        """Import what a third party registered; its failures are told in one line."""
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

    def _own(self) -> set[str]:
        # find_spec imports the parent (light) but not the package itself.
        spec = importlib.util.find_spec(self.package)
        places = spec.submodule_search_locations if spec else None
        modules = pkgutil.iter_modules(places or [])
        return {module.name for module in modules if not module.name.startswith("_")}

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
