"""The abstract patch: what every kind (weight, hook, prompt, routed) can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emend._brief import count_text

if TYPE_CHECKING:
    from torch import nn

    from emend.edits import Edit
    from emend.patches._outcomes import Outcome


class Patch(ABC):
    """A change to a language model that can be attached, detached, saved and loaded.

    Attributes:
        edits: The edits that the patch was made for.
        method: Name of the method that made it.
        config: The method's settings, JSON-able.
        base: What :func:`~emend.patches.describe_base` says of the model it was made for; empty
            means any model that fits.
        timing: Seconds and bytes that it took to make, JSON-able: ``search``, ``precompute``,
            ``per_edit`` (seconds), ``peak_memory_bytes``; empty where unknown.
        outcomes: What became of each edit when :func:`emend.edit` asked the edited model; empty
            where the patch was not made by it, or has been changed since.
    """

    edits: tuple[Edit, ...]
    method: str
    config: Mapping[str, Any]
    base: Mapping[str, Any]
    timing: Mapping[str, Any]
    outcomes: tuple[Outcome, ...] = ()

    def __repr__(self) -> str:
        by = f" by {self.method}" if self.method else ""
        edits = count_text(len(self.edits), "edit")
        return f"{type(self).__name__}: {edits}{by}, {self._content()}"

    def _content(self) -> str:
        """Say in a few words what the patch holds, such as its rank and size."""
        return "attached by hooks"

    @abstractmethod
    def attach(self, model: nn.Module, *, allow_other_base: bool = False) -> None:
        """Let the patch act on ``model`` until it is detached.

        Args:
            model: The causal language model that the patch was made for.
            allow_other_base: Attach although the model's weights are not those the patch was
                made for (its modules must still fit).

        Raises:
            InvalidInput: The model does not fit the patch, or it is attached already.
        """

    @abstractmethod
    def detach(self, model: nn.Module) -> None:
        """Take the patch off ``model`` again.

        Raises:
            InvalidInput: The patch is not attached to this model.
        """

    @contextmanager
    def applied(
        self, model: nn.Module, *, allow_other_base: bool = False
    ) -> Generator[nn.Module, None, None]:
        """Let the patch act inside a ``with`` block; see :meth:`attach`.

        Yields:
            The model that was given, for convenience.
        """
        self.attach(model, allow_other_base=allow_other_base)
        try:
            yield model
        finally:
            self.detach(model)

    @abstractmethod
    def without(self, *ids: str) -> Patch:
        """The patch with the named edits taken out.

        Raises:
            UnknownName: An id is not among the patch's edits.
            InvalidInput: The edits cannot be told apart.
        """

    @abstractmethod
    def only(self, ids: str | Iterable[str]) -> Patch:
        """The patch with the named edits alone; raises as :meth:`without`."""

    @abstractmethod
    def save_pretrained(self, directory: str | Path) -> Path:
        """Write the patch to ``directory``, all of it or nothing.

        Returns:
            The directory.

        Raises:
            InvalidInput: The directory holds something that is not a patch of ours.
        """

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """What the patch is and how it was made, as JSON-able data without tensors."""
