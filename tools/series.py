"""Where the hands-on series is, and which of its built pages are made from the present sources."""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "notebooks"
BUILT = ROOT / "build" / "series"
LANGUAGES = {"en": "English", "zh": "中文"}


def scripts() -> list[Path]:
    """List the scripts of the series, in order."""
    return sorted((SOURCE / "en").glob("*.py"))


def translation_of(script: Path) -> Path:
    """Return the place of a script's Chinese text."""
    return script.parent.parent / "zh" / f"{script.stem}.md"


def stamp(script: Path) -> str:
    """Return the last line of a page, which identifies the sources that it was made from."""
    sources = [path for path in (script, translation_of(script)) if path.exists()]
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
    return f"<!-- made from {digest[:16]} -->"


def current_pages(built: Path = BUILT) -> dict[str, Path]:
    """Return the files of the built series by their places in the site.

    Returns:
        Nothing unless every script's page is there and made from the present sources: an older
        page would show outputs of other code.
    """
    for script in scripts():
        page = built / "en" / f"{script.stem}.md"
        if not page.exists() or stamp(script) not in page.read_text(encoding="utf-8"):
            return {}
    files = [path for one in LANGUAGES for path in sorted((built / one).glob("*"))]
    return {
        f"series/{path.relative_to(built).as_posix()}": path
        for path in files
        if path.suffix in (".md", ".png")
    }
