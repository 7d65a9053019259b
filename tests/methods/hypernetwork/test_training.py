"""Training: it learns, goes on after a kill, and its states are checked before they are used."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from tests.methods.hypernetwork.trained import NAMES, TRAINING, settings, trained_state
from tests.tiny import tiny_model

from emend.edits import Edit
from emend.errors import BrokenFile, InvalidInput, MissingFile
from emend.methods import lab_split, registry
from emend.methods._trainers import FIRST, TESTED
from emend.methods._training import state_directory
from emend.methods.hypernetwork._network import load_network
from emend.methods.hypernetwork._training import draw_episode, train
from emend.patches import describe_base


def run(directory, *, name="mend", steps=4, **changes):
    model, tokenizer = tiny_model("llama")
    chosen = settings(name, steps=steps, **changes)
    seen: list = []
    train(name, model, tokenizer, TRAINING[:3], TRAINING[3:], directory, chosen, report=seen.append)
    return seen


def weights(directory):
    from safetensors.torch import load_file

    return load_file(directory / "checkpoint.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_model_is_left_as_it_was_and_no_seed_is_set(name, tmp_path) -> None:
    model, tokenizer = tiny_model("llama")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    train(name, model, tokenizer, TRAINING[:3], TRAINING[3:], tmp_path, settings(name))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_loss_falls(name, tmp_path) -> None:
    rates = {} if name == "ke" else {"edit_weight": 10.0}
    seen = run(tmp_path, name=name, steps=20, validate_every=5, learning_rate=1e-2, **rates)
    assert seen[-1].loss < 0.9 * seen[0].loss, [each.loss for each in seen]


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_after_a_kill_as_if_there_had_been_none(name, tmp_path) -> None:
    run(tmp_path / "whole", name=name, steps=4)
    run(tmp_path / "parts", name=name, steps=2)
    seen = run(tmp_path / "parts", name=name, steps=4)
    assert [each.step for each in seen] == [3, 4]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        assert torch.allclose(value.double(), parts[key].double(), atol=1e-6), key


def test_an_ended_training_called_again_says_what_was_kept(tmp_path) -> None:
    first = run(tmp_path, steps=2)
    model, tokenizer = tiny_model("llama")
    again = train(
        "mend", model, tokenizer, TRAINING[:3], TRAINING[3:], tmp_path, settings("mend", steps=2)
    )
    assert again in first


def test_other_settings_are_not_taken_for_the_same_training(tmp_path) -> None:
    run(tmp_path, steps=1)
    with pytest.raises(InvalidInput, match="with other settings"):
        run(tmp_path, steps=1, rank=3)


def test_other_edits_are_not_taken_for_the_same_training(tmp_path) -> None:
    """Fault 6, its kind: a training went on with other data under the same key."""
    run(tmp_path, steps=1)
    model, tokenizer = tiny_model("llama")
    with pytest.raises(InvalidInput, match="of other edits"):
        train("mend", model, tokenizer, TRAINING[:2], TRAINING[3:], tmp_path, settings("mend"))


def test_training_stops_early(tmp_path) -> None:
    seen = run(tmp_path, steps=40, patience=2, learning_rate=1e-10)
    assert len(seen) < 10


def test_nothing_to_train_on_is_refused(tmp_path) -> None:
    model, tokenizer = tiny_model("llama")
    with pytest.raises(InvalidInput, match="0 edits to train on"):
        train("mend", model, tokenizer, [], TRAINING, tmp_path, settings("mend"))


def test_untrained_refuses_to_edit_and_says_how_to_train() -> None:
    model, tokenizer = tiny_model("gpt2")
    for settings_ in ({}, {"state": "nowhere/"}):
        with pytest.raises(MissingFile, match="emend train --method mend") as caught:
            registry().get("mend").edit(model, tokenizer, TRAINING, **settings_)
        assert "\n" not in str(caught.value)


def test_state_of_another_model_is_refused() -> None:
    state = trained_state("mend", "gpt2")
    model, tokenizer = tiny_model("gpt2", seed=1)
    with pytest.raises(InvalidInput, match="hash"):
        registry().get("mend").edit(model, tokenizer, TRAINING, state=state)
    patch = (
        registry().get("mend").edit(model, tokenizer, TRAINING, state=state, allow_other_base=True)
    )
    assert patch.rank > 0


def test_state_of_another_method_or_broken_is_refused(tmp_path) -> None:
    model, tokenizer = tiny_model("gpt2")
    with pytest.raises(InvalidInput, match="expected one of 'ke'"):
        registry().get("ke").edit(model, tokenizer, TRAINING, state=trained_state("mend", "gpt2"))
    broken = tmp_path / "broken"
    shutil.copytree(trained_state("mend", "gpt2"), broken)
    file = broken / "hypernetwork.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(BrokenFile, match="train the network again"):
        registry().get("mend").edit(model, tokenizer, TRAINING, state=str(broken))


def test_saved_network_is_the_trained_one(tmp_path) -> None:
    run(tmp_path, steps=2)
    model, _ = tiny_model("llama")
    network = load_network(tmp_path, "mend", describe_base(model))
    card = json.loads((tmp_path / "hypernetwork.json").read_text())
    assert card["method"] == "mend" and card["settings"]["rank"] == 4
    if card["validation"]["step"] == 2:
        for key, value in network.state_dict().items():
            kept = weights(tmp_path)[f"network.{key}"]
            assert torch.allclose(value.float(), kept.float(), rtol=1e-2, atol=1e-6)


def test_a_models_own_directory_is_looked_at(tmp_path) -> None:
    model, _ = tiny_model("gpt2")
    shutil.copytree(trained_state("mend", "gpt2"), tmp_path / "mend")
    model.config._name_or_path = str(tmp_path)
    assert state_directory("mend", model, None) == tmp_path / "mend"


def test_episode_holds_what_must_change_and_what_must_not() -> None:
    _, tokenizer = tiny_model("gpt2")
    episode = draw_episode(tokenizer, TRAINING[:2], 2, random.Random(0))
    assert episode.asked_of == [0, 1, 0, 1]  # its own words, then a rewording
    assert episode.locality_of == [0, 1]
    bare = [Edit(edit.prompt, edit.subject, edit.target) for edit in TRAINING[:2]]
    episode = draw_episode(tokenizer, bare, 2, random.Random(0))
    assert episode.asked_of == [0, 1]
    assert episode.locality_of == [0, 1]  # each keeps what the other is about


@pytest.mark.slow
def test_lab_split_shares_no_subject() -> None:
    from emend import datasets

    training, validation = lab_split(draws=1)
    tested = {
        edit.subject for seed in TESTED for edit in datasets.load("lab", limit=FIRST, seed=seed)
    }
    subjects = {edit.subject for edit in training}, {edit.subject for edit in validation}
    assert len(training) > 1000 and len(validation) == 60
    assert not subjects[0] & subjects[1]
    assert not tested & (subjects[0] | subjects[1])
