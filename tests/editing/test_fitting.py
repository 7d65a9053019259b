"""Fitting the changes of all layers together."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from tests.methods.closed_form import COMMON, EDITS, SORTED, TEMPLATES, TEXT, difference, tiny_model
from tests.models.test_placing import OFFLOADED
from tests.two_devices import split, two_devices

import emend
from emend import datasets
from emend.editing import SearchSettings, context_rows, second_moments
from emend.editing._answering import HEARD, Answers, said_before, said_targets
from emend.editing._fitted import read_texts
from emend.editing.fitting import Fitting, fit_together
from emend.editing.nullspace import spectrum_of
from emend.editing.sources import Texts
from emend.editing.spread import seek_targets
from emend.edits import Edit
from emend.errors import InvalidInput, NumericalFailure
from emend.methods import registry
from emend.models import ModelView, generate, join_targets
from emend.models.positions import pad_id
from emend.models.scoring import score
from emend.models.structure import find_blocks

LAYERS = (0, 1, 2)
SETTINGS = SearchSettings(steps=5, learning_rate=0.1, clamp=0.75)


def outputs(view: ModelView, rows, changes, site: str = "block") -> torch.Tensor:
    """(N, width) at each row's last token after block 2, with weights that were really changed."""
    found: list[torch.Tensor] = []

    def keep(_module, _args, output) -> None:
        found.append((output if isinstance(output, torch.Tensor) else output[0])[0, -1].detach())

    for layer, change in changes.items():
        view.matrix(layer).data += change.delta
    module = view.layer(2) if site == "block" else view.down_projection(2)
    handle = module.register_forward_hook(keep)
    for row in rows:
        view.model(input_ids=torch.tensor([list(row)]), use_cache=False)
    handle.remove()
    for layer, change in changes.items():
        view.matrix(layer).data -= change.delta
    return torch.stack(found)


def fitted(model, tokenizer, fitting: Fitting, site: str = "block", texts: Sequence[str] = TEXT):
    view = ModelView(model)
    targets = seek_targets(view, tokenizer, EDITS, TEMPLATES, LAYERS, SETTINGS, site=site)
    moments = second_moments(view, tokenizer, texts, LAYERS)
    changes = fit_together(
        *(view, tokenizer, targets, TEMPLATES, LAYERS, Texts(texts)),
        lambda layer: spectrum_of(moments[layer].matrix).whitener,
        fitting,
    )
    return view, targets, changes


@pytest.mark.parametrize("site", ["block", "mlp"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_targets_are_reached_in_every_context_and_texts_stay(architecture, site) -> None:
    model, tokenizer = tiny_model(architecture)
    view, targets, changes = fitted(model, tokenizer, Fitting(150, weight=1.0), site)
    rows = [
        row.ids[: row.lookup + 1]
        for each in context_rows(tokenizer, SORTED, TEMPLATES)
        for row in each
    ]
    before = outputs(view, rows, {}, site)
    moves = targets.wanted - before[:: len(TEMPLATES)]  # from the bare prompt
    moved = outputs(view, rows, changes, site) - before
    wanted = moves.repeat_interleave(len(TEMPLATES), 0)
    size = float(moves.norm(dim=1).mean())
    assert float((moved - wanted).norm(dim=1).mean()) < 0.3 * size
    texts = read_texts(tokenizer, Texts(TEXT), EDITS).preserved
    there = outputs(view, texts, changes, site) - outputs(view, texts, {}, site)
    assert float(there.norm(dim=1).mean()) < 0.3 * size


def test_targets_are_reached_where_texts_name_a_subject() -> None:
    model, tokenizer = tiny_model("llama")
    naming = ["They say that Marie Curie was right.", "Nobody but Marie Curie went there."]
    missing = {}
    for texts in (TEXT, [*TEXT, *naming]):
        view, targets, changes = fitted(model, tokenizer, Fitting(150, weight=1.0), texts=texts)
        number = [edit.subject for edit in targets.edits].index("Marie Curie")
        bare = context_rows(tokenizer, [targets.edits[number]], ["{}"])[0][0].upto_subject
        move = targets.wanted[number] - outputs(view, [bare], {})[0]
        rows = read_texts(tokenizer, Texts(naming), EDITS).naming.get("Marie Curie", [])
        assert len(rows) == 2
        moved = outputs(view, rows, changes) - outputs(view, rows, {})
        missing[len(texts)] = float((moved - move).norm(dim=1).mean() / move.norm())
    assert missing[len(TEXT) + 2] < 0.3 < 0.5 * missing[len(TEXT)]


def test_more_weight_moves_texts_less() -> None:
    model, tokenizer = tiny_model("gpt2")
    texts = read_texts(tokenizer, Texts(TEXT), EDITS).preserved
    there = []
    for weight in (0.1, 10.0):
        view, _, changes = fitted(model, tokenizer, Fitting(60, weight))
        moved = outputs(view, texts, changes) - outputs(view, texts, {})
        there.append(float(moved.norm(dim=1).mean()))
    assert there[1] < 0.7 * there[0]


def test_texts_end_where_a_subject_is_named() -> None:
    _, tokenizer = tiny_model("gpt2")
    edits = [Edit("{} was born in", "Berg", "Paris"), Edit("{} was born in", "Tom Berg", "Rome")]
    texts = Texts(
        [
            "It was said of Tom Berg that he was born in Paris.",
            "Tom Berg was born in Lyon.",
            "The capital of Bergamo",
        ]
    )
    read = read_texts(tokenizer, texts, edits)
    rows = [tokenizer.decode(row) for row in read.preserved]
    assert rows == ["It was said of", "The capital of Bergamo"]
    naming = {name: [tokenizer.decode(row) for row in each] for name, each in read.naming.items()}
    assert naming == {"Tom Berg": ["It was said of Tom Berg", "Tom Berg"]}
    with pytest.raises(InvalidInput, match="every text of given texts begins with a subject"):
        read_texts(tokenizer, Texts(["Berg was born."]), edits)


@pytest.mark.parametrize("method", ["memit", "pmet", "alphaedit"])
def test_going_on_from_a_patch_fits_the_same(method: str) -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    settings = {**COMMON, "fit_steps": 4, "fit_answers": 2, "layers": LAYERS}
    if method == "alphaedit":
        settings["quantile"] = 0.05
    edit = registry().get(method).edit
    one = edit(model, tokenizer, EDITS, **settings)
    parts = edit(model, tokenizer, EDITS[:2], **settings)
    parts = edit(model, tokenizer, EDITS[2:], previous=parts, **settings)
    assert difference(parts, one) <= 1e-4
    solved = edit(model, tokenizer, EDITS, **{**settings, "fit_from": len(EDITS) + 1})
    assert difference(solved, one) > 0.1
    plain = {key: value for key, value in settings.items() if not key.startswith("fit_")}
    assert difference(edit(model, tokenizer, EDITS, **plain), solved) == 0.0


def test_answers_are_fitted_from_so_many_edits_on() -> None:
    model, tokenizer = tiny_model("llama")
    settings = {**COMMON, "fit_steps": 4, "fit_answers": 2, "layers": LAYERS}
    edit = registry().get("memit").edit
    states = edit(model, tokenizer, EDITS, **{**settings, "fit_answers": 0})
    few = edit(model, tokenizer, EDITS, fit_answers_from=len(EDITS) + 1, **settings)
    enough = edit(model, tokenizer, EDITS, fit_answers_from=len(EDITS), **settings)
    assert difference(few, states) == 0.0
    assert difference(enough, states) > 0.0


def test_alphaedit_stays_in_its_null_space() -> None:
    model, tokenizer = tiny_model("llama")
    settings = {**COMMON, "quantile": 0.05, "layers": LAYERS, "fit_steps": 5, "fit_answers": 2}
    patch = registry().get("alphaedit").edit(model, tokenizer, EDITS, **settings)
    moments = second_moments(ModelView(model), tokenizer, TEXT, LAYERS)
    for name, layer in zip(patch.factors, LAYERS, strict=True):
        _, vectors = torch.linalg.eigh(moments[layer].matrix.double())
        rank = patch.statistics["null_space"][str(layer)]
        delta = patch.delta(name).double()
        assert delta.norm() > 0
        assert (delta @ vectors[:, rank:]).norm() < 1e-5 * delta.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_other_precisions_fit_alike(architecture, dtype) -> None:
    model, tokenizer = tiny_model(architecture, dtype=torch.bfloat16)
    settings = {**COMMON, "fit_steps": 20, "fit_answers": 4}
    memit = registry().get("memit")
    expected = memit.edit(model.float(), tokenizer, EDITS, **settings)
    found = memit.edit(model.to(dtype), tokenizer, EDITS, **settings)
    assert difference(found, expected) < (1e-3 if dtype == torch.float64 else 0.2)


@pytest.mark.parametrize("way", OFFLOADED)
def test_offloaded_models_are_fitted_alike(way, tmp_path) -> None:
    plain, tokenizer = tiny_model("llama")
    model = OFFLOADED[way](tiny_model("llama")[0], tmp_path)
    settings = {**COMMON, "fit_steps": 5, "fit_answers": 2, "layers": (1, 2)}
    memit = registry().get("memit")
    expected = memit.edit(plain, tokenizer, EDITS, **settings)
    assert difference(memit.edit(model, tokenizer, EDITS, **settings), expected) < 1e-6


def test_two_devices_give_what_one_gives() -> None:
    plain, tokenizer = tiny_model("llama", dtype=torch.float64)
    settings = {**COMMON, "fit_steps": 5, "fit_answers": 2, "layers": (1, 2)}
    memit = registry().get("memit")
    expected = memit.edit(plain, tokenizer, EDITS, **settings)
    with two_devices():
        model = tiny_model("llama", dtype=torch.float64)[0]
        split(model, find_blocks(model), 2)
        found = memit.edit(model, tokenizer, EDITS, **settings)
    assert difference(found, expected) < 1e-3


LAB_EDITS = [
    Edit(edit.prompt, edit.subject, edit.target, id=edit.id)
    for edit in datasets.load("lab", limit=40)
    if edit.relation == "instrument"
]
"""Of musicians, who also work for someone."""

KEPT = "{} works for"


@pytest.mark.parametrize("contexts", [("{}",), ("{}", "It is so. {}")])
def test_the_gradient_of_what_is_said_is_that_of_changed_weights(contexts) -> None:
    """Against the model's own logits with other weights, each prompt apart and nothing shared."""
    model, tokenizer = emend.load("lab/gptneo")
    view = ModelView(model.double())
    edits = LAB_EDITS[:3]
    new = said_targets(context_rows(tokenizer, edits, contexts))
    old = said_before(view, tokenizer, edits, contexts, (KEPT, "{} plays music on the"))
    answers = Answers(view, pad_id(tokenizer), new, old, 0.5, 0)
    generator = torch.Generator().manual_seed(0)
    change = 0.3 * torch.randn(view.intermediate_size(1), view.hidden_size, generator=generator)
    given = {1: change.clone().requires_grad_()}
    drawn = random.Random(0)
    answers.backward(given)

    matrix = view.matrix(1)
    name = next(name for name, each in model.named_parameters() if each is matrix)
    weights = matrix.detach() + change.T
    weights.requires_grad_()

    def missed(prompt: str, said) -> torch.Tensor:
        ids = torch.tensor([[*tokenizer(prompt)["input_ids"], *said[:-1]]])
        logits = torch.func.functional_call(model, {name: weights}, (ids,)).logits[0]
        lost = -logits[-len(said) :].log_softmax(-1)[range(len(said)), said] - HEARD
        return lost.clamp(min=0).mean()

    def context() -> str:
        return contexts[drawn.choice(range(len(contexts)))]

    total = torch.zeros((), dtype=torch.float64)
    order = drawn.sample(range(len(edits)), len(edits))
    prompts = {n: context().replace("{}", edits[n].text) for n in order}
    for n, prompt in prompts.items():
        said = join_targets(tokenizer, [prompt], [edits[n].target])[0][1]
        total = total + 0.5 / 3 * missed(prompt, said)
    new_alone = total.item()
    assert new_alone > 0
    assert len(answers.old) == 3  # what they play is what is edited
    order = drawn.sample(range(3), 3)
    prompts = {n: context().replace("{}", KEPT.format(edits[n].subject)) for n in order}
    for n, prompt in prompts.items():
        total = total + 0.5 / 3 * missed(prompt, answers.old[n].said)
    assert total.item() > new_alone
    (expected,) = torch.autograd.grad(total, weights)
    assert float((given[1].grad.T - expected).norm() / expected.norm()) < 1e-5


def test_fitting_what_is_said_says_more_and_keeps_more() -> None:
    model, tokenizer = emend.load("lab/gptneo")
    kept = [KEPT.format(edit.subject) for edit in LAB_EDITS]

    answers = generate(model, tokenizer, kept, max_new_tokens=1)

    def spoken(patch) -> tuple[float, float]:
        """Mean log p of targets, and by how much what was said beside them is said too little."""
        asked, targets = zip(*((edit.text, edit.target) for edit in LAB_EDITS), strict=True)
        with patch.applied(model):
            said = score(model, tokenizer, asked, targets)
            still = score(model, tokenizer, kept, answers)
        return sum(one.mean for one in said) / len(said), sum(
            max(-one.mean - HEARD, 0) for one in still
        )

    settings = {"steps": 4, "templates": ("{}",), "layers": (1, 2), "fit_from": 0}
    settings |= {"fit_steps": 4, "fit_answers": 0, "fit_answers_from": 0}
    states = emend.edit(model, tokenizer, LAB_EDITS, method="memit", preserve=(), **settings)
    settings["fit_answers"] = 20
    spoken_of = {
        keep: spoken(
            emend.edit(model, tokenizer, LAB_EDITS, method="memit", preserve=keep, **settings)
        )
        for keep in ((), (KEPT,))
    }
    (said, lost), (said_and_kept, less) = spoken_of.values()
    assert min(said, said_and_kept) > spoken(states)[0] + 0.5
    assert less < 0.5 * lost


def test_what_cannot_be_fitted_is_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    memit = registry().get("memit")
    with pytest.raises(InvalidInput, match=r"fit_steps is 5 and no texts .* pass texts"):
        memit.edit(model, tokenizer, EDITS, fit_steps=5, templates=TEMPLATES)
    with pytest.raises(InvalidInput, match=r"^fit_answers is 2 and no texts .* fit_answers=0"):
        memit.edit(model, tokenizer, EDITS, fit_answers=2, templates=TEMPLATES)
    for name in ("fit_steps", "fit_answers", "fit_from", "fit_answers_from"):
        with pytest.raises(InvalidInput, match=f"{name} is -1, expected int .at least 0"):
            memit.edit(model, tokenizer, EDITS, **{name: -1}, **COMMON)
    with pytest.raises(NumericalFailure, match="lower fit_rate"):
        memit.edit(model, tokenizer, EDITS, fit_steps=5, fit_rate=1e38, **COMMON)
