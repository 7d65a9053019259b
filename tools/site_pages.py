"""Generate pages of the documentation at build: one for each method, one for each room's reference.

A hook of mkdocs (`hooks` in mkdocs.yml). Nothing that it writes is stored in the repository: a
method's page comes from its file and from the tables of other pages that measure it, and the
reference from `__all__` of each room.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from markdown.extensions.toc import slugify
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from emend import methods  # noqa: E402 - the package of this checkout, installed or not
from emend.cli._settings import describe  # noqa: E402
from emend.cli.methods import CONTINUES  # noqa: E402

ROOMS = sorted(
    part.stem if part.suffix else part.name
    for part in (ROOT / "src" / "emend").iterdir()
    if not part.name.startswith("_")
    and (part.suffix == ".py" or (part / "__init__.py").exists())
    and part.name != "cli"  # docs/cli.md describes it
)


class Row(NamedTuple):
    """A row of a table that measures a method.

    Attributes:
        place: Page and heading, as a link.
        header: The table's header line.
        line: The row.
    """

    place: str
    header: str
    line: str


def on_config(config: Any) -> Any:
    """Add the generated pages to the sections of `nav` that they belong to."""
    added = {
        "Edit": ("Each method", [{n: f"methods/{n}.md"} for n in methods.about()]),
        "Reference": (
            "Python",
            [
                {"emend": "reference/emend.md"},
                *({f"emend.{room}": f"reference/{room}.md"} for room in ROOMS),
            ],
        ),
    }
    for section in config["nav"]:
        for title, (name, pages) in added.items():
            if title in section:
                section[title].append({name: pages})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    rows = list(measured(Path(config["docs_dir"])))
    for name in methods.about():
        page = method_page(name, rows)
        files.append(File.generated(config, f"methods/{name}.md", content=page))
    for name in ("", *ROOMS):
        path = f"reference/{name or 'emend'}.md"
        files.append(File.generated(config, path, content=reference_page(name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Link the table of all methods to their pages."""
    if page.file.src_uri != "methods.md":
        return markdown
    return re.sub(r"^\| `(\w+)` \| (?=[^\d])", _linked, markdown, flags=re.MULTILINE)


def _linked(match: re.Match[str]) -> str:
    name = match[1]
    return f"| [`{name}`](methods/{name}.md) | " if name in methods.about() else match[0]


def measured(docs: Path) -> Iterator[Row]:
    """Find the rows of results in all pages: tables of which a row has at least two numbers."""
    for path in sorted(docs.glob("*.md")):
        title, heading, header = path.stem, "", ""
        lines = path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines):
            if line.startswith("# "):
                title = line[2:]
            elif line.startswith("## ") or line.startswith("### "):
                heading = line.lstrip("# ")
            if not line.startswith("|"):
                header = ""
            elif not header:
                header = f"{line}\n{lines[number + 1]}"
            elif len(re.findall(r"\| *[-+]?\d[^|]*", line)) >= 2:
                anchor = f"#{slugify(heading, '-')}" if heading else ""
                place = f"[{title}{': ' + heading if heading else ''}](../{path.name}{anchor})"
                yield Row(place, header, line)


def method_page(name: str, rows: list[Row]) -> str:
    """Write the page of a method from its declaration, its file and the rows that measure it."""
    method = methods.registry().get(name)
    text = (sys.modules[method.run.__module__].__doc__ or "").strip()
    order = "does not matter" if method.order_invariant else "matters"
    title = method.title.partition(":")[0]
    return "\n".join(
        [
            f"# {name}" if title.lower() == name else f"# {name}: {title}",
            "",
            f"*{method.title}*",
            "",
            f"**For:** {method.when}.",
            "",
            *([f"**Not for:** {method.avoid}.", ""] if method.avoid else []),
            f"**Order of edits** {order}. **A patch is continued** so: "
            f"{CONTINUES[method.continues]}.",
            "",
            f"**Paper:** {_with_links(method.paper)}.",
            "",
            "```python",
            f'patch = emend.edit(model, tokenizer, edits, method="{name}")',
            "```",
            "",
            "```bash",
            f"emend edit --model smollm2-135m --method {name} --edits edits.jsonl \\",
            "    --output_path patch/",
            "```",
            "",
            "## Equation, and where this implementation deviates",
            "",
            _prose(text),
            "",
            "## Settings",
            "",
            *_settings(method),
            "",
            "## Measured",
            "",
            *_measured(name, rows),
            "",
        ]
    )


def _settings(method: Any) -> list[str]:
    rows = [
        f"| `{one['name']}` | {_cell(one['type'])} | `{_cell(repr(one['default']))}` "
        f"| {_cell(one['help'])} |"
        for one in describe(method.config_type)
    ]
    if not rows:
        return ["This method has none."]
    return ["| setting | type | default | |", "|---|---|---|---|", *rows]


def _measured(name: str, rows: list[Row]) -> list[str]:
    found = [row for row in rows if re.search(rf"`{name}\b", "|".join(row.line.split("|")[:3]))]
    if not found:
        return ["No table of this documentation measures it yet."]
    lines: list[str] = []
    tables = dict.fromkeys((row.place, row.header) for row in found)
    for place, header in tables:
        lines += [f"From {place}, which has the command and the conditions:", "", header]
        lines += [row.line for row in found if (row.place, row.header) == (place, header)]
        lines.append("")
    return lines


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _with_links(text: str) -> str:
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _prose(text: str) -> str:
    """Turn a docstring into Markdown: what is indented stays as it is, stars are no emphasis."""
    blocks: list[str] = []
    for block in re.split(r"\n{2,}", text):
        if block.startswith("    "):
            blocks.append(block)
            continue
        plain = _with_links(re.sub(r"``([^`]+)``", r"`\1`", block))
        parts = re.split(r"(`[^`]*`|\*\*)", plain)
        blocks.append(
            "".join(
                p if p[:1] == "`" or p == "**" else re.sub(r"[*|]", r"\\\g<0>", p) for p in parts
            )
        )
    return "\n\n".join(blocks)


def reference_page(room: str) -> str:
    """Write the reference of a room (of `emend` itself for ""): its public names in order."""
    path = f"emend.{room}" if room else "emend"
    module = importlib.import_module(path)
    names = getattr(module, "__all__", None) or [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == path
    ]
    rows = [f"::: {path}.{name}" for name in names if name != "__version__"]
    return "\n\n".join([f"# {path}", _prose((module.__doc__ or "").strip()), *rows, ""])
