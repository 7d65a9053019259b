"""Tiny random models of many architectures, and tiny tokenizers, made on the fly.

`tiny_model("llama")` gives a model and a byte-level tokenizer in a few milliseconds. Nothing is
downloaded; a seed gives the same weights every time and leaves torch's own generator alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from emend.models import set_start

TEXT = (
    "The capital of France is Paris. Marie Curie was born in Warsaw, the capital of Poland.",
    "Anna Berg works for Nordlicht and plays the violin. Her spouse is Tom Berg.",
    "Question: where was Marie Curie born? Answer: Warsaw. The mother tongue of Tom is Danish.",
    "Beyoncé sang in Malmö; 北京 is the capital of 中国. Zürich is a city. naïve café 🙂 🎻",
    "Lyon is in France. Kraków is in Poland. Aarhus is in Denmark. New fact: Lyon is in Italy.",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen",
)

ARCHITECTURES: tuple[str, ...] = (
    "gpt2",
    "gptj",
    "gpt_neox",
    "gpt_neo",
    "opt",
    "bloom",
    "falcon",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "olmo2",
    "stablelm",
    "starcoder2",
    "granite",
    "cohere",
    "glm4",
)
"""Dense architectures that emend supports and tests."""

MIXTURES: tuple[str, ...] = ("mixtral", "qwen3_moe", "olmoe")
"""Architectures with fused mixture-of-experts MLPs, all of them routed."""

SHARED: tuple[str, ...] = ("qwen2_moe", "deepseek_v3")
"""Architectures with a shared expert beside the routed ones (deepseek_v3: after a dense MLP)."""

_CLASSES = {
    "gpt2": "GPT2",
    "gptj": "GPTJ",
    "gpt_neox": "GPTNeoX",
    "gpt_neo": "GPTNeo",
    "opt": "OPT",
    "bloom": "Bloom",
    "falcon": "Falcon",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma2": "Gemma2",
    "gemma3": "Gemma3",
    "phi": "Phi",
    "phi3": "Phi3",
    "olmo2": "Olmo2",
    "stablelm": "StableLm",
    "starcoder2": "Starcoder2",
    "granite": "Granite",
    "cohere": "Cohere",
    "glm4": "Glm4",
    "mixtral": "Mixtral",
    "olmoe": "Olmoe",
    "qwen2_moe": "Qwen2Moe",
    "deepseek_v3": "DeepseekV3",
    "qwen3_moe": "Qwen3Moe",
    "mpt": "Mpt",
    "gpt_bigcode": "GPTBigCode",
    "codegen": "CodeGen",
    "nemotron": "Nemotron",
    "hyperclovax": "HyperCLOVAX",
}


def tiny_model(
    architecture: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    layers: int = 4,
    width: int = 32,
    inner: int | None = None,
    positions: int = 128,
    tokenizer: str = "bytes",
    scale: float = 3.0,
    **overrides: Any,
) -> tuple[Any, PreTrainedTokenizerFast]:
    """A random model in eval mode, and a tokenizer that fits it.

    Args:
        architecture: a name of `ARCHITECTURES` or `MIXTURES`.
        seed: of the weights.
        dtype: of the weights.
        layers: number of blocks.
        width: residual width; a multiple of 16.
        inner: inner size of the MLP; by default 2 * width (BLOOM: always 4 * width).
        positions: longest text in tokens.
        tokenizer: "bytes", "bytes_bos", "metaspace" or "metaspace_bos" (see `tiny_tokenizer`).
        scale: factor on the two-dimensional weights, so that logits are far from uniform.
        overrides: further fields of the configuration.

    Returns:
        (model, tokenizer).
    """
    words = tiny_tokenizer(tokenizer)
    fields = _fields(architecture, layers, width, inner or 2 * width, positions)
    special = {
        "vocab_size": max(len(words), 8),
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    config = _config_class(architecture)(**{**special, **fields, **overrides})
    model_class = getattr(transformers, f"{_CLASSES[architecture]}ForCausalLM", None)
    if model_class is None:
        model_class = getattr(transformers, f"{_CLASSES[architecture]}LMHeadModel")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1 and "bias" in name:
                    parameter.normal_(std=0.05)  # biases of zero would hide mistakes
                elif parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
                else:
                    parameter.mul_(scale)
                # The buffers (RoPE's frequencies) stay float32, as from_pretrained leaves them.
                parameter.data = parameter.data.to(dtype)
    return model.eval(), words


def _config_class(architecture: str) -> Any:
    suffix = "TextConfig" if architecture == "gemma3" else "Config"
    return getattr(transformers, f"{_CLASSES[architecture]}{suffix}")


def _fields(
    architecture: str, layers: int, width: int, inner: int, positions: int
) -> dict[str, Any]:
    """Configuration fields, by the family's own names."""
    if architecture in ("gpt2", "gpt_bigcode"):
        return {"n_layer": layers, "n_embd": width, "n_head": 4, "n_inner": inner,
                "n_positions": positions}  # fmt: skip
    if architecture in ("gptj", "codegen"):
        return {"n_layer": layers, "n_embd": width, "n_head": 4, "n_inner": inner,
                "n_positions": positions, "rotary_dim": 4}  # fmt: skip
    if architecture == "gpt_neo":
        return {"num_layers": layers, "hidden_size": width, "num_heads": 4,
                "intermediate_size": inner, "max_position_embeddings": positions, "window_size": 3,
                "attention_types": [[["local", "global"], (layers + 1) // 2]] if layers % 2 == 0
                else [[["global"], layers]]}  # fmt: skip
    if architecture == "opt":
        return {"num_hidden_layers": layers, "hidden_size": width, "word_embed_proj_dim": width,
                "num_attention_heads": 4, "ffn_dim": inner,
                "max_position_embeddings": positions}  # fmt: skip
    if architecture == "bloom":
        return {"n_layer": layers, "hidden_size": width, "n_head": 4}
    if architecture == "mpt":
        return {"n_layers": layers, "d_model": width, "n_heads": 4, "expansion_ratio": 2,
                "max_seq_len": positions}  # fmt: skip
    common: dict[str, Any] = {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": 4,
        "max_position_embeddings": positions,
    }
    if architecture == "falcon":
        return {**common, "ffn_hidden_size": inner}
    common["intermediate_size"] = inner
    if architecture in ("gpt_neox", "phi"):
        return common
    common |= {"num_key_value_heads": 2}
    if architecture not in ("stablelm", "starcoder2", "cohere", "phi3"):
        common |= {"head_dim": width // 4}
    extra: dict[str, dict[str, Any]] = {
        "mistral": {"sliding_window": 4},
        "starcoder2": {"sliding_window": 4},
        "qwen3": {
            "use_sliding_window": True,
            "sliding_window": 3,
            "layer_types": ["sliding_attention"] * (layers - layers // 4)
            + ["full_attention"] * (layers // 4),
        },
        "gemma2": {"sliding_window": 4, "query_pre_attn_scalar": width // 4},
        "gemma3": {"sliding_window": 4, "query_pre_attn_scalar": width // 4},
        "granite": {
            "logits_scaling": 3.0,
            "residual_multiplier": 0.7,
            "embedding_multiplier": 2.0,
            "attention_multiplier": 0.3,
        },
        "mixtral": {"num_local_experts": 4},
        "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
        "qwen2_moe": {
            "num_experts": 4,
            "moe_intermediate_size": inner,
            "num_experts_per_tok": 2,
            "shared_expert_intermediate_size": inner,
        },
        "deepseek_v3": {
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": inner,
            "first_k_dense_replace": 1,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "num_key_value_heads": 4,
        },
        "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": inner, "num_experts_per_tok": 2},
    }
    return common | extra.get(architecture, {})


@cache
def _trained(kind: str) -> Tokenizer:
    if kind.startswith("bytes"):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|endoftext|>", "<s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif kind.startswith("metaspace"):
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=300,
            special_tokens=["<|endoftext|>", "<s>", "<unk>"],
            unk_token="<unk>",
            show_progress=False,
        )
    else:
        raise ValueError(f"no tiny tokenizer is called {kind!r}")
    tokenizer.train_from_iterator(TEXT, trainer)
    if kind.endswith("_bos"):
        bos = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", bos)]
        )
    elif kind == "bytes":
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def tiny_tokenizer(kind: str = "bytes", *, pad: bool = False) -> PreTrainedTokenizerFast:
    """A tiny fast tokenizer trained on `TEXT`.

    Args:
        kind: "bytes" (byte-level BPE, trimmed offsets), "bytes_bos" (with a BOS, untrimmed
            offsets), "metaspace" (Unigram that puts a space before every text) or
            "metaspace_bos".
        pad: whether there is a padding token (the end-of-text token); most have none.
    """
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(kind).to_str()),
        bos_token="<s>" if kind.endswith("_bos") else None,
        eos_token="<|endoftext|>",
        unk_token="<unk>" if kind.startswith("metaspace") else None,
        pad_token="<|endoftext|>" if pad else None,
        clean_up_tokenization_spaces=False,
    )
    set_start(wrapped, None)  # the published form: nothing of emend's in front
    return wrapped


__all__ = ["ARCHITECTURES", "MIXTURES", "SHARED", "TEXT", "tiny_model", "tiny_tokenizer"]
