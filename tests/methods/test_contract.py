"""What every registered method keeps to: the model is left as it was, and errors are clear."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
import torch
from tests.methods.hypernetwork import trained
from tests.tiny import tiny_model

from emend._signature import setting_texts
from emend.edits import Edit
from emend.errors import EmendError, InvalidInput, NumericalFailure, SubjectNotFound, UnknownName
from emend.methods import registry
from emend.models import score
from emend.patches import load_patch

NAMES = registry().names()
ARCHITECTURES = ("gpt2", "gpt_neo", "llama", "gemma2")
# Where outputs are as small as a tiny model's, the penalty outweighs all else.
SHORT = {"templates": ("{}", "Yes. {}"), "steps": 6, "ablation": {"norm_penalty": 0.0}}
FAST = {
    "rome": SHORT,
    "grace": {"steps": 10},
    "wise": {"steps": 30, "learning_rate": 100.0},
    "ft": {"steps": 3},
    "dinm": {"steps": 20},
    "kn": {"steps": 4},
    "lora": {"steps": 3},
    "memit": SHORT,
    "pmet": SHORT,
    "emmet": SHORT,
    "alphaedit": {**SHORT, "quantile": 0.05},
    "ike": {"k": 0},
    "mello": {"examples": "none", "new_tokens": 4},
}
LONG = {"mello": {"positions": 256}}
"""Methods whose prompts are longer than a tiny model reads."""
SAID = ("Paris", "French", "in Berlin")
EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris"),
    Edit("The mother tongue of {} is", "Tom Berg", "French", id="second"),
]


def fast(name: str, model: torch.nn.Module) -> dict[str, object]:
    """Settings by which a method takes little time; of a hypernetwork, a trained one."""
    if name in trained.STATED:
        state = trained.trained_state(name, model.config.model_type)
        return {"state": state, "allow_other_base": True}
    return FAST.get(name, {})


def fingerprint(model: torch.nn.Module) -> dict[str, str]:
    """Bytes of every parameter and buffer, those that are not saved among them."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        name: hashlib.sha256(
            tensor.detach().reshape(-1).contiguous().view(torch.uint8).numpy()
        ).hexdigest()
        for name, tensor in tensors.items()
    }


def state(model: torch.nn.Module) -> tuple[object, ...]:
    """What else must come back: gradient flags, modes, hooks, gradients."""
    return (
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad is None for parameter in model.parameters()],
        [module.training for module in model.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        sorted(set(vars(model)) - {"_modules"}),
    )


def answers(model, tokenizer) -> torch.Tensor:
    """Log-probabilities of some targets, asked through the door that all kinds of patches share."""
    prompts = [edit.text for edit in EDITS for _ in SAID]
    scores = score(model, tokenizer, prompts, list(SAID) * len(EDITS))
    return torch.tensor([value for each in scores for value in each.log_probs])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_model_is_left_as_it_was(name, architecture, tmp_path) -> None:
    model, tokenizer = tiny_model(architecture, **LONG.get(name, {}))
    model.get_input_embeddings().weight.requires_grad_(False)
    before, around, clean = fingerprint(model), state(model), answers(model, tokenizer)
    generator = torch.get_rng_state()
    patch = registry().get(name).edit(model, tokenizer, EDITS, **fast(name, model))
    assert torch.equal(torch.get_rng_state(), generator)
    assert fingerprint(model) == before
    assert state(model) == around
    with patch.applied(model):
        edited = answers(model, tokenizer)
        assert fingerprint(model) == before
    assert not torch.allclose(edited, clean, atol=1e-4)
    assert torch.equal(answers(model, tokenizer), clean)
    assert fingerprint(model) == before
    assert state(model) == around
    loaded = load_patch(patch.save_pretrained(tmp_path / "patch"))
    with loaded.applied(model):
        again = answers(model, tokenizer)
    assert (again - edited).abs().max() <= 1e-5 * edited.abs().max()
    assert [edit.id for edit in loaded.edits] == [edit.id for edit in EDITS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_model_is_left_as_it_was_after_an_exception(name, error) -> None:
    model, tokenizer = tiny_model("llama")
    before, around = fingerprint(model), state(model)
    calls = 0

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > count // 2:
            raise error

    count = 10**9
    handle = model.model.layers[-1].register_forward_hook(fail)
    registry().get(name).edit(model, tokenizer, EDITS, **fast(name, model))
    count, calls = calls, 0
    with pytest.raises(error):
        registry().get(name).edit(model, tokenizer, EDITS, **fast(name, model))
    handle.remove()
    assert fingerprint(model) == before
    assert state(model) == around


@pytest.mark.parametrize("name", NAMES)
def test_training_mode_comes_back(name) -> None:
    model, tokenizer = tiny_model("gpt2", **LONG.get(name, {}))
    model.train()
    around = state(model)
    patch = registry().get(name).edit(model, tokenizer, EDITS, **fast(name, model))
    assert state(model) == around
    model.eval()
    again = registry().get(name).edit(model, tokenizer, EDITS, **fast(name, model))
    with patch.applied(model):
        first = answers(model, tokenizer)
    with again.applied(model):
        assert torch.equal(answers(model, tokenizer), first)


@pytest.mark.parametrize("name", NAMES)
def test_bad_requests_are_refused(name) -> None:
    model, tokenizer = tiny_model("gpt2")
    method = registry().get(name)
    with pytest.raises(InvalidInput, match="no edits"):
        method.edit(model, tokenizer, [])
    with pytest.raises(InvalidInput, match="two edits have the id"):
        method.edit(model, tokenizer, [EDITS[0], EDITS[0]])
    with pytest.raises(InvalidInput, match="expected emend"):
        method.edit(model, tokenizer, ["Marie Curie was born in"])
    with pytest.raises(UnknownName, match="stepps"):
        method.edit(model, tokenizer, EDITS, stepps=3)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_subject_is_refused(name) -> None:
    model, tokenizer = tiny_model("gpt2", tokenizer="metaspace")
    unknown = Edit("{} was born in", "\u200b", "Paris")
    with pytest.raises(SubjectNotFound):
        registry().get(name).edit(model, Deaf(tokenizer), [unknown], **fast(name, model))


class Deaf:
    """A tokenizer that makes no token of zero-width spaces."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __len__(self):
        return len(self.tokenizer)

    def __call__(self, texts, **options):
        spoken = [texts] if isinstance(texts, str) else list(texts)
        found = self.tokenizer([text.replace("\u200b", "x") for text in spoken], **options)
        for text, offsets in zip(spoken, found.get("offset_mapping", ()), strict=False):
            for index, (start, end) in enumerate(offsets):
                if "\u200b" in text[start:end]:
                    offsets[index] = (end, end)
        return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_never_leaves_a_method(name, bad) -> None:
    model, tokenizer = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[-1].mlp.up_proj.weight[0, 0] = bad
    before = state(model)
    with pytest.raises(NumericalFailure) as caught:
        registry().get(name).edit(model, tokenizer, EDITS, **fast(name, model))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, EmendError)
    assert state(model) == before


@pytest.mark.parametrize("name", NAMES)
def test_nan_that_comes_late_never_leaves_a_method(name) -> None:
    model, tokenizer = tiny_model("llama")
    grown = 0.0

    def grow(_module, _args, output):
        nonlocal grown
        grown += 1
        return output * float("nan") if grown > late else output

    method, settings = registry().get(name), fast(name, model)
    if name in ("ike", "mello", "serac"):
        pytest.skip("reads the model once and keeps no numbers of it")
    late = 8 if "steps" in {field.name for field in dataclasses.fields(method.config_type)} else 2
    if late > 2:
        settings = {**settings, "steps": 20}
    model.model.norm.register_forward_hook(grow)
    with pytest.raises(NumericalFailure):
        method.edit(model, tokenizer, EDITS, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_method_describes_itself(name) -> None:
    method = registry().get(name)
    assert method.name == name
    assert method.title
    assert method.when
    assert method.paper
    assert dataclasses.is_dataclass(method.config_type)
    config = method.config_type()
    documented = setting_texts(method.config_type)
    for field in dataclasses.fields(method.config_type):
        assert documented.get(field.name), f"{field.name} has no docstring under it"
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field.name, None)


TRAINED = ("ke", "malmen", "mend", "serac")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TRAINED])
def test_a_text_longer_than_the_context_is_refused_in_one_line(name):
    """Fault 21: siblings of it; models with a table of positions raised a raw IndexError."""
    model, tokenizer = tiny_model("gpt2", layers=3, positions=48)
    long = Edit("Marie Curie went on " * 20 + "{} was born in", "Marie Curie", "Lyon")
    with pytest.raises(InvalidInput, match="for a model that reads 48"):
        registry().get(name).edit(model, tokenizer, [long], **fast(name, model))
