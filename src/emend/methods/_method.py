"""What a method is: a function from a model and edits to a patch, with a name and settings."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from emend import models
from emend.edits import Edit
from emend.errors import InvalidInput, UnknownName
from emend.patches import Patch

Run = Callable[[Any, Any, "tuple[Edit, ...]", Any], Patch]
"""(model, tokenizer, edits, config) -> patch."""


@dataclass(frozen=True)
class Method:
    """A registered method.

    Attributes:
        name: The name of its module.
        title: One line that says what it is.
        paper: Authors, year and address.
        when: When to use it, for people choosing.
        config_type: Its frozen dataclass of settings, each with a docstring under it.
        run: The function itself.
        order_free: Whether the same edits in any order make the same patch, to rounding.
    """

    name: str
    title: str
    paper: str
    when: str
    config_type: type
    run: Run
    order_free: bool = False

    def edit(self, model: Any, tokenizer: Any, edits: Iterable[Edit], **overrides: Any) -> Patch:
        """Make a patch for the unedited model, whatever is attached to it; it is not changed.

        Args:
            model: A Hugging Face causal language model.
            tokenizer: Its tokenizer.
            edits: What to change, at least one.
            overrides: Settings that differ from the model's own recommended ones, and these
                from the defaults of ``config_type``.

        Raises:
            InvalidInput: No edits, something else than edits, or two with the same id.
            UnknownName: There is no such setting.
            SubjectNotFound: The tokenizer makes no token of a subject.
            NumericalFailure: The search or the solution gave something not finite.
        """
        edits = check_edits(edits)
        config = self.configure(**{**recommended(model, self.name), **overrides})
        with models.base(model):
            return self.run(model, tokenizer, edits, config)

    def configure(self, **overrides: Any) -> Any:
        """The method's settings with some of them set.

        Raises:
            UnknownName: There is no such setting.
        """
        known = [field.name for field in dataclasses.fields(self.config_type)]
        for name in overrides:
            if name not in known:
                raise UnknownName(f"setting of {self.name}", name, known)
        return self.config_type(**overrides)


def recommended(model: Any, name: str) -> dict[str, Any]:
    """Settings of a method that a model recommends for itself, if any.

    They stand in the model's ``config.json`` under ``emend``, by the method's name:
    ``"emend": {"rome": {"layer": 1}}``. Whoever has found what serves a model keeps it there.
    """
    own = getattr(getattr(model, "config", None), "emend", None)
    return dict(own.get(name, {})) if isinstance(own, dict) else {}


def method(
    *, title: str, paper: str, when: str, order_free: bool = False
) -> Callable[[Run], Method]:
    """Make a method of a function ``(model, tokenizer, edits, config: Config) -> Patch``.

    The method takes the function's name, and its settings from the annotation of ``config``.
    What the arguments mean is said at `Method`.
    """

    def register(function: Run) -> Method:
        name = function.__name__
        parameter = list(inspect.signature(function).parameters)[3]
        config_type = typing.get_type_hints(function)[parameter]
        return Method(name, title, paper, when, config_type, function, order_free)

    return register


def check_edits(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """The edits as a tuple.

    Raises:
        InvalidInput: No edits, something else than edits, or two with the same id.
    """
    checked = tuple(edits)
    if not checked:
        raise InvalidInput("no edits were given, expected at least one: nothing to change")
    seen: set[str] = set()
    for edit in checked:
        if not isinstance(edit, Edit):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(
                f"an edit is a {type(edit).__name__}, expected emend.Edit: "
                "read them with emend.read_edits"
            )
        if edit.id in seen:
            raise InvalidInput(f"two edits have the id {edit.id!r}: give each its own")
        seen.add(edit.id)
    return checked
