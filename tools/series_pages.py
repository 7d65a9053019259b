"""Add the built pages of the hands-on series to the documentation (a hook of mkdocs).

`make notebooks` builds them; none are added where they are missing or older than their sources.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.series import LANGUAGES, current_pages

logger = logging.getLogger("mkdocs.plugins.series")


def on_config(config: Any) -> Any:
    """List the pages under the section that has docs/series.md."""
    places = [place for place in current_pages() if place.endswith(".md")]
    if not places:
        logger.info("the hands-on series is not built, or older than its sources: make notebooks")
    for section in config["nav"]:
        for entries in section.values():
            if "series.md" not in [page for entry in entries for page in entry.values()]:
                continue
            for language, name in LANGUAGES.items():
                pages = [place for place in places if place.startswith(f"series/{language}/")]
                entries.extend([{f"The series: {name}": pages}] if pages else [])
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and their figures."""
    for place, path in current_pages().items():
        files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Link the table of docs/series.md to the pages."""
    if page.file.src_uri != "series.md":
        return markdown
    places = current_pages()

    def linked(match: re.Match[str]) -> str:
        links = [
            f"[{name}]({place})"
            for language, name in LANGUAGES.items()
            if (place := f"series/{language}/{match[1]}.md") in places
        ]
        return f"{match[0]} ({', '.join(links)})" if links else match[0]

    return re.sub(r"(?<=^\| )`(\w+)`", linked, markdown, flags=re.MULTILINE)
