"""Open the black box: where a lab model recalls one fact, read four ways.

python examples/locate.py
"""

from __future__ import annotations

from rich.console import Console

import emend
from emend import datasets
from emend.locate import Memories, lens, study
from emend.models import ModelView
from emend.report import terminal, write


def main() -> None:
    """Trace a fact, read it through the lens, and find its neurons."""
    console = Console()
    model, tokenizer = emend.load("lab/gptneo")
    edit = datasets.load("lab", limit=1, seed=3)[0]

    # 1. Which hidden states bring the answer back that noise at the subject took away?
    kinds = ("state", "mlp", "attention")
    found = emend.trace(model, tokenizer, edit.prompt, edit.subject, kinds=kinds, window=3, draws=5)
    console.print(f"{found.prompt} -> {found.answer} ({100 * found.clean:.0f}%)")
    console.print(terminal(found))
    print("written to", write(found, "trace.html"))

    # 2. What would the model say after each block?
    console.print(terminal(lens(model, tokenizer, found.prompt)))

    # 3. Which units carry the fact, and what becomes of the answer without them?
    view = ModelView(model)
    prompts = [edit.text, *(probe.prompt for probe in edit.probes_of("rephrase"))]
    neurons = study(view, tokenizer, prompts, edit.original or found.answer)
    effect = neurons.effect
    print(f"{len(neurons.units)} units; P(answer) without them {100 * effect.suppression:+.0f}%")

    # 4. What else triggers the strongest of them, and what does its value say?
    layer, unit = neurons.units[0]
    facts = [edit, *datasets.load("lab", limit=80, seed=4)]
    texts = [f"{one.text} {one.original}." for one in facts]
    memory = Memories(view, tokenizer, texts, layers=(layer,), top=3).unit(layer, unit)
    print(f"unit {unit} of layer {layer} is triggered by {[one.text for one in memory.triggers]}")
    print(f"and says {[said.token.strip() for said in memory.value[:5]]}")


if __name__ == "__main__":
    main()
