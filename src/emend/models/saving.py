"""Save models and tokenizers as transformers does, whatever they come from; keep it quiet."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emend.errors import InvalidInput


def savable(model: Any) -> Any:
    """Give a shallow copy of a model that can be saved; the model itself stays as it is.

    A model that transformers loaded from a GGUF file has plain matrices, and a note that it is
    quantised, for which transformers refuses to save it: the copy is without the note.

    Args:
        model: Of transformers.

    Returns:
        A model of the same weights, with a configuration of its own.

    Raises:
        InvalidInput: Its weights are quantised in a way that cannot be saved.
    """
    # save_pretrained notes its dtype and class in the configuration: not in the given model's.
    shell = copy.copy(model)
    shell.config = copy.deepcopy(model.config)
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None:
        return shell
    method = quantizer.quantization_config.quant_method
    method = getattr(method, "value", method)
    if method == "gguf" and not any(_packed(module) for module in model.modules()):
        shell.hf_quantizer = None
        shell.is_quantized = False
        for name in ("quantization_config", "_is_quantized"):
            vars(shell.config).pop(name, None)
    elif not quantizer.is_serializable():
        raise InvalidInput(
            f"the model is quantised ({method}), expected weights that can be saved: load it "
            "without quantisation, in float32 or bfloat16"
        )
    return shell


def save_model(model: Any, folder: Path, **options: Any) -> None:
    """Write a model as transformers' `save_pretrained` does.

    Args:
        model: As for `savable`.
        folder: Where to write.
        options: Those of `save_pretrained`.

    Raises:
        InvalidInput: As `savable`.
        OSError: The disk is full, or refuses for another reason.
    """
    shell = savable(model)
    with _system_errors():
        shell.save_pretrained(folder, **options)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer as transformers' `save_pretrained` does.

    Raises:
        OSError: The disk is full, or refuses for another reason.
    """
    with _system_errors():
        tokenizer.save_pretrained(folder)


@contextmanager
def _system_errors() -> Generator[None, None, None]:
    """Raise as OSError what safetensors and tokenizers report of the system by other classes."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or "(os error " not in str(error):
            raise
        raise OSError(str(error).rpartition("I/O error: ")[2]) from error


def _packed(module: Any) -> bool:
    """Return whether transformers left a module's weight in the blocks of its GGUF file."""
    return type(module).__name__.startswith("Gguf")


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Silence transformers (and accelerate) for one call: progress bars, log lines, warnings."""
    from transformers.utils import logging as chatter

    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    accelerate = logging.getLogger("accelerate")
    before = accelerate.level
    chatter.set_verbosity(logging.CRITICAL)
    chatter.disable_progress_bar()
    accelerate.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        chatter.set_verbosity(level)
        accelerate.setLevel(before)
        if bars:
            chatter.enable_progress_bar()
