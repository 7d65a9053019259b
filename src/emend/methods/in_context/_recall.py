"""A memory of facts: what is retrieved for a query, and what it was encoded by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emend import models, retrieval
from emend.edits import Edit
from emend.errors import NumericalFailure
from emend.methods.in_context._facts import statement
from emend.retrieval.encoders import check_description

ENCODER = "encoder"
"""Under this name the details of a patch keep the fingerprint of its encoder."""


class Facts:
    """The facts of edits, searched by one encoder.

    Args:
        edits: Whose facts; may be none.
        encoder: Its name; see `emend.retrieval`.
        by_name: Whether facts whose subject a query names come before all others.
        model: The language model, for its own states.
        tokenizer: Its tokenizer.

    Raises:
        InvalidInput: The encoder cannot be used.
    """

    def __init__(
        self, edits: Sequence[Edit], encoder: str, by_name: bool, model: Any, tokenizer: Any
    ) -> None:
        self.edits = tuple(edits)
        self.texts = [statement(edit) for edit in edits]
        index = retrieval.build_index(self.texts, encoder, model=model, tokenizer=tokenizer)
        self.encoder = index.encoder if isinstance(index, retrieval.DenseIndex) else None
        names = [edit.subject for edit in edits]
        self.index = retrieval.NamedIndex(index, names) if by_name else index

    def mark(self) -> dict[str, Any]:
        """The encoder's fingerprint; of words there is none."""
        return {} if self.encoder is None else {ENCODER: self.encoder.describe()}

    def check(self, kept: Mapping[str, Any]) -> None:
        """Refuse an encoder other than that of a fingerprint.

        Raises:
            InvalidInput: It is another.
        """
        if ENCODER in kept and self.encoder is not None:
            check_description(self.encoder.describe(), kept[ENCODER])

    def nearest(self, queries: Sequence[str], k: int = 1) -> list[list[retrieval.Hit]]:
        """The facts nearest to each query; where it names some, no others."""
        found = self.index.search(queries, k)
        return [[hit for hit in hits if hit.named == hits[0].named] for hits in found]

    def fact_for(self, queries: Sequence[str], threshold: float = 0.0) -> list[str | None]:
        """The one fact nearest to each query, or None where none is as near as the threshold."""
        return [
            self.texts[hits[0].place] if hits and hits[0].score >= threshold else None
            for hits in self.nearest(queries)
        ]


def remembered(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """Edits in the order in which a memory keeps them, whatever order they came in."""
    return tuple(sorted(edits, key=lambda edit: edit.id))


def check_readable(model: Any, tokenizer: Any, edits: Sequence[Edit]) -> None:
    """Refuse edits and models with which no prompt can do anything.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
        NumericalFailure: The model's probabilities are not finite.
    """
    if tokenizer is None:  # an endpoint's own
        return
    for edit in edits:
        models.subject_token(tokenizer, edit.text, edit.subject_span)
    (found,) = models.score(model, tokenizer, [edits[0].text], [edits[0].target])
    if not abs(found.total) < float("inf"):
        raise NumericalFailure(
            "the model's probabilities are not finite: load it in float32, or fetch its weights "
            "again"
        )
