"""Key covariances over a corpus through Ray Data: shards of batches, whose sums add up.

The calling process tokenises the texts and runs the first batch, which decides what keys are
massive; the others go to actors that each hold the model, and come back as sums of k k^T. In
float64 the order of the additions matters to the last bits alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from emend.bench._ray import RayEngine, ray_library
from emend.editing.sums import Sums
from emend.editing.token_batches import Batch
from emend.errors import EngineFailure, MissingExtra, first_line
from emend.models import ModelView

SHARDS = 4
"""Shards for each worker: each brings the sums of all layers back once."""


@dataclass(frozen=True)
class RayShards:
    """Runs batches by workers of a Ray cluster; give it to `collect_covariance`.

    Attributes:
        engine: Workers, address and GPUs.
        load: Loads the model in a worker; None sends the model itself.
    """

    engine: RayEngine = field(default_factory=RayEngine)
    load: Callable[[], nn.Module] | None = None

    def __call__(self, sums: Sums, batches: Iterator[Batch]) -> None:
        """Add the keys of all batches to sums.

        Raises:
            EngineFailure: The cluster cannot be reached, or a worker died too often.
            MissingExtra: Ray is not installed.
        """
        ray = ray_library()
        first = next(batches, None)
        if first is None:
            return
        sums.run(first)
        rest = [_packed(batch) for batch in batches]
        if not rest:
            return
        with self.engine.cluster(ray):
            self._run(ray, sums, rest)

    def _run(self, ray: Any, sums: Sums, batches: Sequence[dict[str, Any]]) -> None:
        data = _data_library()
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        workers = min(self.engine.workers, len(batches))
        size = -(-len(batches) // (SHARDS * workers))
        model = self.load or ray.put(sums.view.model)
        found = data.from_items(batches, override_num_blocks=min(SHARDS * workers, len(batches)))
        found = found.map_batches(
            Shard,
            fn_constructor_args=(model, sums.layers, sums.dtype, sums.bounds),
            compute=data.ActorPoolStrategy(size=workers),
            batch_size=size,
            batch_format="numpy",
            num_cpus=1,
            num_gpus=self.engine.gpus,
        )
        try:
            for row in found.iter_rows():
                matrix = torch.frombuffer(bytearray(row["sum"]), dtype=sums.dtype)
                layer = int(row["layer"])
                sums.add(layer, matrix.view_as(sums.matrices[layer]), int(row["left_out"]))
        except ray.exceptions.RayError as error:
            raise EngineFailure(
                f"a shard of the key covariances failed ({first_line(error)}): give workers more "
                "memory, or take fewer"
            ) from error


class Shard:
    """A worker that holds the model.

    Args:
        model: The model in Ray's store, or what loads it.
        layers: See `Sums`; so are dtype and bounds.
    """

    def __init__(
        self, model: Any, layers: Sequence[int], dtype: torch.dtype, bounds: Mapping[int, float]
    ) -> None:
        loaded: Any = model() if callable(model) else ray_library().get(model)
        self._sums = Sums(ModelView(loaded), layers, dtype, bounds)

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[Any]]:
        """Sum the keys of some batches; give a row for each layer."""
        sums = self._sums.part()
        for number in range(len(rows["tokens"])):
            sums.run(_unpacked({name: column[number] for name, column in rows.items()}))
        return {
            "layer": [*sums.layers],
            "sum": [sums.matrices[layer].cpu().numpy().tobytes() for layer in sums.layers],
            "left_out": [sums.left_out[layer] for layer in sums.layers],
        }


def _packed(batch: Batch) -> dict[str, Any]:
    """Write a batch as a row of plain values; see `_unpacked`."""
    return {
        "ids": batch.input_ids.numpy().tobytes(),
        "width": batch.input_ids.shape[1],
        "real": b"" if batch.real is None else batch.real.numpy().tobytes(),
        "tokens": batch.tokens,
    }


def _unpacked(row: Mapping[str, Any]) -> Batch:
    ids = torch.frombuffer(bytearray(row["ids"]), dtype=torch.int64)
    real = torch.frombuffer(bytearray(row["real"]), dtype=torch.bool) if row["real"] else None
    return Batch(ids.view(-1, int(row["width"])), real, int(row["tokens"]))


def _data_library() -> Any:
    try:
        return importlib.import_module("ray.data")
    except ImportError as error:  # Ray alone does not bring what its data library needs
        raise MissingExtra.of("ray[data]", "ray", "add up shards on Ray") from error
