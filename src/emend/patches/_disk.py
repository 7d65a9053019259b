"""Writing a directory so that a reader finds the old one or the new one, never a half."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import uuid
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from emend.errors import InvalidInput

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def written_aside(target: Path, ours: Collection[str], marker: str) -> Generator[Path, None, None]:
    """Fill a new sibling of ``target`` and put it in its place when the block ends well.

    If the block (or the machine) fails, what stood at ``target`` still stands.

    Args:
        target: The directory to write; its parents are made.
        ours: Names of the files that a directory of ours may hold.
        marker: The one of them that must be there for an existing directory to be ours.

    Yields:
        The empty directory to write into.

    Raises:
        InvalidInput: ``target`` is a file, a directory with something else in it, or stands
            where nothing can be written.
    """
    target = Path(os.path.realpath(target))
    refuse_foreign(target, ours, marker)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise InvalidInput(
            f"cannot write to {target.parent} ({error.strerror}): give another path"
        ) from error
    try:
        yield aside
        for path in (*aside.iterdir(), aside):
            _sync(path)
        _put_in_place(aside, target)
        _sync(target.parent)
    finally:
        # After an exchange this is the old directory, after a failure the unfinished one.
        shutil.rmtree(aside, ignore_errors=True)


def refuse_foreign(target: Path, ours: Collection[str], marker: str) -> None:
    """Raise where writing to ``target`` would destroy what is not ours.

    Raises:
        InvalidInput: ``target`` is a file, or a directory with something else in it.
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


def _sync(path: Path) -> None:
    """Have the file or directory on the disk before going on."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a directory
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
