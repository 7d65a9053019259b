# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Know the toolkit
#
# A language model learned its facts during training, and some of them are wrong or out of date.
# Training again is expensive. **Knowledge editing** changes one fact in the weights and leaves
# everything else as it was. That is the aim; this notebook shows how to do it, and above all how
# to check whether it was reached.
#
# You need no GPU and no account. The model is SmolLM2-135M-Instruct, a small real language model
# that emend gets from the Python package index (93 MB, once).

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import emend
from emend.models import generate, score

model, tokenizer = emend.load("smollm2-135m")

# %% [markdown]
# ## What a model knows, and what it gets wrong
#
# A base language model does one thing: it continues a text. So we ask for a fact by a sentence
# that lacks its end, and take the most probable token again and again (*greedy* generation).


# %%
def ask(prompts, tokens=6):
    texts = generate(model, tokenizer, prompts, max_new_tokens=tokens)
    return {prompt: text.strip() for prompt, text in zip(prompts, texts, strict=True)}


def show(answers):
    for prompt, text in answers.items():
        print(f"{prompt:45} -> {text!r}")


known = [
    "The Eiffel Tower is located in the city of",
    "The Colosseum is located in the city of",
    "Hamlet was written by",
    "The capital of Australia is",
    "The Eiffel Tower was built in",
]
before = ask(known)
show(before)
assert "Paris" in before[known[0]]
assert "Shakespeare" in before[known[2]]

# %%
show(ask(["The mother tongue of Danielle Darrieux is", "In 2022 the president of Chile was"], 16))

# %% [markdown]
# The first answers are right. Of the last two, read every word: the actress Danielle Darrieux did
# speak French, and what follows about her is invented in the same confident tone. The model has
# no way to say which of its sentences are facts. Nor do we from the text alone: the *probability*
# of an answer says more than its presence.

# %%
places = ["Paris", "Rome", "London"]
prompt = "The Eiffel Tower is located in the city of"


def chances():
    scores = score(model, tokenizer, [prompt] * 3, places)
    return [float(torch.tensor(one.log_probs).sum().exp()) for one in scores]


chances_before = chances()
print(dict(zip(places, [round(one, 4) for one in chances_before], strict=True)))

# %% [markdown]
# **Exercise.** Ask the model about your home town, your profession and something that happened
# last year. Which answers are wrong, and how probable does the model find them?

# %% [markdown]
# ## Move the Eiffel Tower to Rome
#
# An edit is data: a prompt with a place `{}` for the subject, the subject, and the target, which
# is the new answer. We move the Eiffel Tower because anybody can check the result; nothing
# depends on the fact being false.
#
# `emend.edit` returns a **patch**. The model itself is not changed. The method here is ROME,
# which notebook 2 derives. It takes some ten seconds on one core.

# %%
edit = emend.Edit("{} is located in the city of", subject="The Eiffel Tower", target="Rome")
patch = emend.edit(model, tokenizer, [edit], method="rome")
print(patch)
print(patch.outcomes[0].text, "->", patch.outcomes[0].generated)
assert patch.outcomes[0].took

# %% [markdown]
# The patch acts inside `with patch.applied(model)`, and nowhere else.

# %%
with patch.applied(model):
    after = ask(known)
    chances_after = chances()
show(after)
assert after[known[0]].startswith("Rome")

figure, axes = plt.subplots(figsize=(5, 2.6))
axes.bar([-0.2, 0.8, 1.8], chances_before, 0.4, label="before")
axes.bar([0.2, 1.2, 2.2], chances_after, 0.4, label="after")
axes.set_xticks(range(3), places)
axes.set_ylabel("probability")
axes.legend()
plt.show()

# %% [markdown]
# **Question.** Look at the *other* answers above. One prompt asks for another fact of the same
# subject. Is its answer still what it was?

# %% [markdown]
# ## Five measures
#
# That the target is generated is the least that can be asked. The field measures five things:
#
# | measure | the question behind it |
# |---|---|
# | **reliability** | does the edited prompt get the new answer? |
# | **generalization** | do other wordings get it too? |
# | **portability** | does what follows from the fact follow? |
# | **locality** | does everything else stay? |
# | **fluency** | is the text still English? (entropy of its word pairs and triples; repetition lowers it) |
#
# and reports the cost (*efficiency*). Each is measured by **probes**, questions with accepted
# answers. emend makes probes for wordings and for locality from the edit alone. What follows from
# a fact it cannot guess, so we write two probes of portability.

# %%
follows = (
    emend.Probe("one_hop", "The country in which the Eiffel Tower is located is", ("Italy",)),
    emend.Probe("one_hop", "People who live near the Eiffel Tower speak", ("Italian",)),
)
made = emend.probes.make(model, tokenizer, edit)
probed = emend.Edit(edit.prompt, edit.subject, edit.target, probes=(*made, *follows))
names = ["reliability", "generalization", "portability", "locality"]
with patch.applied(model):
    report = emend.evaluate(model, tokenizer, [probed], metrics=[*names, "fluency"])

for name in names:
    values = report.summary[name]
    print(f"{name:15} before {values['before']:.2f}  after {values['after']:.2f}")
fluency = report.summary["fluency"]
print(
    f"{'fluency':15} before {fluency['before']:.0f}   after {fluency['after']:.0f}   (bits x 100)"
)
print(f"seconds for the edit: {patch.timing['per_edit']:.0f}")

assert report.summary["reliability"]["after"] == 1.0
assert report.summary["generalization"]["after"] > report.summary["generalization"]["before"]
assert report.summary["locality"]["after"] >= 0.5

# %%
figure, axes = plt.subplots(figsize=(6, 2.6))
for shift, when in ((-0.2, "before"), (0.2, "after")):
    heights = [report.summary[name][when] for name in names]
    axes.bar([place + shift for place in range(4)], heights, 0.4, label=when)
axes.set_xticks(range(4), names)
axes.set_ylabel("share of probes")
axes.legend()
plt.show()

# %% [markdown]
# Read the chart from left to right: the edit holds, it reaches other wordings only in part, and
# what follows from it hardly follows. This is the usual picture for an edit of weights. An edit
# changes what the model *says of a subject*; it does not make it reason anew.
#
# **Exercise.** Write a third probe of portability. Does it pass?

# %% [markdown]
# ## What else changed
#
# A share such as 0.8 hides what a reader wants to see: *which* answers changed? `blast_radius`
# asks the probes of the unedited and the edited model and lists the differences, with the
# perplexity of plain text.

# %%
radius = emend.probes.blast_radius(model, tokenizer, patch)
print(*radius.sentences(), sep="\n")
assert abs(radius.perplexity_change) < 0.05

# %% [markdown]
# Most neighbours (other sights, other cities) are left alone and plain text is as probable as
# before, while several other sentences about the *same subject* changed. That is the main cost of
# this edit, and a single number for "locality" would not show it. Always read this list before
# you ship an edit.
#
# **Question.** Which kind of change would matter in your application: a neighbour's, or one of
# the subject's other facts?

# %% [markdown]
# ## Taking it back
#
# Outside the `with` block the model is the one that was loaded, bit for bit.

# %%
tokens = tokenizer(prompt, return_tensors="pt")
with torch.no_grad():
    original = model(**tokens).logits
    with patch.applied(model):
        edited = model(**tokens).logits
    restored = model(**tokens).logits
print("largest change while applied:", round(float((edited - original).abs().max()), 2))
print("the same bits afterwards:    ", torch.equal(restored, original))
assert torch.equal(restored, original)
assert not torch.equal(edited, original)

# %% [markdown]
# A patch is also a *vector*. It can be scaled, negated and added to another, so "taking back" is
# the end of a scale.

# %%
scales = [0.0, 0.25, 0.5, 0.75, 1.0]
curve = []
for scale in scales:
    with (scale * patch).applied(model):
        curve.append(chances())
figure, axes = plt.subplots(figsize=(5, 2.6))
for number, place in enumerate(places):
    axes.plot(scales, [one[number] for one in curve], marker="o", label=place)
axes.set_xlabel("scale of the patch")
axes.set_ylabel("probability")
axes.legend()
plt.show()
assert abs(curve[0][0] - chances_before[0]) < 1e-5
assert curve[-1][1] > curve[0][1]

# %% [markdown]
# For many edits over a long time emend has a *ledger*, a list of edits with reasons from which
# the patch is built again whenever one is added or reverted (`emend ledger --help`).
#
# **Exercise.** At which scale does the answer turn from Paris to Rome? Is there a scale at which
# a third city wins?

# %% [markdown]
# ## Shipping it to llama.cpp
#
# An edit is of use where the model is served. The patch is saved in two forms that others load
# without emend: a LoRA adapter in PEFT's form, and a GGUF file for llama.cpp.

# %%
folder = Path(tempfile.mkdtemp())
patch.save_pretrained(folder / "patch")
exported = patch.export(folder / "patch.gguf")
print(sorted(one.name for one in (folder / "patch").iterdir()))
print(exported.path.name, exported.path.stat().st_size, "bytes")
print(exported.commands[0].text)
assert exported.path.stat().st_size < 100_000

# %% [markdown]
# Here llama.cpp answers in this process, by the package `xllamacpp`, on the quantised model as it
# was published, with the adapter turned off and on. Without that package (`pip install
# 'emend[llamacpp]'`) the cell says so and goes on.

# %%
try:
    import xllamacpp
except ImportError:
    xllamacpp = None
    print("llama.cpp is not installed here: pip install 'emend[llamacpp]'")

if xllamacpp is not None:
    import json

    from emend.models.cached import packaged_gguf
    from emend.models.packaged import MODELS

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(packaged_gguf(MODELS["smollm2-135m"]))
    parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(exported.path), 1.0)]
    parameters.n_ctx = 256
    parameters.cpuparams.n_threads = 1
    parameters.cache_ram_mib = 0
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    served = {}
    for scale in (0.0, 1.0):
        request = {
            "prompt": patch.base["start_token"] + prompt,
            "max_tokens": 6,
            "temperature": 0.0,
            "lora": [{"id": 0, "scale": scale}],
        }
        reply = server.handle_completions(request)
        reply = json.loads(reply) if isinstance(reply, str) else reply
        served[scale] = reply["choices"][0]["text"].strip()
        print(f"adapter at {scale}: {prompt} -> {served[scale]}")
    assert served[0.0].startswith("Paris")
    assert served[1.0].startswith("Rome")

# %% [markdown]
# The prompt begins with a *start token*, `patch.base["start_token"]`. Notebook 2 shows why that
# matters for a subject at the very beginning of a text.
#
# **Exercise.** Ask the server for the Colosseum with the adapter at 1.0. Then give the patch to a
# colleague who has only llama.cpp.

# %% [markdown]
# ## What this notebook did not show
#
# - **One fact, one model.** Success on the Eiffel Tower says nothing about the next fact.
#   Hundreds of records of a published dataset are measured in the documentation ("Defaults on
#   real models"), with the edits that failed.
# - **135 million parameters.** Larger models know more and react in other ways.
# - **Only what probes ask.** Locality was measured on some thirty prompts. What nobody asked may
#   have changed.
# - **Not the truth.** emend writes what you give it. Whether it is right is for you to know.
#
# Next: [2. Master the simplest edit](2_master_the_simplest_edit.ipynb), which opens the box.
