"""Tables with a header: CSV (commas or semicolons) and TSV, and their rows as records of edits.

A row is an object with a text for each named cell that is not empty. A cell with a JSON list or
object is that list or object, so that one cell can hold several accepted answers. A JSON text is
read as the text if a plain cell could not hold it (see `cell_of`).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from emend._parse import Item
from emend._validate import Fault, Problems
from emend.edits import GROUPS
from emend.errors import InvalidInput, nearest

ALIASES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("template", "statement", "query"),
    "subject": ("entity",),
    "target": ("target_new", "new_target", "new_answer", "object"),
    "original": ("ground_truth", "target_true", "old_target", "old_answer"),
    "relation": ("relation_id", "predicate"),
    "id": ("case_id", "edit_id"),
    "language": (),
    "translations": (),
    "translation_of": (),
}
"""Other names of the columns of an edit's fields."""

_GROUP_ALIASES = {"paraphrase": "rephrase", "locality": "neighborhood", "portability": "one_hop"}
_GROUPS = tuple(group for family in GROUPS.values() for group in family)
_PROBE = re.compile(r"(?P<group>[a-z_]+?)s?(?:_prompts?)?(?:_(?P<number>\d+))?(?:_prompts?)?")
_ANSWER = re.compile(
    r"(?P<group>[a-z_]+?)s?(?:_(?P<number>\d+))?_(?:answers?|ground_truth)(?:_(?P<late>\d+))?"
)


def begins(text: str) -> bool:
    """Return whether a text begins with a line that names columns of edits."""
    return _named(_cells(text, _delimiter(text))) >= 2


def read(
    text: str, problems: Problems, *, tabs: bool = False
) -> tuple[tuple[str, ...], Iterator[Item]]:
    """Read a table as its columns, and its rows as records by column.

    Args:
        text: The whole table.
        problems: Collects rows that cannot be read.
        tabs: Whether tabs separate its cells; else the header decides (comma, semicolon, tab).
    """
    delimiter = "\t" if tabs else _delimiter(text)
    columns = tuple(_plain(name) for name in _cells(text, delimiter))
    return columns, _rows(text, delimiter, columns, problems)


def _rows(
    text: str, delimiter: str, columns: tuple[str, ...], problems: Problems
) -> Iterator[Item]:
    twice = next((one for one in columns if one and columns.count(one) > 1), None)
    if twice:
        fault = Fault(f"column {twice!r} occurs twice", "each name once", "rename one")
        problems.note(fault, line=1)
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line, header = 1, True
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = Fault(f"is not CSV: {error}", "quotes in pairs", "quote the cell again")
            problems.note(fault, line=line)
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if header:
            header = False
            continue
        if any(cell.strip() for cell in cells[len(columns) :]):
            found, remedy = f"has {len(cells)} cells", "put a cell with the separator in quotes"
            problems.note(Fault(found, f"{len(columns)} as in the header", remedy), line=line)
            continue
        pairs = zip(columns, cells, strict=False)
        yield Item(line, {name: value_of(cell) for name, cell in pairs if name and cell.strip()})


def value_of(cell: str) -> Any:
    """Return the value of a cell: its text without spaces around it, or the JSON in it.

    A list or object that is not empty is read as such; a text in JSON's quotes only if the same
    text without them would be read as something else, so that quotes of a title stay.
    """
    cell = cell.strip(" ")
    if cell[:1] not in ("[", "{", '"'):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    if isinstance(value, str):
        return value if value_of(value) != value else cell
    return value or cell


def cell_of(value: object) -> str:
    """Return the cell that `value_of` reads as this text, or list of texts."""
    if isinstance(value, str) and value_of(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def written(records: Iterable[Mapping[str, Any]], delimiter: str) -> str:
    """Format records of edits as a table that is read back equal, with a column for each probe."""
    rows = [_row_of(record) for record in records]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns.sort(key=lambda name: place_of(name)[0] != "field")  # probes after the edit's fields
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns, delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _row_of(record: Mapping[str, Any]) -> dict[str, str]:
    row = {name: cell_of(value) for name, value in record.items() if name != "probes"}
    count: dict[str, int] = {}
    for probe in record.get("probes", ()):
        group, answers = probe["group"], probe["answers"]
        count[group] = count.get(group, 0) + 1
        column = group if count[group] == 1 else f"{group}_{count[group]}"
        row[column] = cell_of(probe["prompt"])
        row[f"{column}_answer"] = cell_of(answers[0] if len(answers) == 1 else answers)
    return row


def record_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a row of a table to the record of an edit with its probes.

    Raises:
        InvalidInput: There are answers without a question, or a question of locality or
            portability without answers.
    """
    record: dict[str, Any] = {}
    prompts: dict[tuple[str, str], object] = {}
    answers: dict[tuple[str, str], object] = {}
    for column, value in row.items():
        kind, name = place_of(column)
        if kind == "field":
            record.setdefault(cast(str, name), value)
        elif kind == "prompt":
            prompts.setdefault(cast("tuple[str, str]", name), value)
        elif kind == "answer":
            answers.setdefault(cast("tuple[str, str]", name), value)
    for key in answers:
        if key not in prompts:
            raise InvalidInput(
                f"{_column(key)}_answer is there without {_column(key)}: add the other"
            )
    probes = [_probe(key, prompts[key], answers.get(key), record.get("target")) for key in prompts]
    return {**record, **({"probes": probes} if probes else {})}


def _probe(key: tuple[str, str], prompt: object, answers: object, target: object) -> Any:
    if answers is None and key[0] in ("rephrase", "after_context", "subject_alias"):
        answers = target  # the same fact in other words, so that its answer is the target
    if answers is None:
        raise InvalidInput(
            f"{_column(key)}_answer is missing, expected the answer to {_column(key)}: "
            "add the column"
        )
    listed = cast("list[object]", answers) if isinstance(answers, list) else [answers]
    return {"group": key[0], "prompt": prompt, "answers": listed}


def place_of(column: str) -> tuple[str, str | tuple[str, str] | None]:
    """Classify a column: ("field", its name), ("prompt" or "answer", a probe) or ("unknown", None).

    A probe is named by its group and number, such as ("rephrase", "2"); the number may be "".
    """
    for field, others in ALIASES.items():
        if column == field or column in others:
            return "field", field
    for kind, pattern in (("answer", _ANSWER), ("prompt", _PROBE)):
        match = pattern.fullmatch(column)
        # A group's name may end in an s of its own.
        group = match and (_group(match["group"]) or _group(match["group"] + "s"))
        if match and group:
            late = match["late"] if kind == "answer" else None
            return kind, (group, match["number"] or late or "")
    return "unknown", None


def unknown_columns(columns: Iterable[str]) -> list[str]:
    """Return a message for each column that is not read."""
    known = [*ALIASES, *_GROUPS, *(f"{group}_answer" for group in _GROUPS)]
    found: list[str] = []
    first: dict[object, str] = {}
    for column in columns:
        kind, name = place_of(column)
        same = column if kind == "unknown" else first.setdefault((kind, name), column)
        if same != column:
            found.append(f"column {column!r}, which is {same!r} under another name,")
        if column and kind == "unknown":
            near = nearest(column, known)
            found.append(f"column {column!r}" + (f" (did you mean {near!r}?)" if near else ""))
    return found


def _group(name: str) -> str | None:
    name = name.replace("neighbourhood", "neighborhood")
    group = _GROUP_ALIASES.get(name, name)
    return group if group in _GROUPS else None


def _column(key: tuple[str, str]) -> str:
    return "_".join(part for part in key if part)


def _plain(name: str) -> str:
    """Return a column's name in one spelling: lower case, with underscores."""
    return "_".join(re.findall(r"\w+", name.strip("\ufeff").casefold()))


def _cells(text: str, delimiter: str) -> list[str]:
    """Return the cells of the first line that is not empty."""
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        return next((cells for cells in rows if any(cell.strip() for cell in cells)), [])
    except csv.Error:
        return []


def _delimiter(text: str) -> str:
    """Return the separator by which the header names most columns."""
    return max(",;\t", key=lambda one: (_named(_cells(text, one)), len(_cells(text, one))))


def _named(cells: Iterable[str]) -> int:
    return sum(place_of(_plain(cell))[0] != "unknown" for cell in cells)
