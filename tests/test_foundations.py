"""What stands below every room: errors, registry, progress, files."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from tests.plugin import declare

from emend import errors
from emend._io import whole_file, write_json
from emend._progress import progress
from emend._registry import Registry

BUILTIN = {
    "InvalidInput": ValueError,
    "UnknownName": LookupError,
    "MissingFile": FileNotFoundError,
    "BrokenFile": ValueError,
    "Conflict": ValueError,
    "StoreFailure": OSError,
    "UnsupportedModel": TypeError,
    "SubjectNotFound": ValueError,
    "NumericalFailure": ArithmeticError,
    "NotEnoughMemory": MemoryError,
    "MissingExtra": ImportError,
    "EndpointFailure": ConnectionError,
    "EngineFailure": RuntimeError,
}


@pytest.mark.parametrize(("name", "builtin"), BUILTIN.items())
def test_every_error_is_also_a_builtin(name, builtin):
    kind = getattr(errors, name)
    error = kind("method", "x", ["y"]) if name == "UnknownName" else kind("one line")
    assert isinstance(error, errors.EmendError)
    assert isinstance(error, builtin)
    assert str(error) == "one line" or name == "UnknownName"


def test_no_error_is_forgotten_above():
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.EmendError)
    }
    assert found == {*BUILTIN, "EmendError"}


@pytest.mark.parametrize(
    ("given", "meant"), [("rmoe", "rome"), ("ROME", "rome"), ("r-ome", "rome"), ("zzz", None)]
)
def test_unknown_name_suggests_the_nearest(given, meant):
    error = errors.UnknownName("method", given, ["rome", "ft", "memit"])
    assert error.suggestion == meant
    assert (f"did you mean '{meant}'?" in str(error)) == (meant is not None)
    assert "known: ft, memit, rome" in str(error)
    assert "\n" not in str(error)


def test_missing_extra_says_what_to_install():
    error = errors.MissingExtra.of("peft", "peft", "train adapters")
    assert str(error) == "package 'peft' is needed to train adapters: pip install 'emend[peft]'"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with modules on disk, and another one installed with an entry point."""
    home = tmp_path / "house_of_tests"
    home.mkdir()
    (home / "__init__.py").write_text("")
    (home / "one.py").write_text("one = 'the one'")
    (home / "broken.py").write_text("raise RuntimeError('imported')")
    (home / "_private.py").write_text("_private = 1")
    (tmp_path / "their_module.py").write_text("thing = 'theirs'\none = 'an impostor'")
    declare(tmp_path, "tests.things", "theirs = their_module:thing\none = their_module:one\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "house_of_tests"
    for name in [name for name in sys.modules if name.startswith(("house_of_tests", "their_mod"))]:
        del sys.modules[name]


def test_registry_lists_files_and_entry_points_and_imports_neither(package):
    registry = Registry("thing", [package], "tests.things")
    assert registry.names() == ["broken", "one", "theirs"]
    assert "theirs" in registry
    assert "two" not in registry
    assert "house_of_tests" not in sys.modules
    assert "their_module" not in sys.modules


def test_registry_gets_what_bears_the_name_and_ours_goes_first(package):
    registry = Registry("thing", [package], "tests.things")
    assert registry.get("one") == "the one"
    assert registry.get("theirs") == "theirs"
    with pytest.raises(errors.UnknownName, match=r"unknown thing 'on'.*did you mean 'one'"):
        registry.get("on")
    for hidden in ("_private", "__init__", "", "os", "one.x"):
        with pytest.raises(errors.UnknownName):
            registry.get(hidden)


def test_module_without_its_function_is_one_line(package, tmp_path):
    """Fault 28: a module in methods/ without its function was an AttributeError."""
    (tmp_path / package / "empty.py").write_text("other = 1\n")
    (tmp_path / package / "strange.py").write_text("strange = 1\n")
    registry = Registry("thing", [package], "tests.things", of="pathlib:Path")
    for name, found in (
        ("empty", "holds nothing of it"),
        ("strange", "holds an object of type int"),
    ):
        with pytest.raises(
            errors.BrokenFile, match=rf"{name}.py was asked for .*{found}"
        ) as caught:
            registry.get(name)
        assert "\n" not in str(caught.value)
        assert "expected a Path of that name" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("raise RuntimeError('two\\nlines')", r"RuntimeError: two lines\): update that package"),
        ("import no_such_package_at_all", "ModuleNotFoundError"),
        ("thin = 1", r"their_module:thing of theirs was asked for 'thing' and holds nothing of it"),
    ],
)
def test_broken_package_of_others_is_one_line(package, tmp_path, content, found):
    """Fault 28, of entry points: what a third party breaks is told in one line."""
    (tmp_path / "their_module.py").write_text(content)
    with pytest.raises(errors.BrokenFile, match=found) as caught:
        Registry("thing", [package], "tests.things").get("theirs")
    assert "\n" not in str(caught.value)


def test_registry_finds_sources_without_an_import(package, tmp_path):
    inner = tmp_path / "outer_of_theirs"
    inner.mkdir()
    (inner / "__init__.py").write_text("raise RuntimeError('imported')")
    (inner / "inner.py").write_text("thing = 1")
    registry = Registry("thing", [package], "tests.things")
    assert registry.source("one") == (tmp_path / package / "one.py", "one")
    assert registry.source("theirs") == (tmp_path / "their_module.py", "thing")
    assert registry.source("none") is None
    points = tmp_path / "theirs-1.0.dist-info" / "entry_points.txt"
    points.write_text("[tests.things]\ntheirs = outer_of_theirs.inner:thing\n")
    assert registry.source("theirs") == (inner / "inner.py", "thing")
    points.write_text("[tests.things]\ntheirs = no_such_module.inner:thing\n")
    assert registry.source("theirs") is None
    assert not {"their_module", "outer_of_theirs", "house_of_tests"} & set(sys.modules)


def test_registry_without_its_package_is_empty():
    assert Registry("thing", ["emend.no_such_room"], "tests.nothing").names() == []


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_silent_in_a_pipe_and_shown_on_a_terminal(monkeypatch, capsys):
    assert list(progress(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert list(progress(iter("ab"), "counting", total=2)) == ["a", "b"]
    assert "counting" in terminal.getvalue()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.json"
    write_json(path, {"a": "ü"})
    before = path.read_text(encoding="utf-8")
    assert before == '{\n  "a": "ü"\n}\n'
    with pytest.raises(KeyError), whole_file(path) as aside:  # noqa: PT012
        aside.write_text("half")
        raise KeyError
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert path.read_text(encoding="utf-8") == before
    assert [file.name for file in path.parent.iterdir()] == ["file.json"]


def test_a_path_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(errors.InvalidInput, match="is a directory"):
        write_json(tmp_path, {})
    (tmp_path / "file").touch()
    with pytest.raises(errors.InvalidInput, match="cannot make the directory"):
        write_json(tmp_path / "file" / "below.json", {})


def test_importing_emend_is_light_and_its_names_are_there_when_asked():
    code = (
        "import sys, emend; heavy = {'torch', 'transformers', 'rich', 'typer', 'numpy'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); "
        "assert set(emend.__all__) <= set(dir(emend)); "
        "assert emend.Edit and emend.read_edits and emend.errors.EmendError; "
        "assert not heavy & set(sys.modules); "
        "assert not hasattr(emend, 'nonsense')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
