"""Speed and memory of `emend vector` on two random checkpoints in 8 shards, against cp.

    python benchmarks/vector_speed.py --folder results/vector_speed

Writes two checkpoints of a Llama of 1.1 billion parameters in bfloat16 (`--layers` takes fewer),
takes their vector in a process of its own, and copies the same bytes by cp: both read each number
of the two checkpoints once, and write four bytes for each of the vector. Files are put on the disk
(fsync) and taken out of the page cache before each measurement. All is deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from emend._io import sync
from emend.arithmetic.tensor_files import Planned, in_order, written

WIDTH, INNER, KEYS, VOCABULARY, SHARDS = 2048, 5632, 256, 32000, 8
BLOCK = 1 << 22

CHILD = """
import json, os, resource, sys, time
import emend.arithmetic as arithmetic
arithmetic.vector, arithmetic.Made
import torch, transformers
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, cpu, started = peak(), time.process_time(), time.perf_counter()
made = arithmetic.vector(sys.argv[1], sys.argv[2], sys.argv[3], dtype=sys.argv[4])
print(json.dumps({"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu,
                  "before": before, "peak": peak(), "tensors": made.tensors}))
"""


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama's tensors."""
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, WIDTH),
        "lm_head.weight": (VOCABULARY, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name, out in (("q", WIDTH), ("k", KEYS), ("v", KEYS), ("o", WIDTH)):
            found[f"{at}.self_attn.{name}_proj.weight"] = (out, WIDTH)
        for name, shape in (
            ("gate", (INNER, WIDTH)),
            ("up", (INNER, WIDTH)),
            ("down", (WIDTH, INNER)),
        ):
            found[f"{at}.mlp.{name}_proj.weight"] = shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}.{name}.weight"] = (WIDTH,)
    return found


def write_checkpoint(folder: Path, layers: int, seed: int) -> None:
    """Write a random checkpoint in shards of about the same size."""
    folder.mkdir(parents=True)
    every = [Planned(name, torch.bfloat16, shape) for name, shape in shapes(layers).items()]
    whole = sum(torch.Size(one.shape).numel() for one in every)
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(seed)).bfloat16()
    shards: list[list[Planned]] = [[]]
    size = 0
    for one in every:
        count = torch.Size(one.shape).numel()
        if size and size + count / 2 > whole * len(shards) / SHARDS and len(shards) < SHARDS:
            shards.append([])
        shards[-1].append(one)
        size += count
    listed = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        with written(folder / file, ordered := in_order(shard)) as writer:
            for one in ordered:
                left = torch.Size(one.shape).numel()
                while left:
                    writer.write(block[: min(left, BLOCK)])
                    left -= min(left, BLOCK)
        listed |= {one.name: file for one in shard}
    index = {"metadata": {"total_size": 2 * whole}, "weight_map": listed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")


def out_of_cache(*folders: Path) -> None:
    """Put files on the disk, and drop them from the page cache."""
    for folder in folders:
        for path in folder.iterdir():
            sync(path)
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copied(base: Path, tuned: Path, target: Path) -> float:
    """Seconds that cp takes for both checkpoints, until they are on the disk."""
    out_of_cache(base, tuned)
    started = time.perf_counter()
    for one in (base, tuned):
        subprocess.run(["cp", "-r", one, target / one.name], check=True)
        for path in (target / one.name).iterdir():
            sync(path)
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, and delete what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("results/vector_speed"))
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    base, tuned = given.folder / "base", given.folder / "tuned"
    try:
        for folder, seed in ((base, 0), (tuned, 1)):
            write_checkpoint(folder, given.layers, seed)
        largest = max(path.stat().st_size for path in base.glob("*.safetensors"))
        parameters = sum(torch.Size(shape).numel() for shape in shapes(given.layers).values())
        (given.folder / "copy").mkdir()
        first = copied(base, tuned, given.folder / "copy")
        shutil.rmtree(given.folder / "copy")
        out_of_cache(base, tuned)
        arguments = [base, tuned, given.folder / "vector", given.dtype]
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *map(str, arguments)], stdout=subprocess.PIPE, check=True
        )
        found = json.loads(done.stdout)
        (given.folder / "copy").mkdir()
        second = copied(base, tuned, given.folder / "copy")
        size = 4 * parameters
        print(f"{parameters / 1e9:.2f} billion parameters, largest shard {largest / 1e6:.0f} MB")
        rates = [size / seconds / 1e6 for seconds in (first, found["seconds"], second)]
        print(f"cp {rates[0]:.0f} and {rates[2]:.0f} MB/s, vector {rates[1]:.0f} MB/s")
        print(f"vector at {200 * rates[1] / (rates[0] + rates[2]):.0f}% of cp's speed")
        print(f"vector: {found['seconds']:.1f} s, of the CPU {found['cpu']:.1f} s")
        own = found["peak"] - found["before"]
        print(
            f"peak memory {found['peak'] / 1e6:.0f} MB, {own / 1e6:.0f} MB more than after the "
            f"imports ({own / largest:.2f} of the largest shard)"
        )
    finally:
        shutil.rmtree(given.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
