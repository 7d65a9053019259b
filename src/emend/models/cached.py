"""Models that were converted from GGUF, kept under the cache: made once, whole or not at all."""

from __future__ import annotations

import functools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from emend import _io
from emend._io import whole_directory, write_json
from emend._progress import announce
from emend.models.gguf import CONVERSION, check_reader, convert
from emend.models.packaged import PackagedModel, check_terms, join_parts, package_files, sha256_of

CARD = "emend_model.json"
"""What a converted model says of its making; a directory of the cache with it is whole."""

Fill = Callable[[Path], dict[str, Any]]
"""Writes a model to an empty directory; returns what its card states."""


def packaged_folder(model: PackagedModel, *, accept_license: bool = False) -> Path:
    """Give the directory of a packaged model, which is got and converted where it is not cached.

    Args:
        model: The model.
        accept_license: The caller accepts the model's terms.

    Raises:
        InvalidInput: The model has terms that are not accepted.
        MissingFile: Its packages are neither installed nor to be had.
        BrokenFile: They hold something else than what was published.
        MissingExtra: The package gguf is not installed.
    """
    place = cached_at(model)
    if place is not None:
        return place
    check_reader(model.name)  # before the download
    check_terms(model, accept_license)

    def fill(folder: Path) -> dict[str, Any]:
        with _whole_gguf(model, folder) as whole:
            _convert(whole, folder, model.title)
        return _card(model)

    return _kept(_name(model.name, model.sha256), fill)


def packaged_gguf(model: PackagedModel, *, accept_license: bool = False) -> Path:
    """Give the GGUF file of a packaged model, kept in the cache for engines that serve it.

    Raises:
        InvalidInput: The model has terms that are not accepted.
        MissingFile: Its packages are neither installed nor to be had.
        BrokenFile: They hold something else than what was published.
    """
    name = f"{model.name}.gguf"
    folder = f"{_name(model.name, model.sha256)}-gguf"
    place = cache_directory() / folder
    if (place / CARD).is_file():
        return place / name
    check_terms(model, accept_license)

    def fill(folder: Path) -> dict[str, Any]:
        with _whole_gguf(model, folder) as whole:
            whole.rename(folder / name)
        return _card(model)

    return _kept(folder, fill) / name


@contextmanager
def _whole_gguf(model: PackagedModel, folder: Path) -> Generator[Path, None, None]:
    """Put a model's GGUF file, which the caller may move, and its licences into a directory."""
    wheels = folder / "packages"
    wheels.mkdir()
    files = package_files(model, wheels)
    whole = wheels / Path(model.parts[0]).with_suffix(".gguf").name
    join_parts(model, files, whole)
    for path in model.licence_files:
        (folder / Path(path).name).write_bytes(files[path].read_bytes())
    yield whole
    shutil.rmtree(wheels)


def _card(model: PackagedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "title": model.title,
        "licence": model.licence,
        "source": model.source,
        "packages": [package.requirement for package in model.packages],
        "gguf_sha256": model.sha256,
    }


def gguf_folder(path: Path) -> Path:
    """Give the directory of a model in a GGUF file, which is converted where it is not cached.

    The cache knows the file by its content: moved or renamed, it is not converted again.

    Raises:
        See `convert`.
    """
    digest = sha256_of(path)

    def fill(folder: Path) -> dict[str, Any]:
        header = _convert(path, folder, path.name)
        licence = header.values.get("general.license")
        return {"name": path.name, "licence": licence, "gguf_sha256": digest}

    return _kept(_name("gguf", digest), fill)


def cached_at(model: PackagedModel) -> Path | None:
    """Give the directory of a packaged model in the cache, None where it is not there."""
    folder = cache_directory() / _name(model.name, model.sha256)
    return folder if (folder / CARD).is_file() else None


def cache_directory() -> Path:
    """Give the directory of converted models: ``models`` in ``$EMEND_CACHE`` or ~/.cache/emend."""
    return _io.cache_directory("models")


def _name(name: str, digest: str) -> str:
    return f"{name}-{digest[:12]}-{CONVERSION}"


def _convert(path: Path, folder: Path, title: str) -> Any:
    announce(f"converting {title} to float32 (once; it is kept in {cache_directory()})")
    return convert(path, folder)


def _kept(name: str, fill: Fill) -> Path:
    """Give the directory `name` of the cache, made by `fill` where it is not whole yet."""
    root = cache_directory()
    if (root / name / CARD).is_file():
        return root / name
    if not _writable(root):
        root = _temporary()
        warnings.warn(
            f"{cache_directory()} cannot be written: the model is kept for this process alone; "
            "set EMEND_CACHE to another place",
            stacklevel=4,
        )
    folder = root / name
    with _alone(root / f".{name}.lock", name):
        if not (folder / CARD).is_file():
            with whole_directory(folder, (), CARD) as aside:
                write_json(aside / CARD, fill(aside))
    return folder


def _writable(root: Path) -> bool:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return True
    except OSError:
        return False


@functools.cache
def _temporary() -> Path:
    kept = tempfile.TemporaryDirectory(prefix="emend-models-")
    _TEMPORARY.append(kept)  # removed when the process ends
    return Path(kept.name)


_TEMPORARY: list[tempfile.TemporaryDirectory[str]] = []


@contextmanager
def _alone(path: Path, name: str) -> Generator[None, None, None]:
    """Let one process or thread at a time get a model; others wait and then find it done."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        announce(f"waiting for another process that is getting {name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
