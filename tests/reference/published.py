"""Published scores the plain way: one forward pass for each prompt and answer, no measures.

CounterFact: Meng et al. 2022, arXiv 2202.05262, section 3.4; zsRE: Mitchell et al. 2022, arXiv
2110.11309, and Meng et al. 2023, arXiv 2210.07229. Records are read as their files hold them.
"""

from __future__ import annotations

import statistics

import torch

from emend.models import join_target


def answer(model, tokenizer, prompt, target):
    """Mean log-probability per token of a target, and which of its tokens are the first choice."""
    ids, tokens = join_target(tokenizer, prompt, target)
    with torch.no_grad():
        logits = model(torch.tensor([ids + tokens])).logits[0].double()
    logits = logits[len(ids) - 1 : -1]
    chosen = logits.log_softmax(-1)[range(len(tokens)), tokens]
    right = [int(row.argmax()) == token for row, token in zip(logits, tokens, strict=True)]
    return float(chosen.mean()), statistics.mean(right)


def counterfact(model, tokenizer, records):
    """ES, PS, NS, their harmonic mean S, and the magnitudes EM, PM, NM."""
    shares = {name: [] for name in ("ES", "PS", "NS", "EM", "PM", "NM")}
    for record in records:
        rewrite = record["requested_rewrite"]
        new, true = rewrite["target_new"]["str"], rewrite["target_true"]["str"]
        groups = {
            "E": ([rewrite["prompt"].format(rewrite["subject"])], new, true),
            "P": (record["paraphrase_prompts"], new, true),
            "N": (record["neighborhood_prompts"], true, new),
        }
        for letter, (prompts, wanted, other) in groups.items():
            pairs = [
                [answer(model, tokenizer, prompt, text)[0] for text in (wanted, other)]
                for prompt in prompts
            ]
            won = [float(one > two) for one, two in pairs]
            differences = torch.tensor(pairs).double().exp().diff(dim=1)
            shares[f"{letter}S"].append(statistics.mean(won))
            shares[f"{letter}M"].append(-float(differences.mean()))
    found = {name: statistics.mean(values) for name, values in shares.items()}
    means = [found[name] for name in ("ES", "PS", "NS")]
    return found | {"S": statistics.harmonic_mean(means) if min(means) > 0 else 0.0}


def zsre(model, tokenizer, records):
    """Token accuracies of the edit, the other wording, the unrelated question and what follows."""
    names = {"efficacy": [], "paraphrase": [], "specificity": [], "portability": []}
    for record in records:
        further = record["portability"]
        asked = {
            "efficacy": (record["src"], record["alt"]),
            "paraphrase": (record["rephrase"], record["alt"]),
            "specificity": (record["loc"], record["loc_ans"]),
            "portability": (further["New Question"], further["New Answer"]),
        }
        for name, (prompt, target) in asked.items():
            names[name].append(answer(model, tokenizer, prompt, target)[1])
    return {name: statistics.mean(values) for name, values in names.items()}
