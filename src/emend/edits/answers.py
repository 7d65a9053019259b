"""Compare generated texts with accepted answers: the one definition of "states the answer".

A text states an answer if it begins with it and the answer's last word or number ends there. The
table of ``docs/data-formats.md`` lists what counts as equal and where a word ends. Word ends are
those of UAX #29, extended by what joins names and numbers (`_GOES_ON`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

from emend.edits.joining import UNSPACED

# Forms of a character that stay distinct: "10²" is not "102".
_DISTINCT = ("<super>", "<sub>", "<fraction>", "<circle>")
_TYPED = str.maketrans("’‘ʼʻ´“”„‟٫٬", "'''''\"\"\"\".,")
# Interchangeable Arabic letters: alef without its hamza, final yeh with or without dots, Persian
# yeh and kaf.
_ARABIC = str.maketrans("أإآٱىیک", "اااايي\u0643")
# Points of Arabic and Hebrew that most texts omit, and the stroke that stretches a word.
_POINTS = (
    r"[\u0640\u064B-\u0652\u0656-\u065F\u0670\u06D6-\u06DC\u06DF-\u06E8\u06EA-\u06ED"
    r"\u0591-\u05BD\u05BF\u05C1\u05C2\u05C4\u05C5\u05C7]"
)
# The dot inside foreign names in Chinese and Japanese.
_NAME_DOT = r"(?<=\p{L})[•‧・](?=\p{L})"
_OPENING = r"[\p{Quotation_Mark}《〈¿¡`*\s]+"
_ENDING = r"[\p{Quotation_Mark}\p{Terminal_Punctuation}》〉`\s]+"
_AROUND_WORDS = r"[\p{Terminal_Punctuation}\p{Quotation_Mark}\p{Ps}\p{Pe}\p{Pi}\p{Pf}]+"

# Optional parts of an answer.
_OPTIONAL = "|".join(
    (
        # The separators of thousands: "10,000", "1,00,000".
        r"(?<![\p{Nd}]|\p{Nd}[.,])\p{Nd}{1,3}(?:,\p{Nd}{2,3})*,\p{Nd}{3}(?!\p{Nd}|,\p{Nd})",
        # The points of initials: "U.S.".
        r"(?<![\p{L}\p{N}.])\p{L}(?:\.\p{L})+\.?+(?![\p{L}\p{N}])",
        # A space between a number and its unit, and next to a script without spaces.
        r"(?<=\p{Nd}) (?=[\p{L}%‰°\p{Sc}])|(?<=\p{Sc}) (?=\p{Nd})",
        rf"(?<={UNSPACED}) | (?={UNSPACED})",
    )
)
_PASSED = ",. "
# After an answer: its last word, number or sign continues.
_GOES_ON = "|".join(
    (
        # No word ends here (UAX #29): letters, digits, marks, Katakana, parts of one emoji.
        r"(?!\p{P})\B",
        r"[_\uFFFD]",
        rf"(?<=[[\p{{L}}\p{{N}}]--{UNSPACED}])\p{{N}}",
        # "Cork-on-Sea", "O'Brien", "AT&T", "AC/DC", "bob@x", "ASP.NET", "x.org"; not "Rome.The".
        r"[-'&/@\\=]\w|-\Z",
        r"\.(?=\p{Ll}|\p{N})",
        r"(?<=\p{Lu})\.\p{Lu}",
        r"\?\w+=",
        # "10:30", "3,5", "2+3"; "5%", "20°", "5€".
        r"(?<=\p{N})[.,:+−×÷^*]\p{N}",
        r"(?<=\p{N})[%‰°\p{Sc}]",
        # "A+", "C#", "C++", "C++11".
        r"(?<=[\p{L}\p{N}])[+#]",
        rf"(?<=[\p{{S}}#%])(?!{UNSPACED})[\p{{L}}\p{{N}}]",
        r"(?<=([+#]))\1",
    )
)

# In names: "the Eiffel Tower", "Lord of the Rings".
_ARTICLES = ("the", "The", "a", "an")
_PARTICLES = ("of", "de", "da", "di", "von", "van", "der", "del", "la", "the")
_WORDS = 3
# Four characters of a script without spaces; a run of Katakana counts as one.
_UNSPACED_START = (
    rf"(?={UNSPACED})(?:[\p{{WB=Katakana}}·・=＝]+|{UNSPACED}\p{{M}}*|[^\s\p{{P}}]){{1,4}}"
)


def states_answer(text: str, answers: Iterable[str]) -> bool:
    """Return whether a generated text states one of the accepted answers.

    Args:
        text: The text after the prompt.
        answers: The accepted answers; one without any letter, digit or sign is never stated.
    """
    standard = standardised(text)
    if not standard:
        return False
    opening = _pattern(_OPENING).match(standard)
    texts = [standard] if opening is None else [standard, standard[opening.end() :]]
    keys = [(each, *_key(each)) for each in texts]
    return any(_begins(*key, _answer_key(one)) for one in answers for key in keys)


def same_answer(one: str, other: str) -> bool:
    """Return whether two answers are equal, up to case, form, quotes and end punctuation."""
    return _answer_key(one) == _answer_key(other)


def same_beginning(one: str, other: str, answers: Iterable[str]) -> bool:
    """Return whether two texts begin alike, for as many words as the longest answer has.

    In a script without spaces a character counts as a word, in Katakana a run of them.
    """
    count = max(len(_words(answer)) for answer in answers)
    first, second = (" ".join(_words(text)[:count]) for text in (one, other))
    return first == second or _key(first)[0] == _key(second)[0]


def same_reply(one: str, other: str, answers: Iterable[str]) -> bool:
    """Return whether two generated texts, before and after an edit, give the same answer.

    They do if both state one of the accepted answers, whichever it is, or if they begin with the
    same words, as many as an accepted answer has.
    """
    answers = tuple(answers)
    both = states_answer(one, answers) and states_answer(other, answers)
    return both or same_beginning(one, other, answers)


def same_sentence(one: str, other: str) -> bool:
    """Return whether two texts are equal up to the end of their first sentence or line."""
    first, second = (
        _pattern(r"\n|\.(?: |\Z)|[。！？؟۔।]").split(text.strip())[0] for text in (one, other)
    )
    return standardised(first).casefold() == standardised(second).casefold()


def first_phrase(text: str) -> str:
    """Cut a text before its first comma, sentence end or line end; not inside "3.5" or "J. Doe"."""
    end = r"\n|(?<!(?:^|[\s.])\p{Lu})\.(?=\s|\Z)|[,;!?](?=\s|\Z)|[。，、；！？،؛؟۔।]"
    return _pattern(end).split(text.lstrip())[0].rstrip()


def short_answer(text: str) -> str:
    """Cut a continuation to its answer: the name that it begins with, or its first words.

    The last word is dropped if the text was cut off by its length, unless it follows an article.
    In a script without spaces the answer is its first four characters.
    """
    phrase = first_phrase(text)
    words = phrase.split()
    if len(words) > 1 and phrase == text.strip() and words[-2] not in _ARTICLES:
        words = words[:-1]
    if not any(character.isalnum() for character in phrase):
        return ""
    unspaced = _pattern(_UNSPACED_START).match(phrase)
    if unspaced:
        return unspaced[0]
    start = 1 if words[0] in _ARTICLES and len(words) > 1 else 0
    end = start
    while end < len(words) and _is_name(words[end]):
        end += 1
        beyond = end
        while beyond < len(words) and words[beyond] in _PARTICLES:
            beyond += 1
        if beyond < len(words) and _is_name(words[beyond]):
            end = beyond
    return " ".join(words[:end] if end > start else words[:_WORDS])


def is_name(answer: str) -> bool:
    """Return whether an answer is a name or a number, and no other phrase."""
    words = answer.split()
    return bool(words) and (_is_name(words[0]) or (words[0] in _ARTICLES and _is_name(words[-1])))


def _is_name(word: str) -> bool:
    first = word.lstrip("\"'“‘(")[:1]
    return first.isupper() or first.isdigit()


@lru_cache(maxsize=10_000)
def standardised(text: str) -> str:
    """Standardise a text: one form of each character, quote and hyphen, single spaces.

    Case is unchanged. The form is NFC; variants of width and type become the plain character,
    others (superscripts, fractions) stay. Invisible characters except joiners are removed.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        # "10 000" with a space that does not break is "10,000".
        text = _pattern(r"(?<=\p{Nd})[\u00a0\u2007-\u2009\u202f](?=\p{Nd}{3}(?!\p{Nd}))").sub(
            ",", text
        )
        text = "".join(map(_plain, text.translate(_TYPED)))
        hidden = r"[\p{Default_Ignorable_Code_Point}--[\u200c\u200d\U000E0020-\U000E007F]]"
        text = _pattern(hidden).sub("", text)
        text = _pattern(r"[\p{Dash}--[—―⸺⸻]]").sub("-", text)
        text = unicodedata.normalize("NFC", text)
        text = _pattern(_POINTS).sub("", text).translate(_ARABIC)
        text = _pattern(_NAME_DOT).sub("·", text)
    return " ".join(text.split())


@lru_cache(maxsize=10_000)
def _plain(character: str) -> str:
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    tag = unicodedata.decomposition(character).partition(" ")[0]
    if tag.startswith("<") and tag not in _DISTINCT:
        return unicodedata.normalize("NFKC", character)
    return character


def _begins(text: str, folded: str, ends: list[int], answer: str) -> bool:
    """Return whether a text begins with an answer that ends where a word does."""
    if not answer or not folded.startswith(answer):
        return False
    end = ends[len(answer) - 1]
    if end < 0:  # within a character: "s" of "ß"
        return False
    rest = text[end:]
    if not rest or _pattern(r"'s(?!\w)").match(rest):
        return True
    return not (_numbers(text[end - 1], rest[0]) or _pattern(_GOES_ON).match(text, end))


def _numbers(last: str, following: str) -> bool:
    """Return whether both characters are numeric: "5万", "三十"."""
    values = (unicodedata.numeric(one, None) for one in (last, following))
    return None not in values


@lru_cache(maxsize=10_000)
def _answer_key(answer: str) -> str:
    """Return the form in which an answer is compared: no quotes around it, no end punctuation."""
    standard = standardised(answer)
    bare = _pattern(rf"\A{_OPENING}|{_ENDING}\Z").sub("", standard)
    return _key(bare or standard)[0]


def _key(text: str) -> tuple[str, list[int]]:
    """Fold a standardised text without case and optional characters.

    Returns:
        The folded text, and for each of its characters the index in the text after it; -1 inside a
        character that folds to several.
    """
    passed = {
        index
        for found in _pattern(_OPTIONAL).finditer(text)
        for index in range(*found.span())
        if text[index] in _PASSED
    }
    folded: list[str] = []
    ends: list[int] = []
    for index, character in enumerate(text):
        if index in passed:
            if character != " " and ends:
                ends[-1] = index + 1
            continue
        parts = character.casefold()
        folded.append(parts)
        ends += [*[-1] * (len(parts) - 1), index + 1]
    return "".join(folded), ends


def _words(text: str) -> list[str]:
    """List the words of a text without case and the punctuation around them."""
    around = _pattern(rf"\A{_AROUND_WORDS}|{_AROUND_WORDS}\Z")
    words = (around.sub("", word) for word in standardised(text).casefold().split())
    parts = _pattern(rf"\p{{WB=Katakana}}+|{UNSPACED}\p{{M}}*|(?:(?!{UNSPACED}).)+")
    return [part for word in words for part in parts.findall(word)]


@cache
def _pattern(pattern: str) -> Any:
    import regex  # its tables take some milliseconds, which `import emend` need not pay

    return regex.compile(pattern, regex.VERSION1 | regex.WORD)
