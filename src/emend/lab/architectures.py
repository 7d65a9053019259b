"""The lab's two architectures: plain MLPs and learned positions, or gates and RoPE.

In both, attention spans three tokens (the token itself and two before it) in all layers except the
last two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from emend.errors import UnknownName

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ARCHITECTURES = ("gptneo", "qwen3")
WIDTH = 256
BLOCKS = 8
FULL_ATTENTION_BLOCKS = 2
WINDOW = 3
POSITIONS = 512
HEAD_WIDTH = WIDTH // 4
QUERY_SCALE = HEAD_WIDTH**-0.5


def build_model(arch: str, vocabulary: int, seed: int) -> PreTrainedModel:
    """Build a model with random weights.

    Args:
        arch: `gptneo` or `qwen3`.
        vocabulary: Number of tokens.
        seed: Seed of the weights; the global generator is left as it was.

    Raises:
        UnknownName: There is no such architecture.
    """
    if arch not in ARCHITECTURES:
        raise UnknownName("architecture", arch, ARCHITECTURES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _gptneo(vocabulary) if arch == "gptneo" else _qwen3(vocabulary)


def _gptneo(vocabulary: int) -> PreTrainedModel:
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    local = BLOCKS - FULL_ATTENTION_BLOCKS
    config = GPTNeoConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_layers=BLOCKS,
        attention_types=[[["local"], local], [["global"], FULL_ATTENTION_BLOCKS]],
        window_size=WINDOW,
        num_heads=4,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=POSITIONS,
        resid_dropout=0.0,
        embed_dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPTNeoForCausalLM(config)
    model.transformer.wpe.weight.data.copy_(_waves())
    for query in query_weights(model):
        query.data *= QUERY_SCALE
    return model


def query_weights(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """Return the weights with `QUERY_SCALE` times the learning rate: the queries of GPT-Neo.

    GPT-Neo does not divide attention logits by the root of the head's size. Smaller initial queries
    with a smaller rate have the same effect. One run with this and the waves had a loss of 3.7
    after 350 steps; one with neither 4.2 after 420, one with only waves 4.4 after 280. They were
    single runs, cut short.
    """
    if model.config.model_type != "gpt_neo":
        return []
    return [p for name, p in model.named_parameters() if name.endswith("q_proj.weight")]


def _waves() -> torch.Tensor:
    """Return initial position embeddings: waves in a quarter of the width, zero elsewhere.

    From random ones a model must learn for each position separately which one precedes it. With
    waves, "one before" is the same rotation for all positions, and the rest of the width is left
    for the words. The effect of the waves alone was not measured.

    Returns:
        (POSITIONS, WIDTH) float32.
    """
    pairs = WIDTH // 8
    rates = torch.logspace(0, -2.5, pairs)  # radians a position
    angles = torch.arange(POSITIONS)[:, None] * rates  # (POSITIONS, pairs)
    waves = torch.zeros(POSITIONS, WIDTH)
    waves[:, : 2 * pairs] = 0.02 * torch.cat([angles.sin(), angles.cos()], 1)
    return waves


def _qwen3(vocabulary: int) -> PreTrainedModel:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    local = BLOCKS - FULL_ATTENTION_BLOCKS
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=HEAD_WIDTH,
        max_position_embeddings=POSITIONS,
        sliding_window=WINDOW,
        use_sliding_window=True,
        layer_types=["sliding_attention"] * local + ["full_attention"] * FULL_ATTENTION_BLOCKS,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return Qwen3ForCausalLM(config)
