"""Which generated texts state an answer: the table of the docs, and what holds for all answers."""

from __future__ import annotations

import random
import unicodedata

import pytest

from emend.edits.answers import (
    first_phrase,
    same_answer,
    same_beginning,
    same_sentence,
    short_answer,
    states_answer,
)

STATED = [
    # words, case, punctuation, quotes
    ("Cork", "Cork"),
    ("Cork.", " Cork"),
    ("cork, in Ireland", "Cork"),
    ("Cork's harbour", "Cork"),
    ("Cork’s harbour", "Cork"),
    ("Cork—the city", "Cork"),
    ("Cork.The next", "Cork"),
    ("Cork,Ireland", "Cork"),
    ("Cork (Ireland)", "Cork"),
    ('"Cork" is', "Cork"),
    ("“Cork”", "Cork"),
    ("**Cork**", "Cork"),
    ("Cork", '"Cork".'),
    ("New\n York City", "New York"),
    ("St. Ives", "St."),
    ("Yahoo is", "Yahoo!"),
    ("Straße", "STRASSE"),
    # points that most texts leave out, letters that are written for one another
    (" بَارِيسُ، وهي", "باريس"),
    ("باريس", "بَارِيس"),
    ("بـــاريس.", "باريس"),
    ("إيطاليا", "ايطاليا"),
    ("یک کتاب", "يك"),
    ("וְרוֹמָא", "ורומא"),
    ("القاهرة؛", "القاهرة"),
    ("¿Roma?", "Roma"),
    ("Roma", "¡Roma!"),
    ("比尔•盖茨，", "比尔·盖茨"),
    ("ビル・ゲイツは", "ビル·ゲイツ"),
    # names with signs
    ("C++.", "C++"),
    ("C++, a language", "C++"),
    ("AT&T's", "AT&T"),
    ("Côte d’Ivoire", "Côte d'Ivoire"),
    ("U.S. Army", "US"),
    ("US Army", "U.S."),
    ("J.R.R. Tolkien", "JRR Tolkien"),
    # numbers, units, dates
    ("10,000 people", "10,000"),
    ("10000 people", "10,000"),
    ("10,000", "10000"),
    ("1,00,000", "100000"),
    ("10\u202f000 Einwohner", "10,000"),
    ("3.5 km", "3.5"),
    ("3.", "3"),
    ("5 km", "5"),
    ("5km away", "5 km"),
    ("20 °C", "20°C"),
    ("10, 20", "10"),
    ("1939–1945", "1939-1945"),
    ("2024-05-01.", "2024-05-01"),
    ("٣٫٥", "3.5"),
    # addresses
    ("https://example.org.", "https://example.org"),
    ("https://example.org/", "https://example.org"),
    # scripts without spaces
    ("巴黎是首都", "巴黎"),
    ("「巴黎」です", "巴黎"),
    ("2024年", "2024"),
    ("日本人", "日本"),
    ("パリです", "パリ"),
    ("イタリア人", "イタリア"),
    ("กรุงเทพมหานคร", "กรุงเทพ"),
    ("Python语言", "Python"),
    ("Python 语言", "Python语言"),
    # forms of a character
    ("Malmo\u0308 is", "Malm\u00f6"),
    ("Ｐａｒｉｓ", "Paris"),
    ("ﾊﾞﾘ", "バリ"),
    ("Paris\u200b is", "Paris"),
    ("x²", "x²"),
    # emoji
    ("😀!", "😀"),
    ("😀😀", "😀"),
    ("❤ you", "❤\ufe0f"),
    ("👨‍👩‍👧 at home", "👨‍👩‍👧"),
]
NOT_STATED = [
    ("روماني", "روما"),
    ("París", "Paris"),
    ("•", "·"),
    ("Corkville", "Cork"),
    ("Cork-on-Sea", "Cork"),
    ("Cork-", "Cork"),
    ("Romeo", "Rome"),
    ("Roman", "Rome"),
    ("the Cork", "Cork"),
    ("not Cork", "Cork"),
    ("", "Cork"),
    ("Cork", "..."),
    ("C++", "C"),
    ("C#", "C"),
    ("C++", "C+"),
    ("C++11", "C++"),
    ("A+", "A"),
    ("AT&T", "AT"),
    ("AC/DC", "AC"),
    ("ASP.NET", "ASP"),
    ("Node.js", "Node"),
    ("O'Brien", "O"),
    ("U.S.A.", "US"),
    ("10,000", "10"),
    ("10,000", "100"),
    ("10,000,000", "10,000"),
    ("10.000", "10"),
    ("10.000", "10,000"),
    ("3.5", "3"),
    ("3,5", "3"),
    ("3/4", "3"),
    ("10:30", "10"),
    ("2024-05-01", "2024"),
    ("1939–1945", "1939"),
    ("2^10", "2"),
    ("10²", "102"),
    ("10²", "10"),
    ("5½", "5"),
    ("5%", "5"),
    ("5€", "5"),
    ("5km", "5"),
    ("-5", "5"),
    ("$5", "5"),
    ("5万", "5"),
    ("三十", "三"),
    ("example.org", "example"),
    ("https://example.org/about", "https://example.org"),
    ("https://example.org?a=1", "https://example.org"),
    ("bob@example.org", "bob"),
    ("ロマン", "ロマ"),
    ("里昂", "巴黎"),
    ("Malmö", "Malmo"),
    ("e\u0331", "e"),
    ("Malm\ufffd", "Malm"),
    ("ß", "s"),
    ("👨‍👩‍👧", "👨"),
    ("👍🏽", "👍"),
    ("🇫🇷", "🇫"),
]


@pytest.mark.parametrize(("text", "answer"), STATED)
def test_stated(text: str, answer: str) -> None:
    """Fault 10."""
    for before in ("", " ", "\n"):
        assert states_answer(before + text, ["Nowhere", answer])


@pytest.mark.parametrize(("text", "answer"), NOT_STATED)
def test_not_stated(text: str, answer: str) -> None:
    """Fault 10."""
    for before in ("", " ", "\n"):
        assert not states_answer(before + text, ["Nowhere", answer])


TABLE = [
    (
        "Rome",
        ["Rome.", "rome and", "Rome's", "Rome—the", "Rome.The"],
        ["Romeo", "Roman", "Rome-Fiumicino"],
    ),
    ('"Paris".', ["Paris", "“Paris”", "**Paris**"], []),
    ("C", ["C.", "C, a language"], ["C++", "C#"]),
    ("AT", ["AT"], ["AT&T", "AT/DC"]),
    ("US", ["US", "U.S. Army"], ["U.S.A.", "USA"]),
    ("10", ["10.", "10, 20"], ["10,000", "10.5", "10:30", "10/3", "10²", "10½"]),
    ("10,000", ["10000", "10\u00a0000"], ["10.000", "10,000,000"]),
    ("3.5", ["3.5 km"], ["3.50", "3,5"]),
    ("5", ["5 km", "5 million"], ["5km", "5%", "5€", "5万", "-5", "$5"]),
    ("5 km", ["5km"], ["5 kmh"]),
    ("2024", ["2024, in May", "2024年"], ["2024-05-01", "2024–2025"]),
    ("example", ["example. Then"], ["example.org", "example@x.org"]),
    ("イタリア", ["イタリア人"], ["イタリアン"]),
    ("三", ["三个"], ["三十"]),
    ("Malmö", ["Malmo\u0308", "ＭＡＬＭÖ"], ["Malmo"]),
    ("👨", ["👨!"], ["👨‍👩‍👧", "👨🏽"]),
]


@pytest.mark.parametrize(("answer", "stated", "others"), TABLE)
def test_rows_of_the_docs(answer: str, stated: list[str], others: list[str]) -> None:
    """Fault 10."""
    assert all(states_answer(text, [answer]) for text in stated)
    assert not any(states_answer(text, [answer]) for text in others)


SPACED = "abcxyzÄéøßñçığðłабвгдежзиαβγδεאבגدبتقаहमनক"
UNSPACED = "巴黎东京都会ひらがなカタกรงทย"


def words(alphabet: str, count: int, seed: str) -> list[str]:
    generator = random.Random(seed)
    return ["".join(generator.choices(alphabet, k=generator.randint(1, 6))) for _ in range(count)]


def some_answers() -> list[str]:
    generator = random.Random("answers")
    spaced, unspaced = words(SPACED, 300, "spaced"), words(UNSPACED, 100, "unspaced")
    numbers = [str(generator.randrange(10**6)) for _ in range(60)]
    numbers += [f"{generator.randrange(10**6):,}" for _ in range(60)]
    numbers += [f"{generator.randrange(100)}.{generator.randrange(100)}" for _ in range(60)]
    phrases = [" ".join(generator.sample(spaced, 2)) for _ in range(60)]
    signs = [
        "C++",
        "C#",
        "AT&T",
        "U.S.",
        "5%",
        "20 °C",
        "😀",
        "👨‍👩‍👧",
        "x²",
        "(a)",
        "O'Brien",
        "2024-05-01",
    ]
    return [*spaced, *unspaced, *numbers, *phrases, *signs]


@pytest.mark.parametrize(
    "after", ["", " ", ".", ",", "!", "?", ";", "\n", ")", '"', "”", "。", " and b"]
)
def test_an_answer_states_itself_whatever_ends_it(after: str) -> None:
    """Fault 10."""
    for answer in some_answers():
        assert states_answer(f" {answer}{after}", [answer]), answer
        assert states_answer(f'"{answer}"{after}', [answer]), answer


def test_a_longer_word_or_number_is_another() -> None:
    """Fault 10."""
    generator = random.Random("longer")
    for word in words(SPACED, 300, "spaced"):
        for more in words(SPACED, 3, f"more {word}"):
            assert not states_answer(f" {word}{more}", [word]), (word, more)
            assert not states_answer(f" {word}-{more}", [word]), (word, more)
            assert not states_answer(f" {word}{generator.randrange(10)}", [word])
    for _ in range(500):
        number = str(generator.randrange(1, 10**5))
        digits = str(generator.randrange(10**3))
        for joiner in ("", ".", ",", ":", "/", "-", "–", "²"):
            longer = number + joiner + (digits if joiner != "²" else "")
            assert not states_answer(f" {longer}", [number]), longer


def test_the_form_of_a_text_changes_nothing() -> None:
    """Fault 10: NFC, NFD, case and full width are forms of the same text."""
    generator = random.Random("forms")
    answers = some_answers()
    wide = {code: code + 0xFEE0 for code in range(0x21, 0x7F) if chr(code) not in "\"'"}
    for answer in answers:
        text = f"{answer} {generator.choice(answers)}"
        for other in (answer, generator.choice(answers)):
            expected = states_answer(text, [other])
            for form in ("NFC", "NFD"):
                assert states_answer(unicodedata.normalize(form, text), [other]) == expected
                assert states_answer(text, [unicodedata.normalize(form, other)]) == expected
            assert states_answer(text.casefold(), [other]) == expected
            assert states_answer(text.translate(wide), [other]) == expected, (text, other)


def test_equal_answers() -> None:
    assert same_answer(" Paris.", "paris")
    assert same_answer("10,000", "10000")
    assert not same_answer("Paris", "Paris, Texas")
    assert not same_answer("10²", "102")


def test_beginnings_are_as_long_as_the_answers() -> None:
    assert same_beginning("New York", "New Delhi", ["Paris"])
    assert not same_beginning("New York", "New Delhi", ["Old Town"])
    assert same_beginning("10,000 people", "10000 men", ["5"])
    assert not same_beginning("10,000", "10", ["5"])


def test_first_sentences_and_phrases() -> None:
    """Fault 10: an answer was cut within a number, and Chinese at a line's end alone."""
    assert same_sentence("It is 3.5 km. Then", " it is 3.5 km.")
    assert not same_sentence("It is 3.5 km.", "It is 3.6 km.")
    assert same_sentence("巴黎。然后", "巴黎。")
    assert first_phrase(" 3.5 km, then") == "3.5 km"
    assert first_phrase(" 10,000 people. They") == "10,000 people"
    assert first_phrase(" J. K. Rowling, author") == "J. K. Rowling"
    assert first_phrase("巴黎，法国") == "巴黎"
    assert first_phrase(" Paris\nLyon") == "Paris"
    assert first_phrase(" ") == ""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" Berlin.\n\nThe capital", "Berlin"),
        (" Paris and is the", "Paris"),
        (" the Euro. It", "the Euro"),
        (" New York City, which", "New York City"),
        (" the University of Warsaw, where", "the University of Warsaw"),
        (" a popular tourist attraction in", "a popular tourist"),
        (" 1889, when", "1889"),
        (" Gustave Eif", "Gustave"),
        (" a game", "a game"),
        ("", ""),
        (" ...", ""),
        ("巴黎。", "巴黎"),
        ("巴黎是世界著名的旅游城市", "巴黎是世"),
        ("フランソワ・ミッテラン、", "フランソワ・ミッテラン"),
        (" باريس، وهي من", "باريس"),
    ],
)
def test_a_short_answer_is_the_name_or_the_first_words(text, answer):
    assert short_answer(text) == answer
    assert not answer or states_answer(text, [answer])
