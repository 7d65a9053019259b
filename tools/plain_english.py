"""Refuse words that make the English of src/, docs/, notebooks/ and README.md hard to follow.

Run ``python tools/plain_english.py``; it prints one line per finding, with what to write instead.
Lines that end with "# not prose" are skipped.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

INSTEAD = {
    r"shall": "must, will, or the imperative",
    r"so many": "a number, or: as many as, this many",
    r"(?:is|are|was|were|be|been|being) said": "predicted, generated, stated or written",
    r"stands(?! for\b)": "is",
    r"told": "stated, given or reported",
    r"beside": "next to, with or alongside",
    # Not the method's name: `mend`, "mend", --method mend, ultraedit mend, mend/, mend, ke.
    r"(?<![`\"'./])(?<!method )(?<!edit )mend(?:s|ed|ing)?(?![`\"'/,(])": "fix",
    r"sought": "optimised, searched for or wanted",
    r"dear|dearer|dearest": "expensive",
    r"kin": "the names of what is meant",
    r"likeliest": "top1, or most probable",
    r"worth a word": "reported",
}
REFUSED = [
    (re.compile(rf"(?<!\w)(?:{word})(?!\w)", re.IGNORECASE), remedy)
    for word, remedy in INSTEAD.items()
]


def findings(text: str) -> list[tuple[int, str, str]]:
    """List (line number, refused word, what to write instead), in order of line."""
    return [
        (number, match.group(), remedy)
        for number, line in enumerate(text.split("\n"), start=1)
        if not line.endswith("# not prose")
        for pattern, remedy in REFUSED
        for match in pattern.finditer(line)
        if match.group() != "MEND"
    ]


def main() -> int:
    """Check every file; return 1 if a word is refused."""
    files = [
        *(path for folder in ("src", "notebooks") for path in (ROOT / folder).rglob("*.py")),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "README.md",
    ]
    faults = [
        f'{path.relative_to(ROOT)}:{number}: "{word}": write {remedy}'
        for path in sorted(files)
        for number, word, remedy in findings(path.read_text(encoding="utf-8"))
    ]
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    return int(bool(faults))


if __name__ == "__main__":
    raise SystemExit(main())
