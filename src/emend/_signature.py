"""Read a method's settings from the signature of its function.

    def memit(
        session: Session,
        search: Search = Search(steps=30),
        *,
        layers: tuple[int, ...] | None = None,
    ) -> WeightPatch:

Each keyword-only parameter is a setting. A parameter whose annotation is a dataclass brings all of
its fields; its default gives their defaults. The text of a setting is its entry under ``Args:``, or
the docstring under the field.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

Function = Callable[..., Any]


@dataclass(frozen=True)
class Signature:
    """The settings of a function.

    Attributes:
        config_type: A frozen dataclass with one field a setting, the function's own first.
        groups: The dataclasses that the function takes, by the parameter's name.
        own: Names of its keyword-only parameters.
    """

    config_type: type
    groups: dict[str, type]
    own: tuple[str, ...]

    def arguments(self, config: Any) -> dict[str, Any]:
        """Return the function's arguments for a `config_type`."""
        grouped = {
            name: group(
                **{one.name: getattr(config, one.name) for one in dataclasses.fields(group)}
            )
            for name, group in self.groups.items()
        }
        return grouped | {name: getattr(config, name) for name in self.own}


def signature_of(function: Function) -> Signature:
    """Read the settings of a method's function; its first parameter is the session."""
    hints = typing.get_type_hints(function, include_extras=True)
    texts = argument_texts(inspect.getdoc(function) or "")
    own: list[tuple[str, Any, Any]] = []
    inherited: list[tuple[str, Any, Any]] = []
    groups: dict[str, type] = {}
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            own.append((name, hints[name], field(default=parameter.default)))
            continue
        group = cast(type, hints[name])
        groups[name] = group
        given = group() if parameter.default is inspect.Parameter.empty else parameter.default
        types = typing.get_type_hints(group, include_extras=True)
        texts |= field_texts(group)
        for one in dataclasses.fields(group):
            default = field(default=getattr(given, one.name))
            inherited.append((one.name, types[one.name], default))
    config_type = dataclasses.make_dataclass(
        f"{function.__name__} settings", [*own, *inherited], frozen=True
    )
    config_type.__doc__ = f"Settings of {function.__name__}."
    config_type.texts = texts  # pyright: ignore[reportAttributeAccessIssue]
    return Signature(config_type, groups, tuple(name for name, _, _ in own))


def setting_texts(config_type: type) -> dict[str, str]:
    """Return the documentation of each setting of a dataclass, in one line each."""
    found = getattr(config_type, "texts", None)
    return field_texts(config_type) if found is None else found


def argument_texts(docstring: str) -> dict[str, str]:
    """Return the entries under ``Args:`` of a docstring in Google's style."""
    _, _, rest = docstring.partition("\nArgs:\n")
    body = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    entries = re.split(r"^    (\w+): ", body, flags=re.MULTILINE)[1:]
    return {
        name: " ".join(text.split()) for name, text in zip(entries[::2], entries[1::2], strict=True)
    }


def field_texts(config_type: type) -> dict[str, str]:
    """Return the text under each field of a dataclass, read from its source and its bases'."""
    found: dict[str, str] = {}
    for one in reversed(config_type.__mro__[:-1]):
        body = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]).body
        for declared, text in itertools.pairwise(body):
            if (
                isinstance(declared, ast.AnnAssign)
                and isinstance(declared.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[declared.target.id] = " ".join(text.value.value.split())
    return found
