"""Sources by their names: a file, a dataset, or the lab; what follows "?" says more."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qsl

from emend.editing._corpus import JsonLines, LabCorpus, Source, TextFile
from emend.editing._hub import HubDataset
from emend.errors import InvalidInput, MissingFile, UnknownName

LAB = "lab"
JSON = (".jsonl", ".ndjson", ".json")
TEXT = (".txt", ".text", ".md")
OPTIONS = ("config", "split", "field", "revision")


def source_named(name: str) -> Source:
    """The texts that a name stands for.

    Args:
        name: "lab" for the lab's corpus; the path of a text file (empty lines stand between
            documents) or of a JSONL (field ``text``, or ``notes.jsonl?field=body``); else a
            Hugging Face dataset on the hub or in a directory, such as
            ``Salesforce/wikitext?config=wikitext-103-raw-v1&split=train&field=text``.

    Raises:
        MissingFile: A path where there is nothing.
        UnknownName: A word after "?" that means nothing.
        InvalidInput: No name at all, or something said of a file that has no use for it.
    """
    place, _, said = name.partition("?")
    options = dict(parse_qsl(said))
    for option in options:
        if option not in OPTIONS:
            raise UnknownName("option of texts", option, OPTIONS)
    path = Path(place).expanduser()
    if not place.strip():
        raise InvalidInput("the name of the texts is empty: give a file or a dataset")
    if place == LAB and not path.exists():
        return LabCorpus()
    if path.exists() or _looks_like_a_path(place, path):
        return file_source(path, options)
    return HubDataset(place, **options)


def file_source(path: str | os.PathLike[str], options: dict[str, str] | None = None) -> Source:
    """Return the texts of a file, or of a data set in a directory.

    Args:
        path: A text file, a file of JSON lines, or a directory.
        options: What stands behind "?" in a name; see `source_named`.

    Raises:
        MissingFile: There is nothing.
        InvalidInput: Something is said of a file that has no use for it.
    """
    place, options = Path(path).expanduser(), options or {}
    if place.is_dir():
        return HubDataset(str(place), **options)
    if not place.is_file():
        raise MissingFile(f"there is no file {place}: give a text file, a JSONL or a dataset")
    is_json = place.suffix in JSON
    useless = [option for option in options if not (is_json and option == "field")]
    if useless:
        raise InvalidInput(
            f"{useless[0]} is said of the file {place}, which has none: leave it out"
        )
    return JsonLines(place, **options) if is_json else TextFile(place)


def _looks_like_a_path(place: str, path: Path) -> bool:
    # The hub's names are "name" or "owner/name".
    return path.suffix in JSON + TEXT or place[0] in "./~" or place.count("/") > 1
