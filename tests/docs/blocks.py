"""Code blocks of the README and of the documentation, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PAGES = [page for page in PAGES if page.is_file()]
FENCE = re.compile(
    r"(?:<!-- (?:not run here|run here without (?P<without>[^:]+)): "
    r"(?P<reason>(?:(?!-->).)+?) -->\s*?\n\s*)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
SHELL_WORDS = re.compile(r"^(?:&&|\|\||[|;]|\d?>+|<|&)$")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: The file, from the root of the repository.
        line: The number of its first line.
        language: What its fence names; "" for none.
        text: Its lines, without the fence's indent.
        reason: Why it is not run, or not all of it, from the comment above it; "" where it is run.
        without: Of a block that is run in part, regular expressions of the commands that are not.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str
    without: tuple[str, ...] = ()

    @property
    def is_run(self) -> bool:
        """Whether tests run it, all of it or a part."""
        return not self.reason or bool(self.without)

    @property
    def place(self) -> str:
        """The page and the line."""
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Read the blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for one in FENCE.finditer(text):
        indent = len(one["indent"])
        lines = [line[indent:] for line in one["text"].split("\n")]
        number = text.count("\n", 0, one.start("language")) + 1
        reason = " ".join((one["reason"] or "").split())
        name = str(page.relative_to(ROOT))
        without = tuple(re.split(r",\s*", one["without"] or "")) if one["without"] else ()
        found.append(Block(name, number, one["language"], "\n".join(lines), reason, without))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def command_lines(block: Block) -> list[list[str]]:
    """Return the words of each command of a block; of one in another language, those after `$`."""
    text = re.sub(r"\\\n", " ", block.text)
    lines = text.split("\n")
    if block.language != "bash":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    commands: list[list[str]] = []
    for line in lines:
        words = _words(line)
        while words:
            end = next((i for i, word in enumerate(words) if SHELL_WORDS.match(word)), len(words))
            if command := [word for word in words[:end] if "=" not in word or word != words[0]]:
                commands.append(command)
            # What a command reads from or writes to is no command; what follows a pipe is.
            skip = 2 if end < len(words) and re.search(r"[<>]", words[end]) else 1
            words = words[end + skip :]
    return commands


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    return list(lexer)


def inline_commands(page: Path) -> list[list[str]]:
    """Return the words of what a page calls `emend ...` within its text."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"(?<!`)`((?:python benchmarks/|emend |make )[^`]+)`(?!`)", text)
    return [_words(" ".join(one.split())) for one in found]
