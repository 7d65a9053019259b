"""The abstract patch: what every kind (weight, hook, prompt, routed) can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from emend import models
from emend._brief import count_text
from emend.errors import InvalidInput
from emend.patches._base import check_base

if TYPE_CHECKING:
    from torch import nn

    from emend.edits import Edit
    from emend.models import Attachment
    from emend.patches._blast import BlastRadius
    from emend.patches._export import Export, ExportOptions, Format
    from emend.patches._gguf_merged import Quantization
    from emend.patches._outcomes import Outcome


P = TypeVar("P", bound="Patch")


def with_fields(patch: P, **fields: Any) -> P:
    """Return a patch with other values of its attributes, of whatever class it is.

    Args:
        patch: The patch; a dataclass stays as it is, another class is changed.
        fields: The values by name.
    """
    if is_dataclass(patch):
        return cast("P", replace(cast("Any", patch), **fields))
    for name, value in fields.items():
        setattr(patch, name, value)
    return patch


class Patch(ABC):
    """A change to a language model that can be attached, detached, saved and loaded.

    Attributes:
        edits: The edits that the patch was made for, those with translations as one for each
            language (`emend.edits.statements_of`).
        method: Name of the method that made it.
        config: The method's settings, JSON-able.
        base: What :func:`~emend.patches.describe_base` says of the model it was made for; empty
            means any model that fits.
        timing: Seconds and bytes that it took to make, JSON-able: ``search``, ``precompute``,
            ``per_edit`` (seconds), ``peak_memory_bytes``; empty where unknown.
        outcomes: What became of each edit when :func:`emend.edit` asked the edited model; empty
            where the patch was not made by it, or has been changed since.
        blast: What else the patch changes, as `emend.probes.blast_radius` measured it; None where
            that was not measured, or the patch has been changed since.
    """

    edits: tuple[Edit, ...]
    method: str
    config: Mapping[str, Any]
    base: Mapping[str, Any]
    timing: Mapping[str, Any]
    outcomes: tuple[Outcome, ...] = ()
    blast: BlastRadius | None = None

    served_by: ClassVar[str] = "emend answers by it (patch.attach), other engines cannot"
    """What can answer by a patch of this kind, in one line; engines load changes of weights."""

    def __repr__(self) -> str:
        by = f" by {self.method}" if self.method else ""
        edits = count_text(len(self.edits), "edit")
        return f"{type(self).__name__}: {edits}{by}, {self._content()}"

    def _content(self) -> str:
        """Say in a few words what the patch holds, such as its rank and size."""
        return "attached by hooks"

    @abstractmethod
    def attachment(self, model: nn.Module) -> Attachment:
        """Make what hangs on a model while the patch acts; nothing hangs there yet.

        Raises:
            InvalidInput: The model does not fit the patch.
        """

    def attach(self, model: nn.Module, *, allow_other_base: bool = False) -> None:
        """Let the patch act on ``model`` for everyone, until it is detached.

        It acts in every thread and task from then on, but for those inside ``models.base(model)``,
        and inside ``applied`` of other patches together with these. Either all of its hooks are
        on the model afterwards or, where one cannot be set, none. Where requests of many threads
        or tasks want different patches, use ``applied``.

        Args:
            model: The causal language model that the patch was made for, also one that PEFT or
                torch.compile has wrapped.
            allow_other_base: Attach although the model's weights are not those the patch was
                made for (its modules must still fit).

        Raises:
            InvalidInput: The model does not fit the patch, or it is attached already.
        """
        models.attach(model, self._checked(model, models.for_everyone(model), allow_other_base))

    def detach(self, model: nn.Module) -> None:
        """Take the patch off ``model`` again, for everyone.

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
        """Let the patch act inside a ``with`` block, in this thread or asyncio task alone.

        Other threads and tasks go on with what acts there, at the same time on the same model.
        Tasks that are started inside the block, and ``asyncio.to_thread``, are inside it too; a
        new thread or one of a pool is not, and gets the model as it is for everyone, with a
        warning. Blocks nest: several patches act together, ``models.base(model)`` inside hides
        them, and a patch applied inside that acts alone. What is computed again in a backward
        pass (gradient checkpointing of transformers) is computed with the patches of its forward
        pass, also when the block was left before.

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

    @abstractmethod
    def without(self, *ids: str) -> Patch:
        """The patch with the named edits taken out, each with its translations.

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
            format: "peft": a folder ``patch-<hash>`` in ``path``, named by its content, for PEFT,
                vLLM and SGLang. "gguf": an adapter that llama.cpp loads beside the base, however
                that is quantised. "merged": a Hugging Face checkpoint. "merged-gguf": the base's
                GGUF file with the changed tensors replaced. None: "gguf" where the path ends so,
                else "peft".
            model: For "merged": the model that the patch was made for. For the GGUF forms of a
                patch that states no architecture, such as an adapter of another maker: its model.
            tokenizer: For "merged": its tokenizer, written beside it.
            base_model: For "peft": what the engine calls the base; None for the patch's own name
                of it. vLLM's resolver compares it with ``--model``.
            base_gguf: The base in GGUF. "merged-gguf" needs it, but for models that came from
                such a file; "gguf" then checks that the adapter fits it.
            quantization: For "merged-gguf": the type of the changed tensors, "f32", "f16" or
                "q8_0"; the others stay as they are.
            allow_other_base: For "merged": as for :meth:`WeightPatch.merge_into`.

        Returns:
            What was written, the next commands, and what to know before them.

        Raises:
            InvalidInput: The patch is no change of weights, the form cannot hold it, the base
                does not fit it, or the path holds something that is not ours to replace.
            UnsupportedModel: gguf knows no architecture like the base's.
            MissingExtra: The package gguf is needed and not installed.
            NumericalFailure: A number is beyond the range of the merged type.
            StoreFailure: It cannot be written.
        """
        from emend.patches._export import ExportOptions

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

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """What the patch is and how it was made, as JSON-able data without tensors."""
