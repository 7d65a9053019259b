"""Tiny checkpoints on the disk: a base, and others trained by nobody."""

from __future__ import annotations

import torch
from safetensors.torch import load_file, save_file
from tests.tiny import tiny_model


def save_base(folder, name="llama", *, shards=False, dtype=torch.float32):
    """Write a tiny model with its tokenizer; in shards of some tensors each."""
    model, tokenizer = tiny_model(name)
    model = model.to(dtype)
    size = "100KB" if shards else "50GB"
    model.save_pretrained(folder, max_shard_size=size)
    tokenizer.save_pretrained(folder)
    return folder


def save_tuned(base, folder, seed, *, size=0.02, rank=None, only=None):
    """Copy a checkpoint with random numbers added to its tensors."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    for path in sorted(base.iterdir()):
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
            continue
        tensors = {
            name: tensor + change(name, tensor, generator, size, rank, only)
            for name, tensor in load_file(path).items()
        }
        save_file(tensors, folder / path.name, {"format": "pt"})
    return folder


def change(name, tensor, generator, size, rank, only):
    """Draw a change of a tensor, of a rank where one is given (and then of matrices alone)."""
    if (only and only not in name) or (rank and (tensor.ndim != 2 or "embed" in name)):
        return torch.zeros_like(tensor)
    if rank is None:
        drawn = torch.randn(tensor.shape, generator=generator)
    else:
        drawn = torch.randn(tensor.shape[0], rank, generator=generator)
        drawn = drawn @ torch.randn(rank, tensor.shape[1], generator=generator)
    return (size * drawn).to(tensor.dtype)


def tensors_of(folder, stem="model"):
    """Read all tensors of a folder."""
    found = {}
    for path in sorted(folder.glob(f"{stem}*.safetensors")):
        found |= load_file(path)
    return found
