"""GGUF files of tiny models, and wheels that carry them, made on the fly."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_model

from emend.models.gguf_names import gguf_names
from emend.patches import describe_base

gguf = pytest.importorskip("gguf", reason="GGUF files need the package gguf")


WHOLE = {  # what llama.cpp's graph of an architecture does not know is turned off
    "qwen3": {"use_sliding_window": False, "layer_types": ["full_attention"] * 2},
    "starcoder2": {"sliding_window": None},
}


def write_gguf(
    path: Path, *, architecture: str = "qwen2", quantised: bool = False, **fields: str
) -> tuple[Any, Any]:
    """Write a tiny model as llama.cpp's converter does, and give it with its tokenizer.

    Args:
        path: The file.
        architecture: See `tests.tiny`; those of `GGUF_ARCHITECTURES` were seen to be right.
        quantised: Write the MLPs in Q8_0, whose numbers the model that is given has, too.
        fields: Further strings of the header; "_" in a name stands for ".".
    """
    model, tokenizer = tiny_model(architecture, layers=2, **WHOLE.get(architecture, {}))
    names = gguf_names(describe_base(model))
    writer = gguf.GGUFWriter(path, names.architecture)
    writer.add_type("model")
    writer.add_name("Tiny")
    writer.add_license("mit")
    _add_shape(writer, model.config)
    _add_tokenizer(writer, tokenizer, model.config.vocab_size)
    for key, value in fields.items():
        writer.add_string(key.replace("_", "."), value)
    transposed = {name for name, one in model.named_modules() if type(one).__name__ == "Conv1D"}
    for name, tensor in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        if module == "lm_head" and model.config.tie_word_embeddings:
            continue
        target = f"{names.tensor(module)}.{kind}"
        values = tensor.float()
        if values.ndim == 2:
            values = values.T if module in transposed else values
            values = names.to_gguf(names.tensor(module), values)
        elif names.architecture.startswith("gemma"):
            values = values + 1  # their norms multiply by 1 + weight
        values = values.contiguous().numpy()
        if quantised and ".mlp." in name:
            blocks = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(target, blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            with torch.no_grad():
                kept = gguf.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0)
                tensor.copy_(torch.from_numpy(kept.copy()))
        else:
            writer.add_tensor(target, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, tokenizer


GGUF_ARCHITECTURES = (
    "gpt2", "llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "starcoder2",
)  # fmt: skip


def _add_shape(writer: Any, config: Any) -> None:
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or config.n_inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", heads))
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_vocab_size(config.vocab_size)
    if (epsilon := getattr(config, "rms_norm_eps", None)) is not None:
        writer.add_layer_norm_rms_eps(epsilon)
    else:
        writer.add_layer_norm_eps(getattr(config, "norm_epsilon", 1e-5))
    if rope := getattr(config, "rope_parameters", None):
        writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if getattr(config, "attn_logit_softcapping", None):
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _add_tokenizer(writer: Any, tokenizer: Any, size: int) -> None:
    vocabulary = tokenizer.get_vocab()
    words = [None] * size
    for word, index in vocabulary.items():
        words[index] = word
    special = set(tokenizer.all_special_tokens)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([word or f"<unused{index}>" for index, word in enumerate(words)])
    writer.add_token_types([3 if word in special else 1 for word in words])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)


def write_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """Write a wheel that holds these files, and give its path."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')}"
        f",{len(data)}\n"
        for path, data in files.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(zipfile.ZipInfo(path), data)  # of 1980: the same bytes every time
    return wheel
