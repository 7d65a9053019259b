"""Methods: one file each, found by its name. `registry().names()` lists them.

Importing this package loads no torch: a method's module is imported when the method is asked for,
and `about` reads each declaration from its source. `advise` recommends one for a situation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emend._lazy import lazily
from emend._registry import METHODS, Registry
from emend.errors import InvalidInput
from emend.methods._about import About, Continuation, read_about
from emend.methods._advice import Advice, Alternative, Measured, advise

if TYPE_CHECKING:
    from emend.methods._method import Method as Method
    from emend.methods._method import method as method
    from emend.methods._trainers import Trainer as Trainer
    from emend.methods._trainers import lab_split as lab_split
    from emend.methods._trainers import trained as trained
    from emend.methods._trainers import trainer as trainer

__getattr__, __dir__ = lazily(__name__)

__all__ = [
    "About",
    "Advice",
    "Alternative",
    "Continuation",
    "Measured",
    "Method",
    "Trainer",
    "about",
    "advise",
    "find",
    "lab_split",
    "method",
    "registry",
    "trained",
    "trainer",
]


def registry() -> Registry[Method]:
    """Return the registry of methods: those of this package, and those of installed others."""
    return Registry("method", METHODS, "emend.methods", of="emend.methods._method:Method")


def about() -> dict[str, About]:
    """Return the declaration of each method, by its name.

    Only a method that `read_about` cannot read is imported.

    Raises:
        BrokenFile: A module does not define its method, or a package cannot be imported.
    """
    known = registry()
    return {name: _about(known, name) for name in known.names()}


def find(method: str | Method) -> Method:
    """Return a method by its name; a method itself is returned as it is.

    Raises:
        UnknownName: There is no method of that name.
        InvalidInput: The argument is neither a name nor a method.
    """
    if isinstance(method, str):
        return registry().get(method)
    if hasattr(method, "run") and isinstance(method, About):  # pyright: ignore[reportUnnecessaryIsInstance]
        return method
    raise InvalidInput(
        f"method is a {type(method).__name__}, expected a name such as 'rome' or a Method: "
        "`emend methods` lists the names"
    )


def _about(known: Registry[Method], name: str) -> About:
    found = known.source(name)
    declared = None if found is None else read_about(*found)
    return known.get(name) if declared is None else declared
