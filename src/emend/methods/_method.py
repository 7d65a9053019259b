"""A method: a function from an editing session to a patch, with a name and settings."""

from __future__ import annotations

import dataclasses
import json
import logging
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emend import models
from emend._settings import checked
from emend._signature import Signature, signature_of
from emend.editing.aims import Aim
from emend.editing.session import Search, Session
from emend.edits import Edit, check_conflicts, check_edits, continued, statements_of
from emend.errors import InvalidInput, UnsupportedModel
from emend.methods._about import About, Continuation
from emend.patches import MemoryPatch, Patch, WeightPatch, added, check_base

logger = logging.getLogger("emend")

Run = Callable[..., Patch]
"""(session, settings) -> patch."""

WITHOUT_SUBJECT = ("ft", "ultraedit", "grace")
"""Some methods that need no subject, to suggest where a prompt has none."""


@dataclass(frozen=True, kw_only=True)
class Method(About):
    """A registered method; see `About` for what it declares.

    Attributes:
        run: The function.
        signature: Its settings.
    """

    run: Run
    signature: Signature

    @property
    def config_type(self) -> type:
        """The frozen dataclass of its settings."""
        return self.signature.config_type

    @property
    def patch_type(self) -> type[Patch]:
        """The class of the patches that the method makes, from its return annotation."""
        return typing.get_type_hints(self.run)["return"]

    def edit(
        self,
        model: Any,
        tokenizer: Any,
        edits: Iterable[Edit],
        *,
        previous: Patch | None = None,
        continues: Continuation | None = None,
        ablation: Mapping[str, Any] | None = None,
        aim: Aim | None = None,
        **overrides: Any,
    ) -> Patch:
        """Make a patch for the unedited model, whatever is attached to it; it is not changed.

        Args:
            model: A Hugging Face causal language model.
            tokenizer: Its tokenizer.
            edits: At least one edit. One with translations is made as one edit for each language,
                all at once.
            previous: A patch to continue; the result holds its edits too. A new edit replaces an
                earlier one with its id or its statement.
            continues: How it is continued; by default the method's own (`About.continues`).
                "sequential" makes the new edits on the edited model, as published code does, so
                that their order matters; any method that changes weights can.
            ablation: Changes of a closed-form method for experiments: fields of
                `emend.editing.SearchSettings`, and ``ridge``; see `Session`.
            aim: Another loss in place of the target's likelihood, of methods that declare
                `About.aims`; the patch's settings record it.
            overrides: Settings that differ from the method's defaults.

        Raises:
            Conflict: Two edits give one statement different targets, or are the same under two ids.
            InvalidInput: There are no edits, or other things than edits; two have the same id; a
                prompt is a subject alone and the method writes at the subject; a setting has the
                wrong type or range; the previous patch is of another type, model or method; the
                method cannot continue in this way; or it takes no aim.
            UnknownName: A setting does not exist.
            UnsupportedModel: The model is an endpoint, and the method needs the model itself.
            SubjectNotFound: The tokenizer makes no token of a subject.
            NumericalFailure: The optimisation or the solution is not finite.
        """
        edits = check_edits(edits)
        check_conflicts(edits)
        edits = statements_of(edits)
        if isinstance(model, models.Endpoint) and not self.prompt_only:
            raise UnsupportedModel(
                f"{self.name} needs the model's weights, which {model.name} does not give: use a "
                "method that acts on prompts (ike, mello), or load the model here"
            )
        if ablation and Search not in self.signature.groups.values():
            raise InvalidInput(
                f"ablation is given, and {self.name} optimises no target values, expected a method "
                "that does, such as rome or memit: leave it out"
            )
        self._check_aim(aim)
        config = self.configure(**overrides)
        start = models.ensure_start(model, tokenizer)

        def made(edits: tuple[Edit, ...], previous: Patch | None = None) -> Patch:
            self._check_prompts(tokenizer, edits)
            given = (model, tokenizer, edits, previous)
            session = Session(*given, method=self.name, config=config, ablation=ablation, aim=aim)
            return self.run(session, **self.signature.arguments(config))

        with models.base(model):
            patch = self._continued(model, edits, previous, continues or self.continues, aim, made)
        if start is not None and isinstance(patch, (WeightPatch, MemoryPatch)):
            patch = dataclasses.replace(patch, base={**patch.base, "start_token": start.text})
        return patch

    def _continued(
        self,
        model: Any,
        edits: tuple[Edit, ...],
        previous: Patch | None,
        continues: Continuation,
        aim: Aim | None,
        made: Callable[..., Patch],
    ) -> Patch:
        """Make the patch of the edits and of those of the previous patch; see `About.continues`."""
        self._check_continues(continues)
        if previous is None:
            return made(edits)
        checked_type = self._memory if self.is_memory else self._weights
        before = checked_type(model, previous)
        everything = continued(before.edits, edits)
        new = {edit.id for edit in edits}
        kept = [edit.id for edit in everything if edit.id not in new]
        if isinstance(before, MemoryPatch):
            return made(edits, before.to_go_on_from(kept))
        if continues == "joint":
            self._check_same_aim(before, aim)
            return made(everything, before)
        if continues == "additive":
            change = typing.cast(WeightPatch, made(edits))
            return before.only(kept) + change if kept else change
        # Values optimised on the unedited model are wrong for the edited one, and the reverse.
        own = self.continues == "sequential"
        with before.applied(model):
            change = typing.cast(WeightPatch, made(edits, before if own else None))
        change = change if own else dataclasses.replace(change, state={})
        # The change for a replaced edit stays: the new one was made on top of it.
        both = added(before, change)
        return dataclasses.replace(both, edits=everything, timing=change.timing)

    def _check_aim(self, aim: Aim | None) -> None:
        """Refuse an aim that the method does not take."""
        if aim is not None and not self.aims:
            raise InvalidInput(
                f"the aim {aim.name} is given, and {self.name} only makes a model generate "
                "targets, expected a method with another loss: take rome, memit, alphaedit or ft"
            )

    def _check_same_aim(self, previous: Patch, aim: Aim | None) -> None:
        """Refuse to solve the earlier edits together with new ones that have another aim."""
        before = json.loads(json.dumps(previous.config.get("aim")))
        now = None if aim is None else json.loads(json.dumps(aim.record()))  # as saved and loaded
        if before != now:
            raise InvalidInput(
                f"previous was made with the aim {_name_of(before)}, expected {_name_of(now)}: "
                'add the two patches, or pass continues="sequential"'
            )

    def _check_prompts(self, tokenizer: Any, edits: tuple[Edit, ...]) -> None:
        """Refuse prompts that the method cannot edit.

        Raises:
            InvalidInput: A prompt is its subject alone, and the method writes at the subject.
        """
        if not self.by_subject:
            return
        for edit in edits:
            if not any(letter.isalnum() for letter in edit.prompt.replace("{}", "")):
                raise InvalidInput(
                    f"edit {edit.id!r} has the prompt {edit.prompt!r}, expected one that states "
                    f"something about its subject {edit.subject!r}: {self.name} changes what the "
                    "model recalls of a subject; write the prompt as '{} was born in', or take a "
                    f"method that needs no subject ({', '.join(WITHOUT_SUBJECT)})"
                )
        _warn_of_shared_tokens(tokenizer, edits)

    def _memory(self, model: Any, previous: Patch) -> MemoryPatch:
        if not isinstance(previous, MemoryPatch):
            raise InvalidInput(
                f"previous is a {type(previous).__name__}, expected a patch of {self.name}: "
                "a memory continues a memory"
            )
        self._check_maker(previous)
        check_base(model, previous.base)
        return previous

    def _weights(self, model: Any, previous: Patch) -> WeightPatch:
        if not isinstance(previous, WeightPatch):
            raise InvalidInput(
                f"previous is a {type(previous).__name__}, expected a weight patch: "
                "only changes of weights can be continued"
            )
        if self.continues == "additive":
            self._check_maker(previous)
        check_base(model, previous.base)
        return previous

    def _check_continues(self, continues: Continuation) -> None:
        if continues != self.continues and (self.is_memory or continues != "sequential"):
            ways = self.continues if self.is_memory else f"{self.continues} or sequential"
            raise InvalidInput(
                f"continues is {continues!r}, expected {ways}: {self.name} has no other way"
            )

    def _check_maker(self, previous: Patch) -> None:
        if previous.method != self.name:
            raise InvalidInput(
                f"previous was made by {previous.method or 'an unknown method'}, expected "
                f"{self.name}: continue with the same method, or add the two patches"
            )

    def configure(self, **overrides: Any) -> Any:
        """Return the method's settings with some of them set, each of its type and in its range.

        Raises:
            UnknownName: A setting does not exist.
            InvalidInput: A value has the wrong type or is outside its range.
        """
        return self.config_type(**checked(self.name, self.config_type, overrides))


def _name_of(aim: Mapping[str, Any] | None) -> str:
    """Name a recorded aim in a message."""
    return "target_likelihood" if aim is None else str(aim.get("name"))


def _warn_of_shared_tokens(tokenizer: Any, edits: Sequence[Edit]) -> None:
    """Warn of subjects that have no last token of their own: "公司的" of "苹果公司的创始人是".

    The edit is written at that token. Where another word follows the subject, its last token is
    another one, which the edit does not reach.
    """
    texts, spans = [edit.text for edit in edits], [edit.subject_span for edit in edits]
    shared = models.beyond_subjects(tokenizer, texts, spans)
    found = [(edit, *pair) for edit, pair in zip(edits, shared, strict=True) if pair[1]]
    if not found:
        return
    edit, token, beyond = found[0]
    more = f" (and {len(found) - 1} more edits)" if len(found) > 1 else ""
    logger.warning(
        f"edit {edit.id!r}{more}: the last token of the subject {edit.subject!r} is {token!r}, "
        f"which continues with {beyond!r}: texts in which something else follows the subject may "
        "not show the edit; write the prompt with other words after it, or give both as edits"
    )


def method(
    *,
    title: str,
    paper: str,
    when: str,
    avoid: str = "",
    continues: Continuation,
    order_invariant: bool = False,
    prompt_only: bool = False,
    by_subject: bool = False,
    aims: bool = False,
    version: int = 1,
) -> Callable[[Run], Method]:
    """Make a method of a function ``(session, *, settings) -> patch``.

    The method takes the function's name, its settings from the signature (`Signature`) and the type
    of its patches from the return annotation. `About` documents the arguments; they are literals,
    so that `emend methods` can list a method without importing it.
    """

    def register(function: Run) -> Method:
        return Method(
            name=function.__name__,
            title=title,
            paper=paper,
            when=when,
            avoid=avoid,
            continues=continues,
            order_invariant=order_invariant,
            prompt_only=prompt_only,
            by_subject=by_subject,
            aims=aims,
            version=version,
            run=function,
            signature=signature_of(function),
        )

    return register
