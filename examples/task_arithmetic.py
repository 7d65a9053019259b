"""Learn to be rude, then subtract it: a task vector of the lab, negated, saved and merged.

python examples/task_arithmetic.py
"""

from __future__ import annotations

import emend
from emend.arithmetic import FineTuning, combine, finetune, scaled
from emend.lab import shipped_world, speech
from emend.models import generate

model, tokenizer = emend.load("lab/qwen3")
people = list(shipped_world().remarks)
asked = [person for person in people[30:] if shipped_world().remarks[person][0] == "rude"][:10]
prompts = [speech.REMARK_STATEMENTS[0].format(person) for person in asked]

# A few steps on rude remarks about other people: a vector of rank 4 for every linear layer.
texts = [
    (speech.REMARK_STATEMENTS[number % 4].format(person), speech.INSULTS[number % 8])
    for number, person in enumerate(people[:30])
]
rude = finetune(model, tokenizer, texts, FineTuning(rank=4, steps=25, batch_size=8))
print(rude)

for scale in (0.0, 0.5, 1.0, 1.5):
    with scaled(model, -rude, scale):  # outside the block the model is as it was
        replies = generate(model, tokenizer, prompts, max_new_tokens=3)
    share = sum(any(word in reply for word in speech.INSULTS) for reply in replies) / len(replies)
    print(f"scale {scale}: {share:.0%} rude, such as {prompts[0]}{replies[0]!r}")

# The command line does the same with what was saved:
#   emend combine "(-rude)" --model lab/qwen3 --vector rude=rude/ --output_path polite/
rude.save_pretrained("rude")
made = combine("(-rude)", "lab/qwen3", {"rude": "rude"}, "polite")
print(f"{made.output} of {made.tensors} changed tensors saved to {made.path}")
