"""Benchmarks on a real local Ray of two workers, of which one is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import signal
import socket

import pytest

import emend
from emend.bench import Plan, RayEngine, Runner
from emend.bench._grid import Variant
from emend.errors import EngineFailure, InvalidInput, MissingExtra

PLAN = {
    "models": ["lab/gptneo"],
    "methods": ["ft", "rome", "ft:layers=[99]"],
    "datasets": [{"name": "lab", "last": 4}],
    "schedules": ["batch:2"],
    "metrics": ["reliability", "locality"],
}


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(PLAN))
    return Plan.read(path)


def bare(result):
    """A result without what depends on the clock."""
    timing = ("timing", "cpu_seconds", "kept")
    return json.dumps({k: v for k, v in result.items() if k not in timing}, sort_keys=True)


def test_results_are_those_of_one_process_though_a_worker_is_killed(plan, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    killed = []
    processes = tmp_path / "processes"
    processes.mkdir()

    def load(name):  # by a worker
        (processes / str(os.getpid())).touch()
        return emend.load(name)

    def kill_one(number, count, result):
        """After the first unit, kill a process that has a model and measures another one."""
        if not killed:
            killed.append(int(next(processes.iterdir()).name))
            os.kill(killed[0], signal.SIGKILL)

    local = Runner(plan, tmp_path / "local").run()
    engine = RayEngine(workers=2)
    there = Runner(plan, tmp_path / "ray", engine=engine, on_unit=kill_one, load=load).run()
    assert killed[0] != os.getpid()
    assert len([*processes.iterdir()]) == 3  # two workers, and one that took the place of another
    assert list(map(bare, there)) == list(map(bare, local))
    files = sorted(path.name for path in (tmp_path / "local" / "units").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "ray" / "units").iterdir())
    assert any("error" in one for one in there)
    again = Runner(plan, tmp_path / "ray", engine=engine).run()
    assert [("kept" in one) for one in again] == [("error" not in one) for one in again]


def test_a_variant_is_pickled_by_its_text():
    variant = Variant.parse("rome:original=true")
    found = pickle.loads(pickle.dumps(variant))
    assert found.method is variant.method
    assert found.settings == {"original": True}


def test_what_is_wrong_is_one_line(plan, tmp_path):
    with pytest.raises(InvalidInput, match="workers is 0"):
        RayEngine(workers=0)
    with pytest.raises(InvalidInput, match="gpus is -1"):
        RayEngine(gpus=-1)
    here = importlib.util.find_spec("ray") is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        engine = RayEngine(address=f"127.0.0.1:{free.getsockname()[1]}")
        expected = (EngineFailure, "nothing answers") if here else (MissingExtra, r"emend\[ray\]")
        with pytest.raises(expected[0], match=expected[1]):
            Runner(plan, tmp_path / "results", engine=engine).run()
