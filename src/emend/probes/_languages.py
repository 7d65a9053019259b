"""Prompts and names for probes in other languages than English, and which language an edit is in.

English has relations with wordings (`emend.probes._data`); here an edit's statement is put after a
front, its neighbours are names of the kind whose list holds its subject, and prompts that fit
every subject ask for its other facts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from emend.edits import Edit
from emend.probes._data import read, same_name

ENGLISH = "en"
UNKNOWN = "und"
"""The tag of BCP 47 for a language that is not known."""

# By the letters of a text; Chinese where no kana stand among its ideographs.
_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ar", re.compile("[\u0620-\u064a]")),
)
# Letters of Persian and Urdu that Arabic has not.
_NOT_ARABIC = re.compile("[\u067e\u0686\u0698\u06a9\u06af\u06cc\u0679\u0688\u0691\u06d2]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")


@dataclass(frozen=True)
class Language:
    """What emend can ask in a language.

    Attributes:
        tag: Its tag.
        fronts: What is put before a statement, with `{}` for it.
        chat: What a user asks about a subject, with `{}` for it.
        general: Prompts that fit every subject.
        kinds: Names by kind.
    """

    tag: str
    fronts: tuple[str, ...]
    chat: str
    general: tuple[str, ...]
    kinds: Mapping[str, tuple[str, ...]]

    def names_like(self, subject: str) -> list[str]:
        """List names of the kinds of a subject, without itself; nothing where none holds it."""
        lists = [names for names in self.kinds.values() if _holds(names, subject)]
        found = dict.fromkeys(name for names in lists for name in names)
        return [name for name in found if not same_name(name, subject)]


@cache
def languages() -> dict[str, Language]:
    """Return the languages but for English, by tag."""
    found = read("languages.json")["languages"]
    return {
        tag: Language(
            tag,
            tuple(one["fronts"]),
            one["chat"],
            tuple(one["general"]),
            {kind: tuple(names) for kind, names in one["kinds"].items()},
        )
        for tag, one in found.items()
    }


def language_of(edit: Edit) -> str:
    """Return the language of an edit: as it is given, or by letters and common words.

    Returns:
        The first part of its tag, such as "zh"; "und" where it is none of those known here.
    """
    if edit.language is not None:
        return edit.language.partition("-")[0].lower()
    text = edit.prompt.replace("{}", " ")
    if not any(letter.isalpha() for letter in text):
        text = edit.text
    if _NOT_ARABIC.search(text):
        return UNKNOWN
    for tag, letters in _SCRIPTS:
        if letters.search(text):
            return tag
    if not _LATIN.search(text):
        return UNKNOWN
    words = set(re.findall(r"\w+", text.casefold()))
    common = {
        tag: len(words & set(known)) for tag, known in read("languages.json")["words"].items()
    }
    return max(common, key=lambda tag: (common[tag], tag == ENGLISH))


def _holds(names: tuple[str, ...], subject: str) -> bool:
    return any(same_name(name, subject) for name in names)
