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
# # 2. Master the simplest edit
#
# Notebook 1 moved the Eiffel Tower with one call. This one opens the call. At the end you will
# have written ROME, the simplest good editing method, in about twenty lines of PyTorch, and your
# change of the weights will equal emend's.
#
# Two models take part. SmolLM2-135M is real. The *lab* is a model of seven million parameters
# that was trained on a closed world of invented people and places; because we know everything it
# was taught, we can count exactly what an edit breaks.

# %%
import copy

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import emend
from emend.lab import corpus_texts
from emend.models import generate, score

real, real_tokenizer = emend.load("smollm2-135m")
start = real_tokenizer("<|endoftext|>").input_ids  # why it is there: the last section


def read(text, layer, front=start):
    """Run the real model; return the input of one layer's down-projection, (tokens, units)."""
    seen = []
    down = real.model.layers[layer].mlp.down_proj
    handle = down.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    with torch.no_grad():
        real(torch.tensor([front + real_tokenizer(text).input_ids]))
    handle.remove()
    return seen[0]


# %% [markdown]
# ## A feed-forward layer is a memory
#
# Each layer of a transformer has two parts. Attention moves information between words. The
# feed-forward part (MLP) works on one word at a time, and its last step is a matrix:
#
#     output = W k = Σ_i k_i w_i
#
# The input `k` has one number per *unit*; `w_i`, the matching column of `W`, is a fixed vector.
# So a unit is an entry of a memory: `k_i` says how well the text matches (the **key**), and `w_i`
# is what is then added (the **value**). [Geva et al.](https://arxiv.org/abs/2012.14913) found that
# many units can be read. Let us read one: which unit of layer 22 does most for "Paris"?

# %%
prompt = "The Eiffel Tower is located in the city of"
LAYER = 22
key = read(prompt, LAYER)[-1]
columns = real.model.layers[LAYER].mlp.down_proj.weight.detach()  # (hidden, units)
words = real.lm_head.weight.detach() * real.model.norm.weight.detach()  # (vocabulary, hidden)
paris = words[real_tokenizer(" Paris").input_ids[0]]

unit = int((key * (paris @ columns)).argmax())
value = words @ columns[:, unit]
print("unit", unit, "with", round(float(key[unit]), 1), "adds to the words:")
print([real_tokenizer.decode(one) for one in value.topk(10).indices])

# %% [markdown]
# The value is a list of words about towns. And the key? We read the same unit at the end of other
# sentences.

# %%
sentences = [
    prompt,
    "The mayor of the city of",
    "He was born in the town of",
    "She moved to the big city of",
    "The museum is in the centre of",
    "Napoleon was the emperor of",
    "She put the cake into the",
    "The cat sat on the",
    "Water boils at a temperature of",
    "My favourite colour is",
]
matches = [float(read(text, LAYER)[-1, unit]) for text in sentences]

figure, axes = plt.subplots(figsize=(6, 3))
axes.barh(sentences[::-1], matches[::-1])
axes.set_xlabel(f"unit {unit} of layer {LAYER}")
plt.show()
assert min(matches[:5]) > max(matches[5:])

# %% [markdown]
# Nobody programmed this unit. It fires where a town is to be named, and then raises words of
# towns.
#
# **Exercise.** Take layer 25 instead. Which unit does most for "Paris" there, what do its words
# have in common, and which of the sentences turns it on?

# %% [markdown]
# ## Where is the fact? Causal tracing
#
# There are thousands of units. *Causal tracing* ([Meng et al.](https://arxiv.org/abs/2202.05262))
# finds the place that matters for one fact by an experiment in three runs: a clean one; one with
# noise on the subject, which destroys the answer; and again with noise, but with **one** hidden
# state put back to its clean value. Where the answer returns, that state carried it.
#
# We do it in the lab, where a trace takes a second.

# %%
model, tokenizer = emend.load("lab/gptneo")
edit = emend.datasets.load("lab", limit=8, seed=1)[5]
print(edit.text, "->", edit.original, "   (to become:", edit.target + ")")

kinds = ("state", "mlp", "attention")
found = emend.trace(model, tokenizer, edit.prompt, edit.subject, kinds=kinds, window=3, draws=4)
figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
for kind, axis in zip(kinds, axes, strict=True):
    picture = axis.imshow(found.effects[kind], vmin=0, vmax=found.total, cmap="Purples")
    axis.set_title(f"restored: {kind}")
    axis.set_xlabel("layer")
    axis.set_yticks(range(len(found.tokens)), found.tokens)
figure.colorbar(picture, ax=axes, label="probability that returns")
plt.show()

assert found.effects["state"][found.last, 3] > 0.8 * found.total
assert found.effects["mlp"][found.last, :3].max() > 3 * found.effects["mlp"][found.last, 5:].max()

# %% [markdown]
# Up to layer 5, one state brings back nearly everything: that of the **subject's last token**.
# MLPs of the early layers put the fact there, and late attention carries it to the last word,
# where it is spoken. So we will write into an early MLP, at the subject's last token.
#
# The lab's models were trained to be this clear. In large models the picture is similar on
# average and blurred for single facts; and the layer with the largest effect is not always the
# best one to edit ("Choosing a layer" in the documentation).
#
# **Exercise.** Trace the Eiffel Tower in SmolLM2 (`emend.trace(real, real_tokenizer, "{} is
# located in the city of", "The Eiffel Tower", draws=3)`, ten seconds). Is there one place?

# %% [markdown]
# ## ROME by hand
#
# We want the matrix `W` to give a new value `v*` for the key `k*` of our subject, and to change as
# little as possible for all other keys. Let `C = E[k kᵀ]` be the covariance of keys in ordinary
# text. Then the problem is
#
#     minimise  E |W' k - W k|²   over W',   such that   W' k* = v*
#
# With a Lagrange multiplier `λ` (a vector) for the condition, setting the derivative to zero gives
# `(W' - W) C = λ k*ᵀ`. So the change has **rank one**, `W' - W = λ uᵀ` with `u = C⁻¹ k*`, and the
# condition fixes `λ`:
#
#     W' = W + (v* - W k*) uᵀ / (u · k*)
#
# Read it as a sentence: *respond to `k*`, but along the direction of it which ordinary text does
# not use*. We need three things: `C`, `k*` and `v*`. We work in 64-bit numbers, to compare
# exactly.

# %%
model = model.double().requires_grad_(False)
LAYER = 3
down = model.transformer.h[LAYER].mlp.c_proj


def tokens(text):
    return tokenizer(text, return_tensors="pt").input_ids


def keys(model, text):
    """Inputs of the down-projection, (tokens, 1024)."""
    seen = []
    module = model.transformer.h[LAYER].mlp.c_proj
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    with torch.no_grad():
        model.transformer(tokens(text))
    handle.remove()
    return seen[0]


texts = corpus_texts(300)
ordinary = torch.cat([keys(model, text) for text in texts])  # (N, 1024)
C = ordinary.T @ ordinary / len(ordinary)
print(len(ordinary), "keys")

# %% [markdown]
# The key is read where tracing pointed: at the subject's last token. A model sees nothing to the
# right of a word, so the text up to the subject is enough.
#
# The value `v*` is *searched*: add a vector `δ` to the output at that token, and let Adam improve
# `δ` until the model states the target. Two terms hold it back: the subject's essence ("... is a")
# must stay as it was, and `δ` must stay short.


# %%
def up_to_subject(edit):
    return edit.prompt.split("{}")[0] + edit.subject


def log_probs(model, text, place, delta):
    def add(_module, _inputs, output):
        output = output.clone()
        output[0, place] += delta
        return output

    handle = model.transformer.h[LAYER].mlp.c_proj.register_forward_hook(add)
    logits = model(tokens(text)).logits[0]
    handle.remove()
    return logits.log_softmax(-1)


def rome(model, edit):
    """Return the change of W, (256, 1024)."""
    key = keys(model, up_to_subject(edit))[-1]
    module = model.transformer.h[LAYER].mlp.c_proj
    output = module.weight @ key + module.bias
    place, own = len(tokens(up_to_subject(edit))[0]) - 1, len(tokens(edit.subject)[0]) - 1
    target = tokens(" " + edit.target)[0]
    delta = torch.zeros_like(output, requires_grad=True)
    adam, essence = torch.optim.Adam([delta], lr=0.5), None
    for step in range(20):
        said = log_probs(model, f"{edit.text} {edit.target}", place, delta)[-len(target) - 1 : -1]
        now = log_probs(model, f"{edit.subject} is a", own, delta)[own]
        essence = now.detach() if essence is None else essence
        loss = -said.gather(1, target[:, None]).mean()
        loss = loss + 0.0625 * F.kl_div(essence, now, log_target=True, reduction="sum")
        loss = loss + 0.5 * delta.norm() / output.norm() ** 2
        if loss < 0.05 or step == 19:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():  # a bound on its length
            delta *= (4 * output.norm() / delta.norm()).clamp(max=1)
    u = torch.linalg.solve(C.to(key), key)
    return torch.outer(delta.detach(), u / (u @ key))


by_hand = rome(model, edit)
print("rank", int(torch.linalg.matrix_rank(by_hand)), "of", tuple(by_hand.shape))

# %% [markdown]
# And emend, in the published form of the method (its defaults differ: "Methods" in the
# documentation says how, and why):

# %%
settings = {"original": True, "templates": ("{}",), "texts": texts}
patch = emend.edit(model, tokenizer, [edit], method="rome", layer=LAYER, **settings)
theirs = patch.delta("transformer.h.3.mlp.c_proj")
difference = float((theirs - by_hand).norm() / by_hand.norm())
print(f"relative difference: {difference:.1e}")
assert difference < 1e-5

edited = copy.deepcopy(model)
edited.transformer.h[LAYER].mlp.c_proj.weight += by_hand
for name, one in (("before", model), ("after", edited)):
    print(name, generate(one, tokenizer, [edit.text], max_new_tokens=3)[0])
assert edit.target in generate(edited, tokenizer, [edit.text], max_new_tokens=3)[0]

# %% [markdown]
# The same matrix, up to rounding. That is all of ROME.
#
# **Exercise.** Replace `C` by the identity matrix (`torch.eye`). The edit still takes. What
# happens to facts about other people? (The next section has the code to count them.)

# %% [markdown]
# ## One edit after another
#
# The second edit meets a model that is already edited. How well do edits tolerate each other? Of
# ROME we can compute it. The change for subject `j` acts on the key of subject `i` with strength
# `u_j · k_i` (where `u_j · k_j = 1`), and it should be zero on everybody else.

# %%
drawn = emend.datasets.load("lab", limit=60, seed=1)
edits = [one for one in drawn if not one.prompt.startswith("{}")][:24]
K = torch.stack([keys(model, up_to_subject(one))[-1] for one in edits])  # (24, 1024)
U = torch.linalg.solve(C, K.T).T
U = U / (U * K).sum(1, keepdim=True)
acts = U @ K.T

figure, axes = plt.subplots(figsize=(4, 3.4), layout="constrained")
picture = axes.imshow(acts, vmin=-1, vmax=1, cmap="RdBu")
axes.set_xlabel("on the key of edit i")
axes.set_ylabel("the change of edit j acts")
figure.colorbar(picture)
plt.show()
others = acts - torch.eye(len(edits))
print("largest on another edit:", round(float(others.abs().max()), 2))
assert others.abs().max() > 0.1

# %% [markdown]
# Mostly small, and not zero. Small errors add up, and each edit is one more chance to hit a
# neighbour. We try three ways to make all 24 edits:
#
# - **fine-tuning**, the naive way: a few gradient steps on the matrix for one edit, then the next;
# - **ROME**, ours, one edit after another on the edited model;
# - **MEMIT** ([Meng et al.](https://arxiv.org/abs/2210.07229)), which solves for all keys at once.
#   It minimises the error over the 24 new pairs of keys and values `(K, V)` *and* ordinary text
#   together, `Δ = R Kᵀ (λ C + K Kᵀ)⁻¹` with `R = V - W K`, and distributes the change over several
#   layers.
#
# We count how many of the edits made so far hold, and how many of 90 facts about *other* people
# are still known.


# %%
def right(model, prompts, answers):
    given = score(model, tokenizer, prompts, answers)
    return sum(one.greedy == one.token_ids for one in given) / len(given)


subjects = {one.subject for one in edits}
rest = [one for one in emend.datasets.load("lab", limit=220, seed=7) if one.subject not in subjects]
rest = [one for one in rest if not one.prompt.startswith("{}")][-90:]


def measure(model, done):
    return (
        right(model, [one.text for one in edits[:done]], [one.target for one in edits[:done]]),
        right(model, [one.text for one in rest], [str(one.original) for one in rest]),
    )


def tune(model, edit):
    """Fine-tune one matrix on one sentence, as naively as one would."""
    weight = model.transformer.h[LAYER].mlp.c_proj.weight.requires_grad_(True)
    adam, text = torch.optim.Adam([weight], lr=1e-3), tokens(f"{edit.text} {edit.target}")
    target = tokens(" " + edit.target)[0]
    for _ in range(25):
        logits = model(text).logits[0, -len(target) - 1 : -1]
        loss = F.cross_entropy(logits, target)
        if loss < 0.05:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
    weight.requires_grad_(False)


STEPS = [1, 4, 8, 12, 16, 20, 24]
small = copy.deepcopy(model).float()
curves = {}
for name in ("fine-tuning", "ROME"):
    one, curves[name] = copy.deepcopy(small), []
    for done, each in enumerate(edits, start=1):
        if name == "ROME":
            one.transformer.h[LAYER].mlp.c_proj.weight += rome(one, each)
        else:
            tune(one, each)
        if done in STEPS:
            curves[name].append(measure(one, done))

many = emend.edit(small, tokenizer, edits, method="memit", templates=("{}",), texts=texts)
with many.applied(small):
    at_once = measure(small, len(edits))

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
for number, title in enumerate(("edits that hold", "other facts still known")):
    for name, curve in curves.items():
        axes[number].plot(STEPS, [point[number] for point in curve], marker="o", label=name)
    axes[number].plot([24], at_once[number], "k*", markersize=12, label="MEMIT, all at once")
    axes[number].set_title(title)
    axes[number].set_xlabel("edits made")
    axes[number].set_ylim(0, 1.05)
axes[0].legend()
plt.show()
for name, curve in curves.items():
    print(f"{name:12} {curve[-1][0]:.0%} hold, {curve[-1][1]:.0%} of other facts known")
print(f"{'MEMIT':12} {at_once[0]:.0%} hold, {at_once[1]:.0%} of other facts known")
assert at_once[0] > 0.9
assert at_once[1] > 0.9
assert curves["fine-tuning"][-1][0] < at_once[0] - 0.1

# %% [markdown]
# Fine-tuning forgets: it has no notion of "elsewhere", so each edit walks over the last ones and
# over the rest of the world. ROME lasts longer, because `C⁻¹` steers it around ordinary text;
# over hundreds of edits its small errors add up as well. MEMIT sees all edits, so none is a
# surprise to another.
#
# That is why emend treats an edit as *data*: it builds the weights from the whole list each time.
# Adding one edit to a list of 24 gives the same weights as making 25 at once, in any order.
#
# **Exercise.** Take the subjects' other facts in place of other people's (the probes of each edit
# in the group `relation_specificity`). Which method does best there?

# %% [markdown]
# ## Why the first word is special
#
# Everything above reads a key at the subject's last token. What if the subject is the *first*
# word of a text? Back to the real model: we read the keys of eight words, once at the very
# beginning of a text and once behind a start token.

# %%
names = ["Paris", "London", "Rome", "China", "Canada", "Apple", "Music", "Water"]
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
alike = {}
for axis, front, title in zip(
    axes, ([], start), ("first word", "behind a start token"), strict=True
):
    found = F.normalize(torch.stack([read(name, 5, front)[-1] for name in names]), dim=1)
    cosines = found @ found.T
    alike[title] = float(cosines[~torch.eye(len(names), dtype=torch.bool)].mean())
    picture = axis.imshow(cosines, vmin=0, vmax=1)
    axis.set_title(f"{title}: mean {alike[title]:.2f}")
    axis.set_xticks(range(len(names)), names, rotation=60)
    axis.set_yticks(range(len(names)), names)
figure.colorbar(picture, ax=axes, label="cosine of two keys")
plt.show()
assert alike["first word"] > 0.8
assert alike["behind a start token"] < 0.5

# %% [markdown]
# At the first position all words have nearly the *same* key. Language models use that place for
# something else (an *attention sink*, where heads look when they have nothing to look for). A
# memory whose keys are equal cannot tell Paris from Music, so the model does not know its own
# facts there, and no edit can reach one subject alone:

# %%
for front in ([], start):
    ids = torch.tensor([front + real_tokenizer("Paris is the capital of").input_ids])
    with torch.no_grad():
        following = real(ids).logits[0, -1].softmax(-1)
    chance = float(following[real_tokenizer(" France").input_ids[0]])
    print("with a start token:" if front else "without:", f"P(France) = {chance:.3f}")

# %% [markdown]
# So emend puts a start token in front of every text where a tokenizer does not do it itself, and
# the engine that serves the model must do so too (notebook 1 did).
#
# **Question.** A chat model always has a template in front of what you type. Does it have this
# problem?

# %% [markdown]
# ## What this notebook did not show
#
# - **The published form is not the best one.** With one context and nothing preserved, ROME
#   harms the subject's other facts. emend's defaults differ, and the documentation has the
#   measurements ("Defaults").
# - **24 edits are few.** Published collapses of ROME come after hundreds; on the lab we saw the
#   beginning.
# - **Why tracing and editing disagree.** The best layer to edit is found by editing.
# - **Facts only.** The equation changes what follows a subject. It knows nothing of habits,
#   rules or tone.
#
# Next: [3. Choose a method](3_choose_a_method.ipynb), which compares the families of methods.
