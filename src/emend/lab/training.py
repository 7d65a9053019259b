"""Training of the lab's models: `emend lab train --arch qwen3 --seed 0 --output_path my-model/`.

Three choices make a small model store its facts at the subject's last token in the early layers, as
large models do: attention over three tokens in all but the last two layers; names whose last word
decides who is meant; and an early-exit loss on attributes that follow a name directly.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from emend._io import append_json_line, whole_file, write_json
from emend._progress import progress
from emend.errors import BrokenFile, UnknownName
from emend.lab.architectures import (
    ARCHITECTURES,
    QUERY_SCALE,
    build_model,
    query_weights,
)
from emend.lab.corpus import LESSONS, Corpus, Lesson
from emend.lab.language import TEXT
from emend.lab.losses import corpus_loss, exchange, exchange_loss
from emend.lab.tokenizer import build_tokenizer
from emend.lab.world import World, build_world

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

CHECKPOINT = "checkpoint.safetensors"
POLISH_WARMUP = 50


@dataclass(frozen=True)
class TrainingConfig:
    """The training of a lab model.

    Attributes:
        arch: `gptneo` or `qwen3`.
        seed: Seed of the world, of the weights and of the corpus.
        facts_steps: Steps of the first lesson (mostly facts), each on 4,096 tokens.
        context_steps: Steps of the second lesson, in which the use of a given context is added.
        learning_rate: Peak rate of AdamW, reached after `warmup` steps; then a cosine that would
            reach its floor after `cosine_steps`.
        context_rate: Rate at the first of the context steps; it then falls to zero.
        polish_steps: Steps of the same kind after those, from the weights rounded to bfloat16 and
            with a new optimizer; every second one is a step of interchange training.
        polish_rate: Peak rate of the polish steps, reached after 50 of them, falling to zero.
        reason_steps: Last steps, mostly on facts given in the text and on answers step by step,
            again from rounded weights with a new optimizer; every fourth is one of interchange
            training.
        reason_rate: Their peak rate, as `polish_rate`.
        warmup: Steps of linear warm-up.
        cosine_steps: See `learning_rate`.
        weight_decay: Decoupled weight decay of matrices.
        answer_weight: Weight of answer tokens in the loss; other tokens weigh one.
        exit_blocks: Layers (from zero) whose outputs must recall the attribute after a name.
        exit_weight: Weight of that early-exit loss, averaged over these layers.
        long_share: Share of steps on windows of 256 tokens, in each of `LESSONS`.
        longest_share: Share of steps on windows of 512 tokens; all others have 64.
    """

    arch: str
    seed: int = 0
    facts_steps: int = 1700
    context_steps: int = 800
    polish_steps: int = 0
    reason_steps: int = 0
    learning_rate: float = 2e-3
    context_rate: float = 6e-4
    polish_rate: float = 1e-3
    reason_rate: float = 1e-3
    warmup: int = 100
    cosine_steps: int = 2400
    weight_decay: float = 0.01
    answer_weight: float = 10.0
    exit_blocks: tuple[int, ...] = (2, 3, 4)
    exit_weight: float = 0.5
    long_share: tuple[float, float, float] = (0.32, 0.40, 0.60)
    longest_share: tuple[float, float, float] = (0.06, 0.10, 0.10)

    @property
    def steps(self) -> int:
        """The number of optimiser steps."""
        return self.reason_start + self.reason_steps

    @property
    def polish_start(self) -> int:
        """The first of the polish steps."""
        return self.facts_steps + self.context_steps

    @property
    def reason_start(self) -> int:
        """The first of the last steps."""
        return self.polish_start + self.polish_steps

    def lesson(self, step: int) -> Lesson:
        """Return the lesson of a step."""
        if step >= self.reason_start:
            return "reason"
        return "context" if step >= self.facts_steps else "facts"

    def exchanges(self, step: int) -> bool:
        """Return whether a step is one of interchange training."""
        if step >= self.reason_start:
            return step % 4 == 1
        return step >= self.polish_start and step % 2 == 1

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if step >= self.reason_start:
            return _rise_and_fall(step - self.reason_start, self.reason_steps, self.reason_rate)
        if step >= self.polish_start:
            return _rise_and_fall(step - self.polish_start, self.polish_steps, self.polish_rate)
        if self.lesson(step) == "context":
            return self.context_rate * (self.polish_start - step) / self.context_steps
        share = (step - self.warmup) / max(1, self.cosine_steps - self.warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, share))))


def _rise_and_fall(done: int, steps: int, peak: float) -> float:
    return peak * min(1.0, (done + 1) / POLISH_WARMUP) * (steps - done) / steps


PHASES = {"gptneo": (2100, 1400, 800, 0), "qwen3": (1700, 800, 900, 500)}
"""Steps of the phases of the shipped models: plain MLPs learn facts more slowly than gated ones."""


def shipped_config(arch: str, seed: int = 0, **changes: Any) -> TrainingConfig:
    """Return the configuration of a shipped model's training.

    Args:
        arch: `gptneo` or `qwen3`.
        seed: Seed of the world, of the weights and of the corpus.
        changes: Fields with other values.

    Raises:
        UnknownName: If there is no such architecture.
    """
    if arch not in ARCHITECTURES:
        raise UnknownName("architecture", arch, ARCHITECTURES)
    return replace(TrainingConfig(arch, seed, *PHASES[arch]), **changes)


def batch(
    config: TrainingConfig, world: World, tokenizer: PreTrainedTokenizerFast, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write the windows of one step: a function of the seed and the step only.

    Returns:
        Token ids (rows, length) int64, and the role of each token (rows, length) int8.
    """
    generator = random.Random(f"corpus-{config.seed}-{step}")
    corpus = Corpus(world, generator)
    draw = generator.random()
    lesson = config.lesson(step)
    phase = LESSONS.index(lesson)
    longest, long = config.longest_share[phase], config.long_share[phase]
    rows, length = 64, 64
    if draw < longest:
        rows, length = 8, 512
    elif draw < longest + long:
        rows, length = 16, 256
    windows: list[list[int]] = []
    roles: list[list[int]] = []
    for _ in range(rows):
        ids, kinds = _window(corpus, tokenizer, length, lesson)
        windows.append(ids)
        roles.append(kinds)
    return torch.tensor(windows), torch.tensor(roles, dtype=torch.int8)


def _window(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, length: int, lesson: Lesson
) -> tuple[list[int], list[int]]:
    """Concatenate documents, each with its end token, and cut them at the length."""
    ids: list[int] = []
    roles: list[int] = []
    end: int = tokenizer.eos_token_id  # pyright: ignore[reportAssignmentType]
    while len(ids) < length:
        pieces = corpus.document(long=length > 64, lesson=lesson)
        # Pieces meet at spaces, punctuation or line ends: tokens never span two of them.
        text = "".join(piece for piece, _ in pieces)
        role_of = [role for piece, role in pieces for _ in piece]
        encoded: Any = tokenizer.backend_tokenizer.encode(text)
        ids += [*encoded.ids, end]
        roles += [role_of[stop - 1] for _, stop in encoded.offsets] + [TEXT]
    return ids[:length], roles[:length]


def train(config: TrainingConfig, output_path: str | Path, *, save_every: int = 100) -> Path:
    """Train a lab model, resuming from the checkpoint in `output_path` if one is there.

    Args:
        config: The configuration, on which alone the weights depend.
        output_path: Directory for the model, its tokenizer and, until it is done, the checkpoint.
        save_every: Steps between checkpoints.

    Returns:
        The directory.

    Raises:
        BrokenFile: The checkpoint there was made with another configuration.
    """
    directory = Path(output_path)
    directory.mkdir(parents=True, exist_ok=True)
    world = build_world(config.seed)
    tokenizer = build_tokenizer(world)
    model = build_model(config.arch, len(tokenizer), config.seed).train()
    optimizer = _optimizer(model, config)
    start = _resume(directory, config, model, optimizer)
    log = directory / "training.jsonl"
    for step in progress(range(start, config.steps), f"training {config.arch}"):
        if step in (config.polish_start, config.reason_start):
            model.bfloat16().float()
            optimizer = _optimizer(model, config)
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step) * group["scale"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = _loss_of(step, model, world, tokenizer, config)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0:
            append_json_line(log, {"step": step, "loss": round(value.item(), 4)})
        if (step + 1) % save_every == 0:
            _checkpoint(directory, config, model, optimizer, step + 1)
    return _finish(directory, model, tokenizer, config)


def _loss_of(
    step: int,
    model: PreTrainedModel,
    world: World,
    tokenizer: PreTrainedTokenizerFast,
    config: TrainingConfig,
) -> torch.Tensor:
    """Compute the loss of a step: on the corpus, or on exchanged states."""
    if config.exchanges(step):
        return exchange_loss(model, exchange(config.seed, step, world, tokenizer))
    return corpus_loss(model, *batch(config, world, tokenizer, step), config)


def _optimizer(model: PreTrainedModel, config: TrainingConfig) -> torch.optim.AdamW:
    queries = {id(parameter) for parameter in query_weights(model)}
    matrices = [p for p in model.parameters() if p.dim() > 1 and id(p) not in queries]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay, "scale": 1.0},
        {"params": vectors, "weight_decay": 0.0, "scale": 1.0},
    ]
    if queries:
        decay = {"weight_decay": config.weight_decay, "scale": QUERY_SCALE}
        groups.append({"params": query_weights(model), **decay})
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def _checkpoint(
    directory: Path,
    config: TrainingConfig,
    model: PreTrainedModel,
    optimizer: torch.optim.AdamW,
    step: int,
) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        tensors[f"weight.{name}"] = parameter.detach().clone()
        tensors[f"first.{name}"] = state["exp_avg"]
        tensors[f"second.{name}"] = state["exp_avg_sq"]
    metadata = {"step": str(step), "config": json.dumps(asdict(config))}
    with whole_file(directory / CHECKPOINT) as aside:
        save_file(tensors, aside, metadata)


def _resume(
    directory: Path,
    config: TrainingConfig,
    model: PreTrainedModel,
    optimizer: torch.optim.AdamW,
) -> int:
    path = directory / CHECKPOINT
    if not path.exists():
        return 0
    with safe_open(path, "pt") as stored:  # pyright: ignore[reportUnknownVariableType]
        metadata: dict[str, str] = stored.metadata()
        found = json.loads(metadata["config"])
        expected = json.loads(json.dumps(asdict(config)))
        if found != expected:
            different = sorted(k for k in expected if found.get(k) != expected[k])
            raise BrokenFile(
                f"{path} was made with another configuration ({', '.join(different)} differ): "
                "resume with the same settings, or give another output path"
            )
        step = int(metadata["step"])
        for name, parameter in model.named_parameters():
            parameter.data.copy_(stored.get_tensor(f"weight.{name}"))
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": stored.get_tensor(f"first.{name}"),
                "exp_avg_sq": stored.get_tensor(f"second.{name}"),
            }
    return step


def _finish(
    directory: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    config: TrainingConfig,
) -> Path:
    config_file: Any = model.config
    config_file.emend = {"lab": {"seed": config.seed}}
    model.bfloat16().eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    write_json(directory / "training_config.json", asdict(config))
    (directory / CHECKPOINT).unlink(missing_ok=True)
    return directory
