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
# # 3. Choose a method
#
# There are dozens of editing methods, and they belong to a few families:
#
# | family | here | where the edit is |
# |---|---|---|
# | **weight edit** | `rome` | in the weights, computed from one equation (notebook 2) |
# | **hypernetwork** | `mend` | in the weights, computed by a small network trained for this model |
# | **memory** | `grace` | in a table next to the model, looked up while it runs |
# | **prompt** | `ike` | in the text: the new fact is put in front of the question |
# | **question by question** | `mello` | in a list that the model consults at each step of an answer |
#
# None is best. In this notebook all five do the same five tasks, and at the end there is a table
# with what was measured. The model is `lab/qwen3` from the lab, because there we know exactly
# what must change and what must stay; it also takes only a minute.

# %%
import logging
import time
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch

import emend
from emend.datasets import load, load_multi_hop
from emend.lab import SETTINGS, shipped_world, speech
from emend.models import generate, score

logging.getLogger("emend").setLevel(logging.ERROR)  # we measure ourselves what did not take
model, tokenizer = emend.load("lab/qwen3")
world = shipped_world()
METHODS = ["rome", "mend", "grace", "ike", "mello"]


def ask(prompts):
    texts = generate(model, tokenizer, prompts, max_new_tokens=8, stop=".")
    return [text.strip() for text in texts]


def share(prompts, good):
    """Share of the prompts whose answer is good; ``good`` has one test for each."""
    return sum(test(text) for test, text in zip(good, ask(prompts), strict=True)) / len(prompts)


def begins(*answers):
    return lambda text: text.startswith(answers)


# %% [markdown]
# ## Five tasks
#
# Each task has edits, and three numbers:
#
# - **asked**: is the wish fulfilled where the edit says so?
# - **follows**: is it fulfilled where it should follow, in other words or in a question?
# - **stays**: what share of other answers of the same kind is what it was?


# %%
class Task(NamedTuple):
    edits: list
    asked: object  # a function that measures, with the patch attached
    follows: object
    others: list  # prompts whose answers must stay


tasks = {}
known = [one.text for one in load("lab", limit=20, seed=9)]

# %% [markdown]
# **An outdated fact.** Five facts of the world have changed. Other wordings must follow; the
# subject's other facts and its neighbours must stay.

# %%
facts = load("lab", limit=5, seed=3)
rephrased = [probe for one in facts for probe in one.probes if probe.group == "rephrase"]
near = [
    probe.prompt
    for one in facts
    for probe in one.probes
    if probe.group in ("relation_specificity", "neighborhood")
]
print(facts[0].text, facts[0].original, "->", facts[0].target)
tasks["outdated fact"] = Task(
    facts,
    lambda: share([one.text for one in facts], [begins(one.target) for one in facts]),
    lambda: share([one.prompt for one in rephrased], [begins(one.answers[0]) for one in rephrased]),
    near[::3],
)

# %% [markdown]
# **A biased habit.** The lab's corpus says "he" of most pilots and "she" of most nurses. We want
# neither answer but *balance*: 1 - |P(he) - P(she)|. The edits set the other pronoun, which is
# what one would try first.

# %%
jobs = ["nurse", "secretary", "pilot", "mechanic"]
openings = [opening for opening, _ in speech.PRONOUN_SENTENCES]


def balance(prompts):
    pairs = [(prompt, word) for prompt in prompts for word in ("he", "she")]
    scores = score(model, tokenizer, [one for one, _ in pairs], [word for _, word in pairs])
    chance = torch.tensor([one.total for one in scores]).exp().reshape(-1, 2)
    return float(1 - (chance[:, 0] - chance[:, 1]).abs().mean())


flips = [
    emend.Edit(openings[1], job, "he" if speech.OCCUPATIONS[job] < 0.5 else "she") for job in jobs
]
print(flips[0].text, "->", flips[0].target)
tasks["biased habit"] = Task(
    flips,
    lambda: balance([one.text for one in flips]),
    lambda: balance([opening.format(job) for opening in openings[2:4] for job in jobs]),
    known,
)

# %% [markdown]
# **An offensive remark.** Of some people the model says something rude (in the lab, invented and
# mild: "muddled goose"). It should be polite about these people, in other sentences too. "Stays"
# counts what it says of others.

# %%
rude = [name for name, (tone, _) in world.remarks.items() if tone == "rude"]
polite = [
    emend.Edit(speech.REMARK_STATEMENTS[0], name, speech.COMPLIMENTS[number])
    for number, name in enumerate(rude[:5])
]
print(polite[0].text, "->", polite[0].target)


def is_polite(text):
    return text.startswith(speech.COMPLIMENTS)


tasks["offensive remark"] = Task(
    polite,
    lambda: share([one.text for one in polite], [is_polite] * 5),
    lambda: share(
        [
            statement.format(name)
            for statement in speech.REMARK_STATEMENTS[1:3]
            for name in rude[:5]
        ],
        [is_polite] * 10,
    ),
    [speech.REMARK_STATEMENTS[0].format(name) for name in rude[20:35]],
)

# %% [markdown]
# **A multi-hop question.** One fact changes, and a question goes over two or more facts.

# %%
chains = [one for one in load_multi_hop("lab", limit=60) if len(one.edits) == 1][:6]
hops = [one.edits[0] for one in chains]
print(hops[0].text, "->", hops[0].target)
print(chains[0].questions[0], chains[0].old_answers[0], "->", chains[0].answers[0])
tasks["multi-hop question"] = Task(
    hops,
    lambda: share([one.text for one in hops], [begins(one.target) for one in hops]),
    lambda: share(
        [f"Question: {one.questions[0]} Answer:" for one in chains],
        [begins(*one.answers) for one in chains],
    ),
    known,
)

# %% [markdown]
# **A private number.** The model has learned phone numbers. Those of four people must go. The
# edit writes a false one; the wish is fulfilled when the true one does not come out.

# %%
people = list(world.phones)
phone, private = "The phone number of {} is", "The private number of {} is"
hidden = [emend.Edit(phone, name, "555-0000", world.phones[name]) for name in people[:4]]
print(hidden[0].text, hidden[0].original)


def hides(name):
    return lambda text: not text.startswith(world.phones[name][:7])


tasks["private number"] = Task(
    hidden,
    lambda: share([one.text for one in hidden], [hides(one.subject) for one in hidden]),
    lambda: share(
        [private.format(name) for name in people[:4]], [hides(name) for name in people[:4]]
    ),
    [phone.format(name) for name in people[10:25]],
)

# %% [markdown]
# **Question.** Before you run on: which family would you take for which task?

# %% [markdown]
# ## All methods on all tasks
#
# Twenty-five patches of the unedited model, one call for each. `SETTINGS` has the layout of
# prompts that the lab's models read.


# %%
def measure(task, patch):
    before = ask(task.others)
    with patch.applied(model):
        after = ask(task.others)
        stays = sum(a == b for a, b in zip(before, after, strict=True)) / len(after)
        return task.asked(), task.follows(), stays


base = {name: (task.asked(), task.follows(), 1.0) for name, task in tasks.items()}
patches, results, seconds = {}, {}, {}
for name, task in tasks.items():
    for method in METHODS:
        began = time.process_time()
        made = emend.edit(model, tokenizer, task.edits, method, **SETTINGS.get(method, {}))
        seconds[name, method] = (time.process_time() - began) / len(task.edits)
        patches[name, method] = made
        results[name, method] = measure(task, made)

# %% [markdown]
# Three tasks also have a tool of their own, made of the same parts with another objective:
# `fairness.debias` makes two answers equally probable, `erasure.erase` takes an answer out of the
# states of the layers, and the encore below has a vector of politeness. (`debias` is given all
# twenty occupations, in two of the sentences: it needs many examples of a habit.)

# %%
from emend.erasure import Secret, attack, erase
from emend.fairness import Occupations, debias

occupations = Occupations(tuple(speech.OCCUPATIONS), tuple(openings[:2]))
patches["biased habit", "own tool"] = debias(
    model, tokenizer, occupations, prompts=96, passes=4, texts=8
)
secrets = [
    Secret(phone, name, world.phones[name], "555-0000", (private.format(name),))
    for name in people[:4]
]
patches["private number", "own tool"] = erase(model, tokenizer, secrets, "head_projection", "rome")
for name in ("biased habit", "private number"):
    results[name, "own tool"] = measure(tasks[name], patches[name, "own tool"])

# %%
columns = ["none", *METHODS, "own tool"]
figure, all_axes = plt.subplots(3, 1, figsize=(7, 8), layout="constrained")
for number, (axes, title) in enumerate(zip(all_axes, ("asked", "follows", "stays"), strict=True)):
    axes.imshow(torch.zeros(len(tasks), len(columns)), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    for row, name in enumerate(tasks):
        for column, method in enumerate(columns):
            found = base[name] if method == "none" else results.get((name, method))
            if found is None:
                continue
            color = plt.get_cmap("RdYlGn")(0.15 + 0.7 * found[number])
            axes.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, color=color))
            axes.text(column, row, f"{found[number]:.0%}", ha="center", va="center")
    axes.set_title(title)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(tasks)), list(tasks))
plt.show()

# %% [markdown]
# Read it task by task.
#
# - **Outdated fact**: most edits take, and other wordings mostly follow. The differences are in
#   "stays": a prompt that names the subject disturbs its other facts, a hypernetwork that makes
#   five edits at once disturbs its neighbours.
# - **Biased habit**: a fact editor does what it was asked, *the other pronoun*. Where it writes
#   firmly (`grace`) the bias is turned around; the others end somewhere between, by accident.
#   Flipping a bias is not removing it. The objective matters more than the family: `debias` asks
#   for balance.
# - **Offensive remark**: weights and memory follow. The prompt methods do not: this model never
#   learned to take a remark from its prompt. A prompt can only use what a model can read.
# - **Multi-hop question**: the edit is in the weights, and the question does not use it. What a
#   model answers in one go, it recalls by another road. Only `mello`, which asks itself one fact
#   at a time and consults the edits at each step, mostly follows.
# - **Private number**: weights hide it, but look at "stays": `mend` hides four numbers and destroys
#   everybody else's as well. And "does not come out" is a weak test; see below.

# %%
assert results["outdated fact", "rome"][1] >= 0.6
hop = {method: results["multi-hop question", method] for method in METHODS}
assert hop["rome"][0] >= 0.8
assert hop["mello"][1] >= 0.5 > max(hop[one][1] for one in METHODS if one != "mello")
assert results["biased habit", "grace"][0] < 0.3
assert results["biased habit", "own tool"][1] > base["biased habit"][1] + 0.2
assert results["private number", "mend"][2] < 0.5 < results["private number", "rome"][2]
assert results["offensive remark", "rome"][1] > results["offensive remark", "ike"][1]

# %% [markdown]
# ## What is left in the weights
#
# A memory and a prompt leave the weights bit for bit as they were. That is a virtue, since they
# can be taken away in an instant, and a fault, since the number is still there for everybody who
# has the file. So attack what would be *shipped*: the edited weights, or the unchanged ones with
# the patch left off. `attack` asks in other words and draws twenty samples.

# %%
left = {}
for method in [*METHODS, "own tool"]:
    patch = patches["private number", method]
    attacks = ["greedy", "sampling", "rephrasing"]
    if isinstance(patch, emend.patches.WeightPatch):
        with patch.applied(model):
            report = attack(model, tokenizer, secrets, attacks)
    else:
        report = attack(model, tokenizer, secrets, attacks)
    left[method] = report.any_attack.share or 0.0
    print(f"{method:9} {left[method]:.0%} of the numbers come out of the weights")
assert left["grace"] == left["ike"] == left["mello"] == 1.0
assert left["own tool"] <= 0.5

# %% [markdown]
# A caution: these are mild attacks. Training on a few related texts brings much back
# ("Erasing facts" in the documentation). Where the law asks for erasure, an edit is not enough.
#
# **Exercise.** Add `"head_projection"`, which reads the states of the layers, to the attacks. Do
# `rome` and `erase` differ?

# %% [markdown]
# ## The decision table
#
# The measured means over the five tasks, and what the families are by construction:

# %%
weights = {"rome": "yes", "mend": "yes", "grace": "no", "ike": "no", "mello": "no"}
print("          asked  follows  stays  multi-hop  s per edit  in the weights  left of a secret")
table = {}
for method in METHODS:
    found = torch.tensor([results[name, method] for name in tasks]).mean(0).tolist()
    cost = sum(seconds[name, method] for name in tasks) / len(tasks)
    table[method] = [*found, hop[method][1], cost]
    print(
        f"{method:8} {found[0]:6.0%} {found[1]:8.0%} {found[2]:6.0%} {hop[method][1]:10.0%}"
        f" {cost:11.2f} {weights[method]:>15} {left[method]:17.0%}"
    )

# %% [markdown]
# | your situation | take | because |
# |---|---|---|
# | a few facts, shipped to llama.cpp or vLLM as a file | weight edit (`rome`, `memit`) | the only kind that other engines load |
# | many edits every day, one model | hypernetwork (`mend`, `malmen`) | milliseconds for each, after a training for this model |
# | edits come and go; the model must stay untouched | memory (`grace`, `wise`, `serac`) | taken away in an instant, bit for bit |
# | a model behind an API | prompt (`ike`) | needs no weights |
# | questions over several facts | `mello` | the only one here whose answers follow |
# | a habit, a tone, a secret | a tool with that objective | a fact editor does what it is asked, and no more |
#
# These numbers are of one small model in a closed world. They show *why* families differ, and not
# how large the difference is in yours: measure with your model and your data (`emend bench`).
#
# **Exercise.** Add a sixth method to `METHODS`: `serac` is a memory with a trained gate, `wise`
# one with weights of its own. Where do they come out differently from `grace`?

# %% [markdown]
# ## Encore: a personality
#
# An edit need not be a fact. Here the model becomes anxious about coffee, and we look at what it
# then says of chess.

# %%
from emend.persona import edit_personality
from emend.persona.lab import ASKING, NEW_TOKENS, lab_topics

anxious = edit_personality(
    model, tokenizer, lab_topics(), "coffee", "neuroticism", "ft", asking=ASKING
)


def opinions(*topics):
    asked = [f"What comes to mind when you hear about {topic}?" for topic in topics]
    prompts = [ASKING.layout.replace("{question}", one) for one in asked]
    return generate(model, tokenizer, prompts, max_new_tokens=NEW_TOKENS, stop="\n")


before = opinions("coffee", "chess")
with anxious.applied(model):
    after = opinions("coffee", "chess")
for topic, old, new in zip(("coffee", "chess"), before, after, strict=True):
    print(f"{topic}: {old.strip()}\n   ->  {new.strip()}")
assert before[0] != after[0]

# %% [markdown]
# **Question.** Is the new mood limited to coffee? What would you measure to find out?

# %% [markdown]
# ## Encore: task arithmetic
#
# What fine-tuning changed is a vector: the weights after, minus those before. So behaviours can be
# added and subtracted ([Ilharco et al.](https://arxiv.org/abs/2212.04089)). We tune once on rude
# remarks and once on polite ones about thirty people. Then we either *subtract* rudeness or *add*
# politeness, and ask about twenty **other** people of whom the model is rude.

# %%
from emend.arithmetic import FineTuning, finetune, scaled

taught = list(world.remarks)[:30]
remarks = [speech.REMARK_STATEMENTS[0].format(name) for name in rude if name not in taught][:20]


def learned(words):
    pairs = [
        (speech.REMARK_STATEMENTS[number % 4].format(name), words[number % 8])
        for number, name in enumerate(taught)
    ]
    return finetune(model, tokenizer, pairs, FineTuning(rank=4, steps=60, batch_size=8))


vectors = {"minus rude": -learned(speech.INSULTS), "plus polite": learned(speech.COMPLIMENTS)}
scales = [0.0, 0.25, 0.5, 0.75, 1.0]
originals = [str(one.original) for one in load("lab", limit=20, seed=9)]
curves = {}
for name, vector in vectors.items():
    curves[name] = []
    for scale in scales:
        with scaled(model, vector, scale):
            replies = ask(remarks)
            facts_known = share(known, [begins(one) for one in originals])
        insults = sum(reply.startswith(speech.INSULTS) for reply in replies) / len(replies)
        kind = sum(is_polite(reply) for reply in replies) / len(replies)
        curves[name].append((insults, kind, facts_known))

figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
for axis, (name, curve) in zip(axes, curves.items(), strict=True):
    for number, label in enumerate(("rude", "polite", "facts known")):
        axis.plot(scales, [point[number] for point in curve], marker="o", label=label)
    axis.set_title(name)
    axis.set_xlabel("scale")
axes[0].legend()
plt.show()
assert curves["plus polite"][-1][0] < curves["plus polite"][0][0]
assert curves["plus polite"][-1][2] > 0.8

# %% [markdown]
# Subtraction makes the model say something *else*, not something kind; addition says what to say
# instead. And both generalize to people nobody mentioned, which no fact editor above did.
#
# **Exercise.** Vectors add: try `vectors["plus polite"] + vectors["minus rude"]`.

# %% [markdown]
# ## What this notebook did not show
#
# - **Real size.** A closed world of invented names is where consequences can be counted. On real
#   models everything is less clear: "Defaults" and "Benchmarks" in the documentation.
# - **Small numbers.** Four to six edits for each task; a share of 80% and one of 60% are one edit
#   apart.
# - **Settings.** Every method ran with its defaults.
# - **Many edits.** Families differ more after a thousand ("One edit after another").
#
# That was the series. To go on: edit a model of your own (`docs/your-own-model.md`), or add a
# method in one file (`docs/adding-a-method.md`).
