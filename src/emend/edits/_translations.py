"""An edit in several languages is one edit with one id, made as one statement in each language.

Whether an edit in one language shows in another is up to the model: in larger ones hardly, their
edit vectors are nearly orthogonal (CLM-Bench, arXiv 2601.17397). With a statement of its own each
language has the target that it should have. Methods, patches and outcomes see plain edits alone,
which `statements_of` gives; each knows the edit that it belongs to (`Edit.translation_of`), so that
a patch takes out all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from emend.edits._edit import Edit


def statements_of(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """List what edits are made as: each edit without its translations, then these.

    Args:
        edits: The edits; those without translations stay as they are.
    """
    return tuple(
        statement
        for edit in edits
        for statement in (
            (replace(edit, translations=()), *edit.translations) if edit.translations else (edit,)
        )
    )


def group_of(edit: Edit) -> str:
    """Return the id of the edit that a statement belongs to; of a plain edit its own."""
    return edit.translation_of or edit.id


def with_translations(edits: Iterable[Edit], ids: Iterable[str]) -> tuple[str, ...]:
    """Return ids, each followed by those of its translations among some edits."""
    edits = tuple(edits)
    return tuple(
        dict.fromkeys(
            found
            for id_ in ids
            for found in (id_, *(each.id for each in edits if each.translation_of == id_))
        )
    )
