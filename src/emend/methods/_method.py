"""What a method is: a function from a model and edits to a patch, with a name and settings."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from emend import models
from emend._settings import checked
from emend.edits import Edit, check_conflicts, check_edits, continued, statements_of
from emend.errors import InvalidInput, UnsupportedModel
from emend.methods._about import About, Sequel
from emend.patches import MemoryPatch, Patch, WeightPatch, added, check_base

logger = logging.getLogger("emend")

Run = Callable[..., Patch]
"""(model, tokenizer, edits, config[, previous=]) -> patch."""

WITHOUT_SUBJECT = ("ft", "ultraedit", "grace")
"""Some methods that look at whole prompts, for those whose prompt has no subject."""


@dataclass(frozen=True, kw_only=True)
class Method(About):
    """A registered method; see `About` for what it says of itself.

    Attributes:
        config_type: Its frozen dataclass of settings, each with a docstring under it.
        run: The function itself.
    """

    config_type: type
    run: Run

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
        **overrides: Any,
    ) -> Patch:
        """Make a patch for the unedited model, whatever is attached to it; it is not changed.

        Args:
            model: A Hugging Face causal language model.
            tokenizer: Its tokenizer.
            edits: What to change, at least one. Those with translations are made as one edit for
                each language, all at once.
            previous: A patch to go on from; the result holds its edits too. A new edit with the
                id, or for the statement, of an earlier one takes its place.
            overrides: Settings that differ from the model's own recommended ones, and these
                from the defaults of ``config_type``.

        Raises:
            Conflict: Two edits want different targets for one statement, or are the same under
                two ids.
            InvalidInput: No edits, something else than edits, two with the same id, a prompt that
                is a subject alone where the method writes at the subject, a setting that does not
                fit, or a previous patch of another kind, model or method.
            UnknownName: There is no such setting.
            UnsupportedModel: The model is an endpoint, and the method needs a model's inside.
            SubjectNotFound: The tokenizer makes no token of a subject.
            NumericalFailure: The search or the solution gave something not finite.
        """
        edits = check_edits(edits)
        check_conflicts(edits)
        edits = statements_of(edits)
        if isinstance(model, models.Endpoint) and not self.by_text:
            raise UnsupportedModel(
                f"{self.name} needs a model's inside, which {model.name} does not show: use a "
                "method that acts on prompts (ike, mello), or a model with its weights here"
            )
        config = self.configure(**{**recommended(model, self.name), **overrides})
        start = models.ensure_start(model, tokenizer)
        with models.base(model):
            patch = self._following(model, tokenizer, edits, config, previous)
        if start is not None and isinstance(patch, (WeightPatch, MemoryPatch)):
            patch = dataclasses.replace(patch, base={**patch.base, "start_token": start.text})
        return patch

    def _following(
        self,
        model: Any,
        tokenizer: Any,
        edits: tuple[Edit, ...],
        config: Any,
        previous: Patch | None,
    ) -> Patch:
        """The patch of the edits, and of those of the previous one."""
        if previous is None:
            return self._made(model, tokenizer, edits, config)
        if self.memory:
            return self._grow(model, tokenizer, edits, config, previous)
        before = self._fits(model, previous, self.sequel(config))
        return self._continue(model, tokenizer, edits, config, before)

    def _made(
        self, model: Any, tokenizer: Any, edits: tuple[Edit, ...], config: Any, **known: Any
    ) -> Patch:
        """Run the function on edits that it can make.

        Raises:
            InvalidInput: A prompt is its subject alone, and the method writes at the subject.
        """
        for edit in edits if self.by_subject else ():
            if not any(letter.isalnum() for letter in edit.prompt.replace("{}", "")):
                raise InvalidInput(
                    f"edit {edit.id!r} has the prompt {edit.prompt!r}, expected one that says "
                    f"something of its subject {edit.subject!r}: {self.name} changes what the "
                    "model recalls of a subject; write the prompt as '{} was born in', or take a "
                    f"method that needs no subject ({', '.join(WITHOUT_SUBJECT)})"
                )
        if self.by_subject:
            _tell_shared_tokens(tokenizer, edits)
        return self.run(model, tokenizer, edits, config, **known)

    def _grow(
        self, model: Any, tokenizer: Any, edits: tuple[Edit, ...], config: Any, previous: Patch
    ) -> Patch:
        """The memory without what new edits replace, and with these."""
        if not isinstance(previous, MemoryPatch):
            raise InvalidInput(
                f"previous is a {type(previous).__name__}, expected a patch of {self.name}: "
                "a memory goes on from a memory"
            )
        self._check_maker(previous)
        check_base(model, previous.base)
        new = {edit.id for edit in edits}
        kept = [one.id for one in continued(previous.edits, edits) if one.id not in new]
        return self._made(model, tokenizer, edits, config, previous=previous.to_go_on_from(kept))

    def _check_maker(self, previous: Patch) -> None:
        if previous.method != self.name:
            raise InvalidInput(
                f"previous was made by {previous.method or 'an unknown method'}, expected "
                f"{self.name}: go on by the same method, or add the two patches"
            )

    def _continue(
        self, model: Any, tokenizer: Any, edits: tuple[Edit, ...], config: Any, before: WeightPatch
    ) -> Patch:
        """See `sequel`."""
        known = {"previous": before} if self.remembers else {}
        everything, sequel = continued(before.edits, edits), self.sequel(config)
        if sequel == "rebuild":
            return self._made(model, tokenizer, everything, config, **known)
        if sequel == "add":
            kept = {edit.id for edit in everything} - {edit.id for edit in edits}
            new = typing.cast(WeightPatch, self._made(model, tokenizer, edits, config))
            return before.only(kept) + new if kept else new
        with before.applied(model):
            new = typing.cast(WeightPatch, self._made(model, tokenizer, edits, config, **known))
        # The change for a replaced edit stays: the new one was made on top of it.
        return dataclasses.replace(added(before, new), edits=everything, timing=new.timing)

    def _fits(self, model: Any, previous: Patch, sequel: Sequel) -> WeightPatch:
        if not isinstance(previous, WeightPatch):
            raise InvalidInput(
                f"previous is a {type(previous).__name__}, expected a weight patch: "
                "only changes of weights can be continued"
            )
        if sequel == "add":
            self._check_maker(previous)
        check_base(model, previous.base)
        return previous

    def configure(self, **overrides: Any) -> Any:
        """Return the method's settings with some of them set, each of its type and in its range.

        Raises:
            UnknownName: There is no such setting.
            InvalidInput: A value is of another type than the setting, or outside its range.
        """
        return self.config_type(**checked(self.name, self.config_type, overrides))


def _tell_shared_tokens(tokenizer: Any, edits: Sequence[Edit]) -> None:
    """Warn of subjects that have no last token of their own: "公司的" of "苹果公司的创始人是".

    The edit is written at that token and takes there. Where another word follows the subject its
    last token is another one, which the edit does not reach.
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
        f"which goes on with {beyond!r}: texts in which something else follows the subject may "
        "not show the edit; write the prompt with other words after it, or give both as edits"
    )


def recommended(model: Any, name: str) -> dict[str, Any]:
    """Settings of a method that a model recommends for itself, if any.

    They stand in the model's ``config.json`` under ``emend``, by the method's name:
    ``"emend": {"rome": {"layer": 1}}``. Whoever has found what serves a model keeps it there.
    """
    own = getattr(getattr(model, "config", None), "emend", None)
    found: dict[str, Any] = own.get(name, {}) if isinstance(own, dict) else {}
    return dict(found)


def method(
    *,
    title: str,
    paper: str,
    when: str,
    order_free: bool = False,
    memory: bool = False,
    by_text: bool = False,
    by_subject: bool = False,
    version: int = 1,
) -> Callable[[Run], Method]:
    """Make a method of a function ``(model, tokenizer, edits, config: Config) -> Patch``.

    The method takes the function's name, and its settings from the annotation of ``config``. A
    function with a fifth parameter, ``previous: WeightPatch | None = None``, is given the patch
    that it continues from; that of a memory (``previous: MemoryPatch | None = None``) holds the
    edits that stay, and the new patch holds them too. What the arguments mean is said at `About`;
    they are literals, so that `emend methods` can list a method without importing it.
    """

    def register(function: Run) -> Method:
        parameters = list(inspect.signature(function).parameters)
        config_type = typing.get_type_hints(function)[parameters[3]]
        remembers = "previous" in parameters
        return Method(
            name=function.__name__,
            title=title,
            paper=paper,
            when=when,
            config_type=config_type,
            run=function,
            order_free=order_free,
            remembers=remembers,
            memory=memory,
            by_text=by_text,
            by_subject=by_subject,
            version=version,
        )

    return register
