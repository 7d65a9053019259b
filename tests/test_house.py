"""What holds of the house as a whole: sizes, documentation, what may not be written."""

from __future__ import annotations

import ast
import importlib.util
import statistics
from pathlib import Path

import pytest
import typer.main

import emend
from emend.cli import whole_app

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "emend"
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
NAMES = [str(file.relative_to(SOURCE)) for file in FILES]


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


house, plain_english = tool("house"), tool("plain_english")
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_files_are_short():
    lengths = [len(file.read_text(encoding="utf-8").splitlines()) for file in FILES]
    assert statistics.median(lengths) < 200
    assert statistics.quantiles(lengths, n=10)[-1] < 350


def test_functions_are_short():
    lengths = [
        node.end_lineno - node.lineno + 1
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTION)
    ]
    assert sum(length < 40 for length in lengths) / len(lengths) > 0.9


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_every_file_says_what_it_is(file):
    tree = TREES[file]
    assert ast.get_docstring(tree)
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert futures
    assert futures[0].module == "__future__"


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_what_is_public_is_documented(file):
    undocumented = [
        node.name
        for node in ast.walk(TREES[file])
        if isinstance(node, (*FUNCTION, ast.ClassDef))
        and not node.name.startswith("_")
        and node in _public_scopes(TREES[file])
        and not ast.get_docstring(node)
    ]
    assert not undocumented


def _public_scopes(tree):
    """Nodes at the top of a file, and in its public classes."""
    for node in tree.body:
        yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from node.body


FORBIDDEN = {
    *("eval", "exec", "print", "torch.load", "pickle.load", "pickle.loads"),
    *("random.seed", "np.random.seed", "numpy.random.seed", "transformers.set_seed", "set_seed"),
    *("torch.set_num_threads", "torch.set_default_dtype", "torch.set_default_device"),
    *("torch.set_grad_enabled", "logging.basicConfig"),
}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_nothing_is_unpickled_evaluated_or_set_for_the_whole_process(file):
    calls = {
        ast.unparse(node.func): node.lineno
        for node in ast.walk(TREES[file])
        if isinstance(node, ast.Call)
    }
    if "torch.random.fork_rng" not in calls:  # inside it a seed is set for a moment only
        assert "torch.manual_seed" not in calls
    assert not {name: line for name, line in calls.items() if name in FORBIDDEN}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_text_is_utf_8_and_lines_are_parted_at_line_feeds(file):
    """Faults 20 and 22: no file in the locale's encoding, no str.splitlines, no half a file."""
    for node in ast.walk(TREES[file]):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, said = node.func.attr, ast.unparse(node)
        if name in ("read_text", "write_text"):
            assert "utf-8" in said, said
        if name == "open" and "path" in ast.unparse(node.func.value):
            assert "b" in ast.unparse(node.args[0]) if node.args else "utf-8" in said, said
        if name == "splitlines":
            assert "read_bytes()" in said, f"{said}: emend._io.split_lines does it"
        if name in ("replace", "rename", "getpid") and ast.unparse(node.func.value) == "os":
            assert file.name == "_io.py" or said == "os.getpid()", said


@pytest.mark.parametrize("room", ["methods", "metrics", "datasets"])
def test_what_is_registered_imports_none_of_its_kind(room):
    public = {file.stem for file in (SOURCE / room).glob("[!_]*.py")}
    assert public
    for name in public:
        tree = TREES[SOURCE / room / f"{name}.py"]
        imported = {
            part
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for part in [(node.module or "").split(".")[-1], *(one.name for one in node.names)]
            if (node.module or "").startswith(f"emend.{room}")
        }
        assert not imported & (public - {name})


def test_pyproject_agrees_with_the_package():
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == emend.__version__
    assert list(project["scripts"]) == ["emend"]


def test_constraints_pin_everything_that_is_asked_for():
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {_name(line) for line in lines if line and not line.startswith("#")}
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    asked = {_name(one) for one in [*project["dependencies"], *extras]} - {"emend"}
    assert asked <= pinned


def _name(requirement):
    for mark in "=<>[;! ":
        requirement = requirement.split(mark)[0]
    return requirement.strip().lower().replace("_", "-")


def test_every_command_and_flag_is_in_the_documentation():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for words, command in _commands("emend", typer.main.get_command(whole_app())):
        assert words in page
        for parameter in command.params:
            for flag in parameter.opts:
                assert not flag.startswith("--") or flag in page, f"{words} {flag}"


def _commands(words, command):
    for name, one in getattr(command, "commands", {}).items():
        if hasattr(one, "commands"):
            yield from _commands(f"{words} {name}", one)
        else:
            yield f"{words} {name}", one


def test_every_field_of_the_files_is_in_the_documentation():
    page = (ROOT / "docs" / "data-formats.md").read_text(encoding="utf-8")
    groups = [group for family in emend.edits.GROUPS.values() for group in family]
    fields = [*emend.Edit.__dataclass_fields__, *emend.Probe.__dataclass_fields__]
    assert all(f"`{name}`" in page for name in [*groups, *fields])


def test_pages_of_the_documentation_are_there():
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}" in listed


def test_settings_and_long_functions_stay_few():
    counts = house.setting_counts()
    assert max(counts.values()) <= 10, counts
    assert sum(counts.values()) <= 110, counts
    texts = [file.read_text(encoding="utf-8") for file in FILES]
    lengths = [length for text in texts for length in house.function_lengths(text)]
    assert sum(length > house.LONG for length in lengths) <= 20


def test_words_that_make_the_english_hard_to_follow_are_found():
    refused = plain_english.findings("What is said\nmend the file that Stands beside it")
    assert [(line, word) for line, word, _ in refused] == [
        (1, "is said"),
        (2, "Stands"),
        (2, "beside"),
        (2, "mend"),
    ]
    assert not plain_english.findings("MEND, `mend` and --method mend; C stands for a covariance")
