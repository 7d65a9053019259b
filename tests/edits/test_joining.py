"""The space between a prompt and its target follows from what stands around it."""

from __future__ import annotations

import pytest

from emend.edits.joining import continuation, joined, sentence, without_end_spaces

EXACT = [
    # ordinary words
    "The capital of France is| Paris",
    "In 2024 it was| 12",
    "the 'Alien'| film",
    'the "Alien"| film',
    "C#| is",
    "Visit Paris (France)| in",
    "see the U.S.| Army",
    "chapter 3.| Then",
    "Answer:| Paris",
    "Question 12:| A",
    "Answer -| Paris",
    "France ->| Paris",
    "the blank is ___| Paris",
    "2 + 2 =| 4",
    "it is| .5",
    "it is written in| .NET",
    "100 €| tax",
    'a 5"| pipe',
    # opening marks
    'He said "|Hello',
    "¿|Roma",
    "La capital de Francia es| Roma",
    "عاصمة فرنسا هي| روما",
    "质问：首都是哪里？回答：|罗马",
    "He said ('|Hello",
    "Er heißt „|Bob",
    "Er nennt sich „Bob“| und",
    "Il s'appelle «|Bob",
    "He wrote (|in 1920",
    "The capital is **|Paris",
    # addresses, paths, hyphens, numbers
    "Its page is https://www.|example.org",
    "Its page is www.|example.org",
    "Its page is https://example.org/|about",
    "Write to bob@|example.org",
    "It is in /usr/|bin",
    "The variable snake_|case",
    "She was born on 2024-|05-01",
    "1939–|1945",
    "She is Anglo-|Saxon",
    "Pi is 3.|14159",
    "The train leaves at 12:|30",
    "The temperature is -|5",
    "2+2=|4",
    "It costs US$|100",
    "AT&|T",
    # elisions, not possessives
    "la capitale de l'|Italie",
    "la capitale de l’|Italie",
    "the boys'| school",
    # what closes or ends
    "It is|, by law, Paris",
    "France|'s capital",
    # scripts without spaces
    "法国的首都是|巴黎",
    "苹果公司的首席执行官是|Tim Cook",
    "微软公司成立于|1975",
    "他用iPhone|手机",
    "首都：|巴黎",
    "他说|“你好”",
    "他说“|你好",
    "フランスの首都は|パリ",
    "ประเทศไทยมีเมืองหลวงชื่อ|กรุงเทพ",
    "ก่อตั้งในปี| 1998",
    "เขาใช้| Python",
    "བོད་|ཡིག",
    "The Chinese name of Beijing is| 北京",
    "프랑스의 수도는| 파리",
    "Столица Франции —| Париж",
]


@pytest.mark.parametrize("exact", EXACT)
def test_the_space_follows_from_what_stands_before_and_from_the_script(exact: str) -> None:
    """Fault B4, fault 10: no space was left out anywhere."""
    prompt, target = exact.split("|")
    assert continuation(prompt, target.strip()) == (prompt, target)


@pytest.mark.parametrize("exact", EXACT)
def test_a_space_that_is_written_is_kept(exact: str) -> None:
    """Fault B4."""
    prompt, target = exact.split("|")
    assert continuation(prompt, f" {target.strip()}") == (prompt, f" {target.strip()}")
    assert joined(f"{prompt} ", target.strip()) == f"{prompt} {target.strip()}"
    assert joined(f"{prompt}\n", target.strip()) == f"{prompt}\n{target.strip()}"


def test_spaces_at_the_end_of_a_prompt_go_to_the_target() -> None:
    assert continuation("born in  ", " Warsaw") == ("born in", " Warsaw")
    assert without_end_spaces("born in ") == "born in"
    assert without_end_spaces("    ") == "    "
    assert without_end_spaces("def f():\n    ") == "def f():\n    "


def test_nothing_stands_before_the_first_word_of_a_text_or_after_a_special_token() -> None:
    assert continuation("", "Warsaw") == ("", "Warsaw")
    assert joined("Where?<|answer|>", "Warsaw") == "Where?<|answer|> Warsaw"
    assert continuation("Where?<|answer|>", "Warsaw", ["<|answer|>"])[1] == "Warsaw"


def test_a_sentence_ends_as_its_script_does() -> None:
    """Fault B4: facts before a prompt are written as the edit's own text."""
    assert sentence("Bob lives in", "Rome") == "Bob lives in Rome."
    assert sentence("Bob works for", "Yahoo!") == "Bob works for Yahoo!"
    assert sentence("法国的首都是", "巴黎") == "法国的首都是巴黎。"
    assert sentence("苹果公司的首席执行官是", "Tim Cook") == "苹果公司的首席执行官是Tim Cook。"


def test_long_prompts_take_no_longer() -> None:
    """Each rule looks at the end of the line only."""
    import time

    prompt = 'One "two" of l\'three, (four): ' * 3000 + "five:"
    start = time.process_time()
    for _ in range(100):
        assert continuation(prompt, "six")[1] == " six"
    assert time.process_time() - start < 2
