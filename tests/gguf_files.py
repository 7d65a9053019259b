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

gguf = pytest.importorskip("gguf", reason="GGUF files need the package gguf")


def write_gguf(path: Path, *, quantised: bool = False, **fields: str) -> tuple[Any, Any]:
    """Write a tiny Qwen 2 as llama.cpp's converter does, and give it with its tokenizer.

    Args:
        path: The file.
        quantised: Write the MLPs in Q8_0, whose numbers the model that is given has, too.
        fields: Further strings of the header; "_" in a name stands for ".".
    """
    model, tokenizer = tiny_model("qwen2", layers=2)
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_type("model")
    writer.add_name("Tiny")
    writer.add_license("mit")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    _add_tokenizer(writer, tokenizer, config.vocab_size)
    for key, value in fields.items():
        writer.add_string(key.replace("_", "."), value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
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
