"""Build the hands-on series: execute notebooks/en/*.py, and write it in English and in Chinese.

Run ``python tools/notebooks.py``, or ``make notebooks``. Each script is executed once, as Jupyter
does it. Its outputs go under the English text and under the Chinese text of ``notebooks/zh``, so
that both languages have the same code by construction. For each language a folder gets a
notebook (.ipynb), a page (.md) and the page's figures.
"""

from __future__ import annotations

import argparse
import base64
import copy
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.series import BUILT, scripts, stamp, translation_of

BREAK = "\n<!-- code -->\n"
"""Line between the text cells of a translation, in place of the code cells between them."""

INLINE = "module://matplotlib_inline.backend_inline"
"""Jupyter's own matplotlib backend."""

MISSING = ("MissingFile",)
"""Errors that say that a model cannot be got here: the notebook is skipped."""


def texts_of(translation: Path) -> list[str]:
    """Read the text cells of a translation."""
    text = translation.read_text(encoding="utf-8")
    return [part.strip() for part in text.split(BREAK)]


def grouped(notebook: Any) -> list[list[int]]:
    """List the numbers of adjacent text cells: a translation has one text for each such group."""
    groups: list[list[int]] = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        if groups and groups[-1][-1] == number - 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def translated(notebook: Any, texts: Sequence[str]) -> Any:
    """Return a copy of a notebook, outputs included, with other text cells.

    Raises:
        ValueError: The number of texts is not that of the notebook's groups of text cells.
    """
    groups = grouped(notebook)
    if len(groups) != len(texts):
        raise ValueError(
            f"{len(texts)} texts for {len(groups)} groups of text cells: between two of them "
            f"a translation has one line {BREAK.strip()!r}"
        )
    made = copy.deepcopy(notebook)
    for group, text in zip(groups, texts, strict=True):
        made.cells[group[0]].source = text
    dropped = {number for group in groups for number in group[1:]}
    made.cells = [cell for number, cell in enumerate(made.cells) if number not in dropped]
    return made


def execute(notebook: Any, folder: Path) -> None:
    """Execute a notebook in a kernel of its own that works in a folder; outputs go into it.

    Raises:
        CellExecutionError: A cell raised an error.
    """
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources)
    # Figures go into the notebook whatever backend the caller's environment names.
    client.execute(env={**os.environ, "MPLBACKEND": INLINE})


def write(notebook: Any, folder: Path, name: str, mark: str) -> None:
    """Write a notebook and its page with figures; the page ends with the mark of its sources."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*.png"):
        old.unlink()
    nbformat.write(notebook, folder / f"{name}.ipynb")
    parts: list[str] = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source.replace(".ipynb)", ".md)"))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for index, output in enumerate(cell.outputs):
            parts.append(_shown(output, folder, f"{name}-{number}-{index}.png"))
    page = "\n\n".join(part for part in [*parts, mark] if part)
    (folder / f"{name}.md").write_text(page + "\n", encoding="utf-8")


def _shown(output: Any, folder: Path, figure: str) -> str:
    """Return one output as Markdown; a picture is written next to the page."""
    if output.output_type == "stream":
        # Progress and warnings are for whoever runs it, not for the page.
        return f"```text\n{output.text.rstrip()}\n```" if output.name == "stdout" else ""
    data = output.get("data", {})
    if "image/png" in data:
        (folder / figure).write_bytes(base64.b64decode(data["image/png"]))
        return f"![]({figure})"
    if "text/markdown" in data:
        return str(data["text/markdown"])
    return f"```text\n{data['text/plain']}\n```" if "text/plain" in data else ""


def build(script: Path, output_path: Path) -> str:
    """Execute one script, write it in both languages, and return a line about it.

    Raises:
        CellExecutionError: A cell raised an error, other than that a model cannot be got.
        ValueError: The translation has another number of texts.
    """
    # All are read before minutes of execution, during which they may be edited.
    notebook, mark, translation = jupytext.read(script), stamp(script), translation_of(script)
    texts = texts_of(translation) if translation.exists() else None
    if texts is not None:
        translated(notebook, texts)
    output_path.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    try:
        execute(notebook, output_path)
    except CellExecutionError as error:
        if error.ename not in MISSING:
            raise
        return f"{script.stem}: skipped: {error.evalue}"
    seconds = time.perf_counter() - began
    write(notebook, output_path / "en", script.stem, mark)
    if texts is not None:
        write(translated(notebook, texts), output_path / "zh", script.stem, mark)
    return f"{script.stem}: executed in {seconds:.0f} s"


def main() -> int:
    """Build the series, or the notebooks whose names begin with what is given."""
    parser = argparse.ArgumentParser(description="Build the hands-on series.")
    parser.add_argument("only", nargs="*", help="how the names begin, such as 1 or 2_master")
    parser.add_argument("--output_path", type=Path, default=BUILT)
    given = parser.parse_args()
    for script in scripts():
        if not given.only or script.name.startswith(tuple(given.only)):
            sys.stdout.write(build(script, given.output_path) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
