"""A session: one model, the patches that act on it, and the same question to both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from torch import nn

from emend import api, models
from emend._validate import choice_fault, refuse
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.locate import Trace
from emend.patches import Patch, WeightPatch, added
from emend.probes import blast_radius

Form = Literal["chat", "completion"]
FORMS: tuple[Form, ...] = ("chat", "completion")
"""How a question is put: in the model's chat template, or as a text to be continued."""

STOP = "\n\n"
"""What ends a completion: the paragraph."""


@dataclass(frozen=True)
class Answer:
    """What both sides say to one question.

    Attributes:
        question: What was asked.
        form: How it was put.
        base: What the unedited model says.
        edited: What the edited model says; None where nothing is edited.
    """

    question: str
    form: Form
    base: str
    edited: str | None = None

    @property
    def changed(self) -> bool:
        """Whether the edited model says something else."""
        return self.edited is not None and self.edited != self.base

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON-able data."""
        return {**asdict(self), "changed": self.changed}


class Session:
    """A model before and after its edits.

    Each question is answered on its own, with no earlier one before it, so that what a side said
    before an edit does not speak for it afterwards.

    Args:
        model: A causal language model. It is not changed.
        tokenizer: Its tokenizer.
        patch: What is edited already; of any kind.
        form: "chat" or "completion"; None for chat where the tokenizer has a template.
        method: Name of the method that edits.
        settings: Those of the method.
        allow_other_base: Take a patch that was made for other weights too.

    Attributes:
        edits: What was edited in this session, in order.

    Raises:
        InvalidInput: The patch does not fit the model, or chat is wanted without a template.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        patch: Patch | None = None,
        *,
        form: Form | None = None,
        method: str = "rome",
        settings: Mapping[str, Any] | None = None,
        allow_other_base: bool = False,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.method = method
        self.settings = dict(settings or {})
        self.edits: list[Edit] = []
        self._given = patch
        self._made: list[Patch] = []
        self._allow_other_base = allow_other_base
        self.form: Form = form or ("chat" if models.has_chat_template(tokenizer) else "completion")
        self.put_as(self.form)
        if patch is not None:
            with patch.applied(model, allow_other_base=allow_other_base):
                pass

    @property
    def patches(self) -> tuple[Patch, ...]:
        """What acts on the edited side: the patch that was given, then that of the session."""
        return tuple(one for one in (self._given, *self._made[-1:]) if one is not None)

    def put_as(self, form: str) -> None:
        """Put questions in another form from now on.

        Raises:
            InvalidInput: It is none of `FORMS`, or the tokenizer has no chat template.
        """
        refuse("form", choice_fault(form, FORMS))
        if form == "chat":
            models.chat_prompt(self.tokenizer, "Hello")
        self.form = cast("Form", form)

    def ask(
        self,
        question: str,
        *,
        max_new_tokens: int = 64,
        on_text: Callable[[str, str | None], None] | None = None,
    ) -> Answer:
        """Ask both sides, a token of each in turn.

        Args:
            question: What to ask, or to continue.
            max_new_tokens: How long an answer may be.
            on_text: Is given both texts so far, as they grow.

        Raises:
            InvalidInput: The question is empty or longer than the model reads.
        """
        if not question.strip():
            raise InvalidInput("the question is empty, expected some text")
        in_chat = self.form == "chat"
        options: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "stop": None if in_chat else STOP,
            "in_chat": in_chat,
        }
        texts: list[str | None] = ["", "" if self.patches else None]
        sides = [
            models.stream(self.model, self.tokenizer, question, **options)
            for text in texts
            if text is not None
        ]
        with ExitStack() as acting:
            for patch in self.patches:
                acting.enter_context(
                    patch.applied(self.model, allow_other_base=self._allow_other_base)
                )
            going = set(range(len(sides)))
            while going:
                for side in sorted(going):
                    text = self._next(sides[side], is_base=side == 0)
                    if text is None:
                        going.discard(side)
                    else:
                        texts[side] = text
                if on_text is not None:
                    on_text(texts[0] or "", texts[1])
        return Answer(question, self.form, texts[0] or "", texts[1])

    def _next(self, side: Any, *, is_base: bool) -> str | None:
        if not is_base:
            return next(side, None)
        with models.base(self.model):
            return next(side, None)

    def edit(self, edit: Edit, *, probes: str = "auto") -> Patch:
        """Edit a fact, on from the edits of this session.

        Args:
            edit: The edit; one of the same statement is replaced.
            probes: What else changed is measured with; see `emend.probes.blast_radius`.

        Returns:
            The session's patch, with ``outcomes`` and ``blast``. It acts from now on.

        Raises:
            EmendError: As `emend.edit`; nothing has changed then.
        """
        previous = self._made[-1] if self._made else None
        patch = api.edit(
            self.model,
            self.tokenizer,
            [edit],
            self.method,
            previous=previous,
            **self.settings,
        )
        found = blast_radius(self.model, self.tokenizer, patch, probes, edits=[edit])
        patch = replace(patch, blast=found)
        self._made.append(patch)
        self.edits.append(edit)
        return patch

    def revert(self) -> Edit | None:
        """Take the last edit of this session back, or else the patch that was given.

        Returns:
            The edit; None for the patch that was given.

        Raises:
            InvalidInput: Nothing is edited.
        """
        if self._made:
            self._made.pop()
            return self.edits.pop()
        if self._given is None:
            raise InvalidInput("nothing is edited, expected an edit to take back: /edit makes one")
        self._given = None
        return None

    def why(self, **settings: Any) -> tuple[Trace, Trace | None]:
        """Trace where the last edit's fact is recalled, before and after.

        Args:
            settings: Those of `emend.trace`.

        Returns:
            The trace of what the unedited model says, and that of the target in the edited one;
            None where the patches do not change weights (a memory is not within the network).

        Raises:
            InvalidInput: Nothing was edited in this session.
        """
        if not self.edits:
            raise InvalidInput(
                "no fact was edited in this session, expected one to trace: /edit makes one"
            )
        edit = self.edits[-1]
        asked = self.model, self.tokenizer, edit.prompt, edit.subject
        with models.base(self.model):
            before = api.trace(*asked, **settings)
        if not all(isinstance(patch, WeightPatch) for patch in self.patches):
            return before, None
        with ExitStack() as acting:
            for patch in self.patches:
                acting.enter_context(patch.applied(self.model, allow_other_base=True))
            return before, api.trace(*asked, edit.target, **settings)

    def save(self, directory: str | Path) -> Path:
        """Save what acts on the edited side as one patch.

        Raises:
            InvalidInput: Nothing is edited, or two patches of which one is a memory act.
        """
        return _together(self.patches).save_pretrained(directory)


def _together(patches: Sequence[Patch]) -> Patch:
    if not patches:
        raise InvalidInput("nothing is edited, expected an edit to save: /edit makes one")
    first, *others = patches
    for other in others:
        if not (isinstance(first, WeightPatch) and isinstance(other, WeightPatch)):
            raise InvalidInput(
                "the given patch and the session's edits cannot be one patch, expected changes of "
                "weights alone: start without a patch, or edit by a method that changes weights"
            )
        first = added(first, other)
    return first
