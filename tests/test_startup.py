"""What people type all day answers at once: CPU seconds, and no torch."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

HEAVY = "{'torch', 'transformers', 'numpy', 'safetensors'}"


def cpu_seconds(code: str) -> float:
    """CPU seconds of a process of its own, the least of three."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once() for _ in range(3))


def command(*arguments: str) -> str:
    return f"from emend.cli import run; assert run({list(arguments)}) == 0"


@pytest.mark.parametrize(
    ("code", "most"),
    [
        pytest.param("import emend", 0.2, id="import"),
        pytest.param("import emend; dir(emend); emend.Edit; emend.errors", 0.3, id="edit"),
        pytest.param(command("--help"), 0.5, id="help"),
        pytest.param(command("edit", "--help"), 0.5, id="edit-help"),
        pytest.param(command("--version"), 0.5, id="version"),
        pytest.param(command("methods"), 0.5, id="methods"),
        pytest.param(command("methods", "--json"), 0.5, id="methods-json"),
    ],
)
def test_small_things_are_quick(code, most):
    """Fault 30: `emend methods` took 8.6 s.

    The bounds are those of a free core; half as much again is left to a busy or slower one.
    """
    assert cpu_seconds(code) < 1.5 * most
    check = f"import sys; loaded = {HEAVY} & set(sys.modules); assert not loaded, loaded"
    subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}"], check=True, stdout=subprocess.DEVNULL
    )
