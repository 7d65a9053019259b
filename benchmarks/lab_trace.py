"""Where the lab's models keep their facts: average indirect effects by causal tracing.

    python benchmarks/lab_trace.py lab/gptneo [--facts 200]

The subject's embeddings are disturbed by noise of three standard deviations, and the output of one
block at one token is put back to what it was; what that gives back of the answer's probability is
the indirect effect (Meng et al. 2022, arXiv 2202.05262, section 2).
"""

from __future__ import annotations

import argparse
import json
import random
from typing import Any

import torch

from emend import lab
from emend.lab.world import Fact
from emend.models import ModelView, encode, join_target, load, score

ROLES = ("first_subject", "last_subject", "first_after", "further", "last_token", "before_subject")


def noise_scale(view: ModelView, tokenizer: Any, subjects: list[str]) -> float:
    """Three standard deviations of the embeddings of the subjects' tokens."""
    ids = sorted({token for name in subjects for token in tokenizer(" " + name)["input_ids"]})
    return 3 * view.embeddings(torch.tensor(ids)).std().item()


@torch.no_grad()
def trace(
    view: ModelView, tokenizer: Any, prompt: str, span: tuple[int, int], answer: str, **noise: Any
) -> tuple[float, torch.Tensor, list[str]]:
    """Trace one fact.

    Returns:
        Total effect, indirect effects (tokens, blocks), and the role of each token.
    """
    encoded = encode(tokenizer, [prompt], [span])
    ids = encoded.input_ids  # (1, T)
    first = encode(tokenizer, [prompt], [(span[0], span[0] + 1)]).lookup[0].item()
    last = encoded.lookup[0].item()
    target = join_target(tokenizer, prompt, answer)[1][0]
    length, depth, draws = ids.shape[1], view.depth, noise["draws"]
    clean: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda _m, _i, output: clean.append(_hidden(output)[0]))
        for block in view.blocks
    ]
    probability = view.model(input_ids=ids).logits[0, -1].softmax(-1)[target].item()
    for handle in handles:
        handle.remove()
    # One row per (block, token, draw), and one without restoration per draw.
    rows = depth * length * draws + draws
    generator = torch.Generator().manual_seed(noise["seed"])
    disturbance = torch.randn(draws, last - first + 1, view.width, generator=generator)

    def disturb(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, first : last + 1] += noise["scale"] * disturbance.repeat(rows // draws, 1, 1)
        return output

    def restore(layer: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            hidden = _hidden(output)  # (rows, T, width)
            for token in range(length):
                start = (layer * length + token) * draws
                hidden[start : start + draws, token] = clean[layer][token]
            return output

        return hook

    handles = [view.embeddings.register_forward_hook(disturb)]
    handles += [view.block(layer).register_forward_hook(restore(layer)) for layer in range(depth)]
    try:
        logits = view.model(input_ids=ids.expand(rows, -1), use_cache=False).logits[:, -1]
    finally:
        for handle in handles:
            handle.remove()
    found = logits.softmax(-1)[:, target].view(-1, draws).mean(1)  # (depth * T + 1,)
    effects = (found[:-1] - found[-1]).view(depth, length).T
    roles = [_role(token, first, last, length) for token in range(length)]
    return probability - found[-1].item(), effects, roles


def _hidden(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def _role(token: int, first: int, last: int, length: int) -> str:
    if token == length - 1:
        return "last_token"
    if token < first:
        return "before_subject"
    if token <= last:
        return "last_subject" if token == last else "first_subject"
    return "first_after" if token == last + 1 else "further"


def average_effects(
    name: str, model: Any, tokenizer: Any, facts: int, draws: int
) -> dict[str, Any]:
    """Average indirect effect by role and block over facts that the model knows."""
    view = ModelView(model)
    world = lab.shipped_world()
    generator = random.Random("trace-1")
    scale = noise_scale(view, tokenizer, [name for _, name in world.subjects()])
    collected: dict[str, list[torch.Tensor]] = {role: [] for role in ROLES}
    totals: list[float] = []
    pool: list[Fact] = list(world.facts.values())
    generator.shuffle(pool)
    for fact in pool:
        template = generator.choice(fact.statements(seen=True))
        prompt, start = template.format(fact.subject), template.index("{}")
        known = score(model, tokenizer, [prompt], [fact.object])[0]
        if known.greedy != known.token_ids:
            continue
        span = (start, start + len(fact.subject))
        noise = {"scale": scale, "draws": draws, "seed": len(totals)}
        total, effects, roles = trace(view, tokenizer, prompt, span, fact.object, **noise)
        totals.append(total)
        for role in set(roles):
            rows = [effects[i] for i, one in enumerate(roles) if one == role]
            collected[role].append(torch.stack(rows).mean(0))
        if len(totals) == facts:
            break
    table = {
        role: [round(value, 4) for value in torch.stack(rows).mean(0).tolist()]
        for role, rows in collected.items()
        if rows
    }
    return {
        "model": name,
        "facts": len(totals),
        "total_effect": round(sum(totals) / len(totals), 4),
        "indirect_effect_by_block": table,
        **verdict(table, view.depth),
    }


def verdict(table: dict[str, list[float]], depth: int) -> dict[str, Any]:
    """How the subject's last token stands to the others in the first half, and who takes over."""
    early = {role: sum(row[: depth // 2]) / (depth // 2) for role, row in table.items()}
    late = {role: sum(row[-(depth // 4) :]) / (depth // 4) for role, row in table.items()}
    others = max(value for role, value in early.items() if role != "last_subject")
    return {
        "first_half_ratio": round(early["last_subject"] / max(others, 1e-6), 2),
        "last_quarter_leader": max(late, key=lambda role: late[role]),
        "first_half": {role: round(value, 4) for role, value in early.items()},
        "last_quarter": {role: round(value, 4) for role, value in late.items()},
    }


def main() -> None:
    """Trace a lab model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="lab/gptneo or lab/qwen3")
    parser.add_argument("--facts", type=int, default=200)
    parser.add_argument("--draws", type=int, default=5)
    arguments = parser.parse_args()
    model, tokenizer = load(arguments.model)
    found = average_effects(arguments.model, model, tokenizer, arguments.facts, arguments.draws)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
