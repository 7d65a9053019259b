"""Files and directories written whole or not at all, and lines of JSON, in UTF-8 everywhere."""

from __future__ import annotations

import ctypes
import glob
import json
import os
import shutil
import sys
import uuid
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from emend.errors import BrokenFile, EmendError, InvalidInput, StoreFailure

LEFT_AFTER = 24 * 3600.0
"""Seconds without a change after which a temporary file is one that a killed writer left."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def cache_directory(folder: str) -> Path:
    """Return a folder of the cache: in ``$EMEND_CACHE``, or ``~/.cache/emend``."""
    return Path(os.environ.get("EMEND_CACHE") or Path.home() / ".cache" / "emend") / folder


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Generator[Path, None, None]:
    """Write a file so that a reader sees the old one or the new one, never a half of either.

    The block fills an empty file next to `path`. When it ends well, that file is on the disk and
    takes the place of `path`, with its permissions; where `path` is a link, of what it leads to.
    When the block raises, or the machine fails, the old file stays. Any number of threads,
    processes and machines may write one path at once: one whole version is left.

    Args:
        path: The file to write. Its directory is made where it is not there.

    Yields:
        The file to fill.

    Raises:
        InvalidInput: `path` is a directory, or its directory cannot be made.
        StoreFailure: It cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InvalidInput(f"{path} is a directory, expected a file to write: name a file in it")
    make_parent(target)
    aside = name_beside(target)
    with _explained(path, aside):
        try:
            aside.touch()
            clear_left(target, aside)
            yield aside
            if target.exists():
                shutil.copymode(target, aside)
            sync(aside)
            os.replace(aside, target)
            sync(target.parent)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def whole_directory(
    target: Path, ours: Collection[str], marker: str
) -> Generator[Path, None, None]:
    """Write a directory so that a reader sees the old one or the new one, never a half.

    The block fills a new directory next to `target`. If the block (or the machine) fails, what
    was at `target` is still there.

    Args:
        target: The directory to write; its parents are made.
        ours: Names of the files that a directory of ours may hold.
        marker: The one of them that must be there for an existing directory to be ours.

    Yields:
        The empty directory to write into.

    Raises:
        InvalidInput: `target` is a file, a directory with something else in it, or its parent
            cannot be made.
        StoreFailure: It cannot be written.
    """
    target = Path(os.path.realpath(target))
    refuse_foreign(target, ours, marker)
    make_parent(target)
    aside = name_beside(target)
    with _explained(target, aside):
        aside.mkdir()
        try:
            clear_left(target, aside)
            yield aside
            readable = aside.stat().st_mode & 0o666  # some writers let nobody else read
            for path in (*aside.rglob("*"), aside):
                if path.is_file():
                    path.chmod(readable)
                sync(path)
            _put_in_place(aside, target)
            sync(target.parent)
        finally:
            # After an exchange this is the old directory, after a failure the unfinished one.
            shutil.rmtree(aside, ignore_errors=True)


def files_listed(directory: Path, card: str) -> Collection[str]:
    """Return the files that a directory of ours lists in its card; none where there is no card.

    Raises:
        BrokenFile: The card cannot be read.
    """
    path = directory / card
    if not path.is_file():
        return ()
    try:
        return frozenset(map(str, json.loads(path.read_text(encoding="utf-8"))["files"]))
    except (ValueError, KeyError, TypeError):
        raise BrokenFile(
            f"{path} does not list the files of its directory: give another path"
        ) from None


def refuse_foreign(target: Path, ours: Collection[str], marker: str) -> None:
    """Raise where writing to `target` would destroy what is not ours.

    Raises:
        InvalidInput: `target` is a file, or a directory with something else in it.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise InvalidInput(f"{target} is a file, expected a directory: give another path")
    names = sorted(path.name for path in target.iterdir())
    foreign = [name for name in names if name not in ours]
    if names and (foreign or marker not in names):
        raise InvalidInput(
            f"{target} holds {(foreign or names)[0]}, which we did not write, expected an empty "
            "directory or one of ours to replace: give another path"
        )


def name_beside(path: Path) -> Path:
    """Make up a name in the same directory that no other writer uses, whatever machine it is on.

    Process ids do not serve: threads share one, and so do containers and machines.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}.tmp")


def clear_left(path: Path, aside: Path) -> None:
    """Remove what writers of `path` that were killed have left next to it.

    Only what nobody has changed for `LEFT_AFTER` is removed, by the clock of the file system:
    whether a writer on another machine or in another container lives cannot be asked.

    Args:
        path: The file or directory that was to be written.
        aside: What the caller has made just now; its time is the present one.
    """
    pattern = f".{glob.escape(path.name)}.*.tmp*"
    left = [*path.parent.glob(pattern)]
    if path.exists():  # else it may be all that is left of the directory
        left.extend(path.parent.glob(f".{glob.escape(path.name)}.*.old"))
    for one in left:
        with suppress(OSError):
            if aside.stat().st_mtime - _last_change(one) < LEFT_AFTER:
                continue
            shutil.rmtree(one) if one.is_dir() else one.unlink()


def sync(path: Path) -> None:
    """Have a file or directory on the disk itself before going on."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a directory
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems cannot sync a directory
            raise
    finally:
        os.close(handle)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all; see `whole_file`."""
    with whole_file(path) as aside:
        aside.write_bytes(text.encode())


def write_json(path: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
    """Write `data` to `path` as indented JSON, whole or not at all; see `whole_file`.

    Raises:
        ValueError: A number in `data` is not finite, which JSON cannot hold.
    """
    write_text(path, json_text(data, indent=2, allow_nan=False) + "\n")


def write_json_lines(path: str | os.PathLike[str], records: Iterable[Any]) -> None:
    """Write one line of JSON for each record, whole or not at all; see `whole_file`."""
    write_text(path, "".join(json_text(record) + "\n" for record in records))


def json_text(data: Any, **options: Any) -> str:
    """Give JSON that UTF-8 can hold: characters as they are, halves of surrogate pairs escaped.

    Args:
        data: What to write.
        options: Those of `json.dumps`.
    """
    text = json.dumps(data, ensure_ascii=False, **options)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(data, ensure_ascii=True, **options)
    return text


def split_lines(text: str) -> list[str]:
    r"""Split a text at "\n" alone; a "\r" before it is removed with it.

    `str.splitlines` also parts at U+2028, U+0085 and others, which stand inside JSON texts.
    """
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def append_json_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record to a file of JSON lines that only grows; it is there when this returns.

    A last line that was cut short (by a kill, a full disk) is ended first, so that it takes no
    record with it.

    Raises:
        StoreFailure: It cannot be written.
    """
    line = json_text(record).encode() + b"\n"
    with _explained(path, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            while line:  # in one piece, but where the disk is all but full
                line = line[file.write(line) :]


def read_kept_lines(path: Path) -> list[Any]:
    """Read what `append_json_line` wrote; lines that were cut short are passed over.

    Returns:
        The records in order, none where there is no file.
    """
    records: list[Any] = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        with suppress(ValueError):
            records.append(json.loads(line.decode()))
    return records


def make_parent(target: Path) -> None:
    """Make the directory of a file that is to be written.

    Raises:
        InvalidInput: It cannot be made.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"cannot make the directory {target.parent} ({error.strerror}): choose another path"
        ) from error


@contextmanager
def _explained(path: str | os.PathLike[str], aside: Path) -> Generator[None, None, None]:
    """Say in one line why a path cannot be written; errors about other files are left alone."""
    try:
        yield
    except OSError as error:
        if isinstance(error, EmendError) or error.filename not in (None, aside, str(aside)):
            raise
        raise StoreFailure(
            f"cannot write {path} ({error.strerror or error}): free some room, fix the "
            "permissions or choose another path"
        ) from error


def _last_change(path: Path) -> float:
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    return max(one.stat().st_mtime for one in paths)


def _put_in_place(aside: Path, target: Path) -> None:
    if not target.exists():
        os.rename(aside, target)
    elif not _exchanged(aside, target):
        # No exchange in one step here: the old directory is moved away first and moved back
        # should the second rename fail.
        old = aside.with_suffix(".old")
        os.rename(target, old)
        try:
            os.rename(aside, target)
        except OSError:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchanged(aside: Path, target: Path) -> bool:
    """Swap two directories in one atomic step where the system can (Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    old, new = os.fsencode(aside), os.fsencode(target)
    return rename(_AT_FDCWD, old, _AT_FDCWD, new, ctypes.c_uint(_RENAME_EXCHANGE)) == 0
