"""Print the house in numbers, as the Markdown tables of CONTRIBUTING.md.

    python tools/house.py

The second table counts the files, lines and long functions of each room; the last column is the
files of it that run in `emend.edit(..., method="memit")` on a model of the lab, import aside.
"""

from __future__ import annotations

import ast
import dataclasses
import graphlib
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "emend"
LONG = 40
"""Lines that a function may have without its docstring; more are counted."""
ALONE = "(files of its own)"


def main() -> None:
    """Print both tables."""
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    files = sorted(SOURCE.rglob("*.py"))
    lines, long, passed = Counter[str](), Counter[str](), Counter[str]()
    for file in files:
        text = file.read_text(encoding="utf-8")
        lines[room_of(file)] += text.count("\n")
        long[room_of(file)] += sum(length > LONG for length in function_lengths(text))
    passed.update(map(room_of, files_passed()))
    held = Counter(map(room_of, files))
    counts = setting_counts()
    cycles, private = imports()
    rows: list[tuple[str, str]] = [
        ("lines of `src/`", f"{lines.total():,}"),
        ("files", str(len(files))),
        ("files passed by `memit`", str(passed.total())),
        ("of them in `editing` and `methods`", str(passed["editing"] + passed["methods"])),
        ("settings, all methods", str(sum(counts.values()))),
        ("settings, most of a method", str(max(counts.values()))),
        (f"functions over {LONG} lines", str(long.total())),
        ("import cycles", cycles),
        ("imports of another room's private module", str(private)),
        ("`emend methods`, CPU seconds", f"{seconds_of('methods'):.2f}"),
    ]
    table(("", "now"), rows)
    names = sorted(held, key=lambda room: (room == ALONE, room))
    counted = (held, lines, long, passed)
    each = [(room, *(f"{of[room]:,}" for of in counted)) for room in names]
    table(("room", "files", "lines", f"functions over {LONG}", "passed by `memit`"), each)


def room_of(file: Path) -> str:
    """Return the room that a file is in."""
    parts = file.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else ALONE


def function_lengths(text: str) -> Iterator[int]:
    """Yield the lines of each function, its signature counted and its docstring not."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            said = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            yield (node.end_lineno or 0) - node.lineno + 1 - said


def setting_counts() -> dict[str, int]:
    """Count the settings of each method."""
    from emend.methods import registry

    methods = registry()
    return {
        name: len(dataclasses.fields(methods.get(name).config_type)) for name in methods.names()
    }


def imports() -> tuple[str, int]:
    """Return the modules of an import cycle, or "0", and the number of private imports.

    Imports for the type checker alone do not count.
    """
    import grimp
    from tools.import_rules import private_imports

    graph = grimp.build_graph("emend", exclude_type_checking_imports=True)
    edges = {one: graph.find_modules_directly_imported_by(one) for one in graph.modules}
    try:
        graphlib.TopologicalSorter(edges).prepare()
        cycle = "0"
    except graphlib.CycleError as error:
        cycle = " -> ".join(error.args[1])
    return cycle, len(private_imports(graph, "emend"))


def files_passed() -> set[Path]:
    """Return the files whose functions run in an edit of two facts by `memit`."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EMEND_CACHE"] = cache  # nothing is known of earlier runs
        import emend

        model, tokenizer = emend.load("lab/gptneo")
        edits = emend.datasets.load("lab", limit=2, seed=1)
        found: set[str] = set()

        def note(frame: FrameType, event: str, _argument: Any) -> None:
            if event == "call" and frame.f_code.co_name != "<module>":
                found.add(frame.f_code.co_filename)

        threading.setprofile(note)
        sys.setprofile(note)
        try:
            emend.edit(model, tokenizer, edits, method="memit")
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return {Path(name) for name in found if Path(name).is_relative_to(SOURCE)}


def seconds_of(*words: str) -> float:
    """Measure the CPU seconds of a command in a process of its own, the least of three."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-m", "emend", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once() for _ in range(3))


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a Markdown table whose columns after the first are numbers."""
    top = f"| {' | '.join(header)} |\n|---|{'---:|' * (len(header) - 1)}\n"
    sys.stdout.write(top + "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n")


if __name__ == "__main__":
    main()
