"""From a ledger to a patch: only what is new is solved for.

The active edits are the source and the patch is their build. What a method optimised for an edit is
kept in the ledger under a key of all that it depends on (`_identity`), so that a build after one
edit was added or taken out optimises next to nothing; and one by one, so that the same
edits make the same patch to the last bit, in whatever order they came and whatever was there
between.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emend import methods, models
from emend._progress import progress
from emend.editing.value_cache import edit_of
from emend.edits import Edit, check_conflicts, group_of, statements_of
from emend.errors import InvalidInput
from emend.ledger import Build, Ledger
from emend.ledger.solved import (
    Similar,
    change_names,
    keep_change,
    keep_values,
    known_change,
    known_keys,
    known_values,
    patch_hash,
    similar,
)
from emend.methods import Method
from emend.metrics import verified
from emend.models import ModelView, generate
from emend.patches import Factor, Patch, WeightPatch, add, base_difference, describe_base

PART = 24
"""Edits that are solved for before what was found is written down: a kill loses no more."""

ANSWER_TOKENS = 12
"""The longest former answer that is noted."""


@dataclass(frozen=True)
class Built:
    """A patch with what is known of its making.

    Attributes:
        patch: The patch; empty where no edit is active.
        build: What the ledger keeps of it.
        solved: How many edits, in how many languages, had to be solved for; others were known.
        similar: Pairs of edits about different subjects whose keys are nearly the same.
        seconds: Time of the whole build.
    """

    patch: Patch
    build: Build
    solved: int
    similar: tuple[Similar, ...]
    seconds: float


def build(
    ledger: Ledger,
    model: Any,
    tokenizer: Any,
    *,
    method: str | Method = "memit",
    directory: str | Path | None = None,
    author: str = "",
    edits: Iterable[str] | None = None,
    **settings: Any,
) -> Built:
    """Build the patch of a ledger's active edits.

    Methods that solve for all edits jointly (``memit``) find their values in the ledger; those
    that add up single changes (``rome``) find the changes there; all others, and edit memories,
    are made from nothing, over the edits sorted by id. What the
    unedited model says to each prompt is noted where it is not known.

    Args:
        ledger: The ledger.
        model: The unedited model.
        tokenizer: Its tokenizer.
        method: Name of a method, of any kind, or the `Method` itself.
        directory: Where to save the patch, whole or not at all; None saves nothing.
        author: Who builds.
        edits: Ids of the edits to build in place of the active ones: those that would be active
            if a proposal were accepted, or an edit reverted.
        settings: Settings of the method, as for :func:`emend.edit`.

    Raises:
        Conflict: Two active edits cannot hold together.
        InvalidInput: The ledger is of another base model.
        UnknownName: There is no such method or setting, or no edit with such an id.
        SubjectNotFound: The tokenizer gives a subject no token of its own.
        NumericalFailure: The search or the solution diverged.
    """
    started = time.perf_counter()
    chosen = methods.find(method)
    with models.base(model):
        builder = _Builder(ledger, model, tokenizer, chosen, settings)
        _note_originals(ledger, model, tokenizer, _chosen(ledger, edits))
        wanted = _chosen(ledger, edits)
        check_conflicts(wanted)  # a ledger of an earlier version may hold one edit under two ids
        patch, solved = builder.patch(statements_of(wanted))
        patch = verified(model, tokenizer, patch)
    if directory is not None:
        patch.save_pretrained(directory)
    close = similar(statements_of(wanted), known_keys(ledger, patch))
    seconds = time.perf_counter() - started
    record = Build(
        builder.hash,
        chosen.name,
        dict(patch.config),
        tuple(edit.id for edit in wanted),
        patch_hash(patch),
        str(directory or ""),
        seconds,
    )
    return Built(patch, ledger.add_build(record, author=author), solved, close, seconds)


class _Builder:
    """Makes patches of one method for one model, with what a ledger knows.

    Args:
        ledger: The ledger.
        model: The unedited model.
        tokenizer: Its tokenizer.
        method: The method.
        settings: Those of its settings that are given.
    """

    def __init__(
        self, ledger: Ledger, model: Any, tokenizer: Any, method: Method, settings: dict[str, Any]
    ) -> None:
        self.ledger, self.model, self.tokenizer = ledger, model, tokenizer
        self.method, self.settings = method, settings
        self.config = method.configure(**settings)
        self.base = describe_base(model)
        self.hash = str(self.base["hash"])
        _check_base(ledger, self.base)

    def patch(self, edits: tuple[Edit, ...]) -> tuple[Patch, int]:
        """Make the patch of some edits; return it and how many of them had to be solved for."""
        if not edits:
            return WeightPatch(factors={}, method=self.method.name, base=self.base), 0
        if self.method.continues == "joint":
            return self._rebuilt(edits)
        if self.method.continues == "additive":
            return self._added(edits)
        return self.method.edit(self.model, self.tokenizer, edits, **self.settings), len(edits)

    def _made(self, edits: Sequence[Edit], **more: Any) -> WeightPatch:
        """Make a patch with a method whose solutions the ledger stores."""
        patch = self.method.edit(self.model, self.tokenizer, edits, **{**more, **self.settings})
        assert isinstance(patch, WeightPatch)
        return patch

    def _rebuilt(self, edits: tuple[Edit, ...]) -> tuple[Patch, int]:
        """Solve for all edits jointly, with the values that are known."""
        view = ModelView(self.model)
        known = known_values(self.ledger, self.hash, self.method.name)
        solved: set[str | None] = set()

        def made(some: Sequence[Edit], templates: tuple[str, ...]) -> WeightPatch:
            seed = WeightPatch(factors={}, base=self.base, templates=templates, state=known)
            patch = self._made(some, previous=seed)
            new = keep_values(self.ledger, view, self.tokenizer, patch, known)
            solved.update(edit_of(name) for name in new)
            known.update(new)
            return patch

        templates: tuple[str, ...] = ()
        there = {edit_of(name) for name in known}
        missing = [edit for edit in edits if edit.id not in there]
        parts = _parts(missing, edits) if len(missing) > PART else []
        for part in progress(parts, "solving what is new"):
            templates = made(part, templates).templates
        patch = made(edits, templates)
        # In one order, so that the same edits make the same file.
        return replace(patch, state=dict(sorted(patch.state.items()))), len(solved)

    def _added(self, edits: tuple[Edit, ...]) -> tuple[Patch, int]:
        """Sum single changes; those that are known come from the ledger."""
        view = ModelView(self.model)
        names = change_names(view, self.tokenizer, self.method, self.config, edits)
        known = self.ledger.values(self.hash, self.method.name, names)
        new = [pair for pair in zip(names, edits, strict=True) if pair[0] not in known]
        for name, edit in progress(new, "solving what is new"):
            keep_change(self.ledger, self._made([edit]), name)
        known = self.ledger.values(self.hash, self.method.name, names)
        factors: dict[str, Factor] = {}
        for name, edit in zip(names, edits, strict=True):
            for module, factor in known_change(known[name], edit).items():
                factors[module] = add(factors[module], factor) if module in factors else factor
        kept = self.ledger.solved(group_of(edits[0]))
        noted = next(each for each in kept if each.name == names[0])
        patch = WeightPatch(
            factors=factors,
            edits=edits,
            method=self.method.name,
            config=noted.config,
            base=self.base,
            templates=tuple(noted.details["templates"]),
            statistics=noted.details["statistics"],
        )
        return patch, len(new)


def _parts(missing: Iterable[Edit], edits: Sequence[Edit]) -> list[list[Edit]]:
    """Split the edits to solve for into parts; those of one subject stay together."""
    subjects = {edit.subject for edit in missing}
    ordered = sorted((e for e in edits if e.subject in subjects), key=lambda e: (e.subject, e.id))
    parts: list[list[Edit]] = [[]]
    for edit in ordered:
        if len(parts[-1]) >= PART and parts[-1][-1].subject != edit.subject:
            parts.append([])
        parts[-1].append(edit)
    return parts


def _check_base(ledger: Ledger, base: dict[str, Any]) -> None:
    """Refuse a model that the ledger is not of."""
    own = ledger.base or {}
    difference = base_difference(own, base)
    if difference is not None:
        raise InvalidInput(
            f"the ledger is of the model {own.get('name')!r} with {difference[0]}, found one with "
            f"{difference[1]}: load that model, or begin a ledger for this one"
        )


def _chosen(ledger: Ledger, ids: Iterable[str] | None) -> tuple[Edit, ...]:
    """Return the edits to build, sorted by id."""
    if ids is None:
        return ledger.active()
    return tuple(ledger.entry(id_).edit for id_ in sorted(set(ids)))


def _note_originals(ledger: Ledger, model: Any, tokenizer: Any, edits: Iterable[Edit]) -> None:
    """Note what the unedited model answers, where it is not known."""
    unknown = [edit for edit in edits if edit.original is None]
    if not unknown:
        return
    prompts = [edit.text for edit in unknown]
    texts = generate(model, tokenizer, prompts, max_new_tokens=ANSWER_TOKENS, stop=[".", "\n"])
    pairs = zip(unknown, texts, strict=True)
    ledger.note_originals({edit.id: text.strip() for edit, text in pairs if text.strip()})
