"""The abstract patch: what weight patches and memory patches have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from emend import models
from emend._brief import count_text
from emend.edits import with_translations
from emend.errors import InvalidInput, UnknownName
from emend.patches._base import check_base
from emend.patches._export import Export, ExportOptions, Format
from emend.patches._gguf import Quantization
from emend.patches._results import BlastRadius, Outcome

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Self

    from emend.edits import Edit
    from emend.models import Attachment


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Patch(ABC):
    """A change to a language model that can be attached, detached, saved and loaded.

    Attributes:
        edits: The edits that the patch was made for; each translation is an edit of its own
            (`emend.edits.statements_of`).
        method: Name of the method that made it.
        config: The method's settings, JSON-able.
        base: The model that it was made for, as :func:`~emend.patches.describe_base` describes
            it; empty for any model that fits.
        timing: Cost of making it, JSON-able: ``search``, ``precompute``, ``per_edit`` (seconds),
            ``peak_memory_bytes``; empty where unknown.
        outcomes: The outcome of each edit, as :func:`emend.edit` measured it; empty for a patch
            that another function made or that has been changed since.
        blast: What else the patch changes, as `emend.probes.blast_radius` measured it; None where
            not measured, or where the patch has been changed since.
    """

    edits: tuple[Edit, ...] = ()
    method: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()
    blast: BlastRadius | None = None

    kind: ClassVar[str]
    """The kind of patch, as its files name it."""

    served_by: ClassVar[str] = "emend answers by it (patch.attach), other engines cannot"
    """Which engines can run a patch of this kind, in one line."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "edits", tuple(self.edits))

    def __repr__(self) -> str:
        by = f" by {self.method}" if self.method else ""
        edits = count_text(len(self.edits), "edit")
        return f"{type(self).__name__}: {edits}{by}, {self._content()}"

    @abstractmethod
    def _content(self) -> str:
        """Summarise what the patch holds in a few words, such as its rank and size."""

    @abstractmethod
    def attachment(self, model: nn.Module) -> Attachment:
        """Create the attachment by which the patch acts on a model; nothing is installed yet.

        Raises:
            InvalidInput: The model does not fit the patch.
        """

    def attach(self, model: nn.Module, *, allow_other_base: bool = False) -> None:
        """Apply the patch to ``model`` for everyone, until it is detached.

        It acts in every thread and task from then on, except inside ``models.base(model)``, and
        together with patches that are ``applied``. Either all of its hooks are registered or, if
        one cannot be, none. Where threads or tasks want different patches, use ``applied``.

        Args:
            model: The causal language model that the patch was made for, also one that PEFT or
                torch.compile has wrapped.
            allow_other_base: Attach even if the model's weights are not those the patch was
                made for (its modules must still fit).

        Raises:
            InvalidInput: The model does not fit the patch, or it is attached already.
        """
        models.attach(model, self._checked(model, models.for_everyone(model), allow_other_base))

    def detach(self, model: nn.Module) -> None:
        """Remove the patch from ``model``, for everyone.

        Raises:
            InvalidInput: The patch is not attached to this model.
        """
        there = (one for one in models.for_everyone(model) if one.patch is self)
        attachment = next(there, None)
        if attachment is not None:
            models.detach(model, attachment)
        elif any(one.patch is self for one in models.attachments(model)):
            raise InvalidInput("the patch is applied to this model: leave the with block")
        else:
            raise InvalidInput("the patch is not attached to this model: attach it first")

    @contextmanager
    def applied(
        self, model: nn.Module, *, allow_other_base: bool = False
    ) -> Generator[nn.Module, None, None]:
        """Apply the patch inside a ``with`` block, in this thread or asyncio task only.

        Other threads and tasks use the same model at the same time without it. Tasks that are
        started inside the block, and ``asyncio.to_thread``, are inside it too; a new thread or
        one of a pool is not, and gets the model as it is for everyone, with a warning. Blocks
        nest: several patches act together, ``models.base(model)`` inside hides them, and a patch
        applied inside that acts alone. Activations recomputed in a backward pass (gradient
        checkpointing of transformers) use the patches of their forward pass, even after the
        block has ended.

        Args:
            model: See :meth:`attach`.
            allow_other_base: See :meth:`attach`.

        Yields:
            The model that was given, for convenience.

        Raises:
            InvalidInput: The model does not fit the patch, or the patch acts on it already.
        """
        with models.acting(model, self._checked(model, (), allow_other_base)):
            yield model

    def _checked(
        self, model: nn.Module, more: Iterable[Attachment], allow_other_base: bool
    ) -> Attachment:
        if any(one.patch is self for one in (*more, *models.attachments(model))):
            raise InvalidInput(
                "the patch is attached to this model already: detach it first "
                "(2 * patch doubles an edit by a weight patch)"
            )
        check_base(model, self.base, allow_other_base=allow_other_base)
        return self.attachment(model)

    def known_ids(self, ids: str | Iterable[str]) -> list[str]:
        """Return the ids with those of their translations, all checked to be among the edits.

        Raises:
            UnknownName: One is not.
        """
        known = [edit.id for edit in self.edits]
        wanted = list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
        for id_ in wanted:
            if id_ not in known:
                raise UnknownName("edit", id_, known)
        return list(with_translations(self.edits, wanted))

    def without(self, *ids: str) -> Self:
        """Return the patch without the named edits and their translations.

        Raises:
            UnknownName: An id is not among the patch's edits.
            InvalidInput: The edits cannot be separated.
        """
        gone = set(self.known_ids(ids))
        return self._selected({edit.id for edit in self.edits} - gone)

    def only(self, ids: str | Iterable[str]) -> Self:
        """Return the patch with the named edits only; raises as :meth:`without`."""
        return self._selected(set(self.known_ids(ids)))

    @abstractmethod
    def _selected(self, ids: set[str]) -> Self:
        """Return the patch with some of its edits only, maybe none; see `without`."""

    @abstractmethod
    def save_pretrained(self, directory: str | Path) -> Path:
        """Write the patch to ``directory``, all of it or nothing.

        Returns:
            The directory.

        Raises:
            InvalidInput: The directory holds something that is not a patch of emend.
        """

    def export(
        self,
        path: str | Path,
        format: Format | None = None,
        *,
        model: nn.Module | None = None,
        tokenizer: Any = None,
        base_model: str | None = None,
        base_gguf: str | Path | None = None,
        quantization: Quantization = "f16",
        allow_other_base: bool = False,
    ) -> Export:
        """Write the patch in the form of an engine, whole or not at all.

        Args:
            path: A directory for "peft" and "merged", a file named ``.gguf`` for the others.
            format: See :data:`~emend.patches.Format`; None for "gguf" or "peft", by the path.
            model: See :class:`~emend.patches.ExportOptions`, also for all that follow.
            tokenizer: The model's.
            base_model: What the engine calls the base.
            base_gguf: The base in GGUF.
            quantization: Of the changed tensors.
            allow_other_base: Whether the model may be another one.

        Raises:
            InvalidInput: The patch has no form for the engine, or the base does not fit it.
            UnsupportedModel: gguf knows no architecture like the base's.
            NumericalFailure: A number is beyond the range of the merged type.
        """
        options = ExportOptions(
            format, model, tokenizer, base_model, base_gguf, quantization, allow_other_base
        )
        return self._exported(Path(path), options)

    def _exported(self, path: Path, options: ExportOptions) -> Export:
        """Write the patch; see `export`."""
        raise InvalidInput(
            f"the patch by {self.method or type(self).__name__} is no change of weights, expected "
            f"one to export to {path}: {self.served_by}"
        )

    def card(self) -> dict[str, Any]:
        """Describe the patch and how it was made, as JSON-able data without tensors."""
        return {
            "kind": self.kind,
            "method": self.method,
            "config": dict(self.config),
            "base": dict(self.base),
            "edits": [edit.id for edit in self.edits],
            **self._card_content(),
            "timing": dict(self.timing),
            "outcomes": [one.to_dict() for one in self.outcomes],
            "blast": self.blast and self.blast.to_dict(),
        }

    @abstractmethod
    def _card_content(self) -> dict[str, Any]:
        """Describe what the patch holds; see `card`."""
