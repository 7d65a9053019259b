"""A release: archives build, the wheel works in a fresh environment, all state one version."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import emend

ROOT = Path(__file__).parents[1]
PLAIN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command, cwd=None):
    """Run a command without the checkout on its path; its output is the message where it fails."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=PLAIN, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The wheel and the sdist, built of the checkout."""
    pytest.importorskip("hatchling", reason="hatchling builds the archives")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(archives, tmp_path_factory):
    """The Python of a fresh environment with the wheel; dependencies are those of this one."""
    if importlib.util.find_spec("ensurepip") is None:
        pytest.skip("this Python has no ensurepip, so that no environment with pip can be made")
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", archives[0])
    packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    (packages / "dependencies.pth").write_text(
        sysconfig.get_path("purelib") + "\n", encoding="utf-8"
    )
    return python


def test_all_state_one_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    heading = re.search(
        r"^## (\S+) \((\d{4}-\d\d-\d\d)\)",
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        re.M,
    )
    assert f"\nversion: {emend.__version__}\n" in citation
    assert f'\nversion = "{emend.__version__}"\n' in project
    assert heading
    assert heading[1] == emend.__version__
    assert f"date-released: {heading[2]}" in citation


def test_the_archives_hold_what_they_must(archives):
    wheel, sdist = archives
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "emend").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours <= inside  # code, data, the lab's weights
    assert not [name for name in inside if name.startswith(("tests", "docs"))]
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "README.zh.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"} <= names
    assert {f"src/{name}" for name in ours} <= names


def test_a_wheel_of_the_sdist_is_that_of_the_checkout(archives, tmp_path):
    wheel, sdist = archives
    with tarfile.open(sdist) as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path, **safely)
    (source,) = tmp_path.iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=source)
    (again,) = tmp_path.glob("*.whl")
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()


def test_the_wheel_works_in_a_fresh_environment(installed, tmp_path):
    where = run(installed, "-c", "import emend; print(emend.__file__)", cwd=tmp_path)
    assert str(installed.parent.parent) in where
    command = installed.parent / "emend"
    assert run(command, "--version", cwd=tmp_path).strip() == emend.__version__
    assert "Usage: emend" in run(command, "--help", cwd=tmp_path)
    assert "memit" in run(command, "methods", cwd=tmp_path)
    flags = "--edits 20 --weights yes --multi_hop no --revertible yes --hardware cpu --json"
    advice = json.loads(run(command, "methods", "--advise", *flags.split(), cwd=tmp_path))
    assert advice["measured"]
    exported = tmp_path / "edits"
    run(command, "lab", "export", "edits", "--limit", "2", "--output_path", exported, cwd=tmp_path)
    assert list(exported.iterdir())
