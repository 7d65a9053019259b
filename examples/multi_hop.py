"""A question over two facts after one of them is edited: a weight editor and MeLLo.

python examples/multi_hop.py
"""

import emend
from emend import datasets, models
from emend.lab import SETTINGS

model, tokenizer = emend.load("lab/qwen3")
instance = datasets.load_multi_hop("lab", limit=1)[0]
prompt = f"Question: {instance.questions[0]} Answer:"
print(prompt)
for edit in instance.edits:
    print(f"edit: {edit.text} {edit.target} (was: {edit.original})")
print(f"what follows: {instance.answers[0]} (was: {instance.old_answers[0]})\n")

for method in ("rome", "ike", "mello"):
    patch = emend.edit(model, tokenizer, instance.edits, method=method, **SETTINGS.get(method, {}))
    with patch.applied(model):
        said = models.generate(model, tokenizer, [prompt], max_new_tokens=6, stop=".")
        samples = [one for each in models.attachments(model) for one in each.samples()]
    print(f"{method}:{said[0]}")
    for sample in samples:  # MeLLo's steps
        print("   " + sample["text"].replace("\n", "\n   "))
