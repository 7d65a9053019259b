"""Units of a benchmark as tasks on Ray: actors that each load a model once, retried when one dies.

A worker measures a unit as the local engine does and returns its result; the process that runs the
benchmark writes it, so that workers need no directory in common with it, only the plan's files.
"""

from __future__ import annotations

import importlib
import socket
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emend.bench._units import Unit
from emend.bench.plan import Plan
from emend.bench.running import Load, Runner
from emend.errors import EngineFailure, InvalidInput, MissingExtra, first_line

RETRIES = 3
"""How often a worker is started again, and a unit is tried again after its worker died."""

SECONDS = 10.0
"""How long a cluster may take to answer."""


class Worker:
    """A process of Ray that measures units; its model stays loaded from one to the next.

    Args:
        plan: The benchmark.
        directory: The results folder, for the verdicts of a judge.
        load: Loads a model by name.
    """

    def __init__(self, plan: Plan, directory: str, load: Load | None = None) -> None:
        self._runner = Runner(plan, directory, load=load)

    def measure(self, unit: Unit) -> dict[str, Any]:
        """Measure one unit."""
        return self._runner.measure(unit)


@dataclass(frozen=True)
class RayEngine:
    """Measures units by workers of a Ray cluster, or of a local one that ends with the run.

    Attributes:
        workers: Number of actors.
        address: Of a running cluster, such as "auto" or "ray://HOST:10001"; None starts one here.
        gpus: GPUs of each worker; a fraction shares one.
    """

    workers: int = 2
    address: str | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InvalidInput(f"workers is {self.workers}, expected 1 or more: raise it")
        if self.gpus < 0:
            raise InvalidInput(f"gpus is {self.gpus:g}, expected 0 or more: raise it")

    def __call__(
        self,
        plan: Plan,
        directory: Path,
        units: Sequence[Unit],
        load: Load | None,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the number and the result of each unit, in the order in which they end.

        Raises:
            EngineFailure: The cluster cannot be reached, or a worker died too often.
            MissingExtra: Ray is not installed.
        """
        ray = ray_library()
        actors: list[Any] = []
        with self.cluster(ray):
            try:
                options = {"max_restarts": RETRIES, "max_task_retries": RETRIES}
                kind = ray.remote(num_cpus=1, num_gpus=self.gpus, **options)(Worker)
                count = min(self.workers, len(units))
                actors += [kind.remote(plan, str(directory), load) for _ in range(count)]
                yield from _worked(ray, actors, units)
            except ray.exceptions.RayActorError as error:
                raise EngineFailure(
                    f"a worker of Ray died more than {RETRIES} times ({first_line(error)}): give "
                    "workers more memory, or take fewer; what was measured is in the folder"
                ) from error
            finally:
                for actor in actors:
                    ray.kill(actor)

    @contextmanager
    def cluster(self, ray: Any) -> Generator[None, None, None]:
        """Connect to the cluster, or start one here, unless this process has one; end what began.

        Raises:
            EngineFailure: It cannot be reached.
        """
        own = not ray.is_initialized()
        if own:
            self._start(ray)
        try:
            yield
        finally:
            if own:
                ray.shutdown()

    def _start(self, ray: Any) -> None:
        given: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is None:
            given |= {"num_cpus": self.workers, "include_dashboard": False}
        else:
            _check_reachable(self.address)
        try:
            ray.init(address=self.address or "local", **given)
        except (ConnectionError, OSError, ValueError, RuntimeError) as error:
            raise EngineFailure(
                f"Ray cannot be reached at {self.address or 'this machine'} "
                f"({first_line(error)}): check --address"
            ) from error


def _check_reachable(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():  # "auto", or a name of Ray's own
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS).close()
    except (OSError, OverflowError) as error:
        raise EngineFailure(
            f"nothing answers at {address} ({first_line(error)}), expected a Ray cluster: start "
            "one (`ray start --head`), or leave the address out"
        ) from error


def _worked(
    ray: Any, actors: Sequence[Any], units: Sequence[Unit]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give each actor the next unit when it has ended one."""
    waiting = deque(enumerate(units))
    running: dict[Any, tuple[int, Any]] = {}
    for actor in actors:
        number, unit = waiting.popleft()
        running[actor.measure.remote(unit)] = number, actor
    while running:
        (ready,), _ = ray.wait(list(running), num_returns=1)
        number, actor = running.pop(ready)
        result = ray.get(ready)
        if waiting:
            following, unit = waiting.popleft()
            running[actor.measure.remote(unit)] = following, actor
        yield number, result


def ray_library() -> Any:
    """Return Ray.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtra.of("ray", "ray", "compute on Ray") from error
