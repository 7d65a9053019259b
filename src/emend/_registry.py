"""Finding methods, metrics and datasets by the names of their files.

A thing is registered by being there: `methods/rome.py` defines `rome`, so `rome` is a method.
Third parties register under an entry-point group. Listing names imports nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from emend.errors import UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """The things of one kind: one per module of a package, and those of entry points.

    Args:
        kind: What is registered, in the singular ("method"); used in messages.
        package: The package whose modules are looked at. Those whose name begins with an
            underscore are private and not listed.
        group: The entry-point group of third parties. A name of ours is never replaced by theirs.
    """

    def __init__(self, kind: str, package: str, group: str) -> None:
        self.kind = kind
        self.package = package
        self.group = group

    def names(self) -> list[str]:
        """All names, sorted. Imports none of the modules."""
        return sorted({*self._own(), *self._foreign()})

    def get(self, name: str) -> T:
        """The object registered under `name`.

        Raises:
            UnknownName: There is none of that name; the message suggests the nearest.
        """
        if name in self._own():
            module = importlib.import_module(f"{self.package}.{name}")
            return cast(T, getattr(module, name))
        foreign = self._foreign()
        if name not in foreign:
            raise UnknownName(self.kind, name, self.names())
        return cast(T, foreign[name].load())

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
