"""The networks: identity at first, factors of the right edits, and what they are told."""

from __future__ import annotations

import pytest
import torch
from tests.methods.hypernetwork.trained import NAMES, TRAINING, settings
from tests.tiny import tiny_model

from emend.editing import context_rows
from emend.errors import InvalidInput, UnknownName
from emend.methods.hypernetwork._editing_network import EditingNetworks, ResidualLayer
from emend.methods.hypernetwork._network import Factors, edited, networks, read_edits_for
from emend.methods.hypernetwork._training import edited_shapes
from emend.methods.hypernetwork.ke import Conditioner
from emend.models import ModelView


def built(name: str, architecture: str = "llama", **changes):
    """(network that has seen its edits, view, reading)."""
    model, tokenizer = tiny_model(architecture)
    view = ModelView(model)
    shapes = edited_shapes(view, None)
    network = networks().get(name)(shapes, view.hidden_size, settings(name, **changes))
    rows = [each[0] for each in context_rows(tokenizer, TRAINING, ["{}"])]
    reading = read_edits_for(network, view, tokenizer, TRAINING, rows)
    network.observe(reading)
    return network, view, reading


def test_there_are_three() -> None:
    assert networks().names() == list(NAMES)
    with pytest.raises(UnknownName, match="did you mean 'mend'"):
        networks().get("mendd")


def test_layers_begin_as_the_identity_and_can_learn() -> None:
    layer = ResidualLayer(6, 3, 2, torch.Generator().manual_seed(0))
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(layer(x, 1), x)
    layer(x, 1).square().sum().backward()
    assert layer.U.grad is not None and float(layer.U.grad.norm()) > 0


def test_matrices_of_one_shape_share_a_network() -> None:
    shapes = {"a.up": (8, 4), "a.down": (4, 8), "b.up": (8, 4), "b.down": (4, 8)}
    editing = EditingNetworks(shapes, rank=2, seed=0)
    assert len(editing.networks) == 2
    assert editing.places["a.up"][0] == editing.places["b.up"][0]
    assert editing.places["a.up"][1] != editing.places["b.up"][1]


def test_mend_begins_with_normalised_gradients() -> None:
    network, _, reading = built("mend")
    name = next(iter(network.shapes))
    found, gradients = network(reading)[name], reading.gradients[name]
    shape = network.shapes[name]
    others = [n for n, each in network.shapes.items() if each == shape]
    rows = [torch.cat([reading.gradients[n].inputs, reading.gradients[n].gradients], 1)
            for n in others]  # fmt: skip
    every = torch.cat(rows).double()
    own = torch.cat([gradients.inputs, gradients.gradients], 1).double()
    normal = ((own - every.mean(0)) / every.std(0, correction=0)).float()
    assert torch.allclose(found.inputs, normal[:, : shape[1]], atol=1e-4)
    step = network.calibration[0]
    assert torch.allclose(found.outputs, -step * normal[:, shape[1] :], atol=1e-4)


def test_mend_treats_each_edit_apart() -> None:
    """The factors of an edit do not depend on the others it is edited with."""
    network, view, reading = built("mend")
    _, tokenizer = tiny_model("llama")
    rows = [each[0] for each in context_rows(tokenizer, TRAINING[:1], ["{}"])]
    alone = network(read_edits_for(network, view, tokenizer, TRAINING[:1], rows))
    for name, factors in network(reading).items():
        own = factors.rows == 0
        assert torch.allclose(factors.inputs[own], alone[name].inputs, atol=1e-4)
        assert torch.allclose(factors.outputs[own], alone[name].outputs, atol=1e-4)


def test_malmen_solves_the_ridge_regression() -> None:
    network, _, reading = built("malmen")
    name = list(network.shapes)[-1]
    with torch.no_grad():
        network.ridge.fill_(-1.0)
        factors = network(reading)[name]
        inputs, deltas = network.editing(name, reading.gradients[name])
    given = reading.gradients[name].inputs.double()
    number = list(network.shapes).index(name)
    step = float((network.step[number] * network.calibration[number]).detach())
    wanted = -step * (given * inputs).sum(1, keepdim=True) * deltas
    system = given.T @ given + torch.exp(torch.tensor(-1.0)) * torch.eye(given.shape[1])
    expected = torch.linalg.solve(system, given.T @ wanted.double()).T
    found = (factors.outputs.T @ factors.inputs).double()
    assert float((found - expected).norm() / expected.norm()) < 1e-4


def test_ke_masks_the_gradient_and_adds_an_offset() -> None:
    network, _, reading = built("ke")
    name = next(iter(network.shapes))
    with torch.no_grad():
        factors = network(reading)[name]
        mask, beta, gamma, zeta, gate = network.conditioners[0](network._summary(reading))
    gradients = reading.gradients[name]
    for edit in range(len(TRAINING)):
        own = gradients.rows == edit
        pairs = gradients.gradients[own]
        whole = pairs.T @ gradients.inputs[own] / pairs.norm()
        expected = whole * torch.outer(mask[edit], beta[edit]) + torch.outer(
            gamma[edit], zeta[edit]
        )
        chosen = factors.rows == edit
        found = factors.outputs[chosen].T @ factors.inputs[chosen]
        assert torch.allclose(found, network.size[0] * gate[edit] * expected, atol=1e-5)


def test_ke_begins_as_descent() -> None:
    conditioner = Conditioner((3, 5), 4, 2)
    mask, beta, gamma, zeta, gate = conditioner(torch.zeros(2, 4))
    assert torch.allclose(mask, torch.ones(2, 3), atol=0.5)
    assert bool((beta < 0).all())
    assert torch.allclose(gamma.sum(1), torch.ones(2))
    assert zeta.shape == (2, 5) and gate.shape == (2, 1)


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "falcon", "gemma2"])
def test_each_row_is_run_with_its_own_edit(architecture) -> None:
    """Against the change put into the weights, on Conv1D, folded and in-place models too."""
    model, _ = tiny_model(architecture)
    view = ModelView(model)
    shapes = edited_shapes(view, (1, 2))
    generator = torch.Generator().manual_seed(0)
    factors = {
        name: Factors(
            torch.randn(4, shape[1], generator=generator) * 0.1,
            torch.randn(4, shape[0], generator=generator) * 0.1,
            torch.tensor([0, 0, 1, 1]),
        )
        for name, shape in shapes.items()
    }
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 8]])
    with torch.no_grad(), edited(view, factors, torch.tensor([1, 0])):
        found = model(ids).logits
    for row, edit in enumerate((1, 0)):
        model, _ = tiny_model(architecture)
        with torch.no_grad():
            for name, each in factors.items():
                own = each.rows == edit
                delta = each.outputs[own].T @ each.inputs[own]
                weight = model.get_submodule(name).weight
                weight += delta if isinstance(model.get_submodule(name), torch.nn.Linear) else (
                    delta.T
                )  # fmt: skip
            expected = model(ids[:1]).logits[0]
        assert torch.allclose(found[row], expected, atol=1e-4)


def test_blocks_are_checked() -> None:
    view = ModelView(tiny_model("gpt2")[0])
    assert len(edited_shapes(view, None)) == 6
    with pytest.raises(InvalidInput, match="take some from 0 to 3"):
        edited_shapes(view, (4,))
