"""Convert a GGUF model, once, to a directory in Hugging Face form that loads in seconds.

The weights are dequantised to float32. In half precision they would change: a number of Q4_1 is
d * q + m with d and m in float16, which takes more bits than float16 or bfloat16 have. Measured on
SmolLM2-135M: 42% of the numbers change in float16, 79% in bfloat16 (docs/real-models.md).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emend.errors import BrokenFile, EmendError, MissingExtra, NotEnoughMemory, StoreFailure
from emend.models.gguf_header import Header, read_header
from emend.models.quiet import quiet
from emend.models.saving import save_model, save_tokenizer

CONVERSION = 1
"""Goes up when a file is converted to something else than before, so that caches are made again."""

_SINGLE_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})
"""Of ``tokenizer.ggml.pre``: each digit is a piece of its own, the rest is split as by GPT-2."""


def convert(path: Path, folder: Path) -> Header:
    """Write the model in a GGUF file, and its tokenizer, to a directory.

    Args:
        path: The file.
        folder: An empty directory, which gets config.json, safetensors in float32 and the
            tokenizer with its chat template.

    Returns:
        The header of the file.

    Raises:
        MissingExtra: The package gguf is not installed.
        BrokenFile: It is no GGUF file, is cut short, or of a kind that transformers cannot read.
        InvalidInput: It holds no whole model.
        NotEnoughMemory: The weights in float32 take more room than the disk has.
    """
    check_reader(path.name)
    header = read_header(path)
    _check_room(header, path, folder)
    try:
        with quiet(), _bars_on_terminals_only():
            model, tokenizer = _read(path)
            _restore_split(tokenizer, header)
            save_model(model, folder)
            save_tokenizer(tokenizer, folder)
    except EmendError:
        raise
    except OSError as error:
        raise StoreFailure(
            f"{path} cannot be converted in {folder.parent} ({error.strerror or error}): free some "
            "room, or set EMEND_CACHE to another place"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise BrokenFile(
            f"{path} ({header.architecture or 'no architecture'}) cannot be read by transformers: "
            f"{reason}; take the model in Hugging Face form"
        ) from error
    return header


def check_reader(name: str) -> None:
    """Refuse a GGUF model where the package that reads it is not installed.

    Raises:
        MissingExtra: It is not.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra.of("gguf", "gguf", f"read {name}")


def _read(path: Path) -> tuple[Any, Any]:
    import torch
    import transformers

    options: dict[str, Any] = {"gguf_file": path.name, "dtype": torch.float32}
    config = getattr(transformers, "GgufConfig", None)
    if config is not None:  # since 5.20 weights may else be left in their blocks
        options["quantization_config"] = config(dequantize=True)
    loader: Any = transformers.AutoModelForCausalLM
    model, found = loader.from_pretrained(
        path.parent, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    # transformers would fill these with random numbers.
    wrong = sorted([*found["missing_keys"], *(one[0] for one in found["mismatched_keys"])])
    if wrong:
        raise BrokenFile(
            f"{path}: transformers finds {len(wrong)} of the model's tensors missing or of another "
            f"shape ({wrong[0]}, ...); take the model in Hugging Face form"
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return model, tokenizer


def _restore_split(tokenizer: Any, header: Header) -> None:
    """Cut out single digits where the vocabulary was made so, which transformers leaves out."""
    if header.values.get("tokenizer.ggml.pre") not in _SINGLE_DIGITS:
        return
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _check_room(header: Header, path: Path, folder: Path) -> None:
    needed, free = 4 * header.parameters, shutil.disk_usage(folder).free
    if needed > free:
        raise NotEnoughMemory(
            f"{path} takes {needed / 1e9:.1f} GB in float32, and {folder.parent} has "
            f"{free / 1e9:.1f} GB free: free some room, or set EMEND_CACHE to another place"
        )


@contextmanager
def _bars_on_terminals_only() -> Generator[None, None, None]:
    """Hide the progress bar that transformers shows for GGUF files in a pipe, too."""
    if sys.stderr.isatty():
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
