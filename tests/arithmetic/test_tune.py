"""The scale by the published rules, resumed after a kill, and drawn."""

from __future__ import annotations

import json
import math
import os
import signal

import pytest
import torch
from tests.arithmetic.checkpoints import save_base, save_tuned
from tests.tiny import tiny_model

from emend.arithmetic import Measure, load_vector, scaled, tune, vector
from emend.errors import InvalidInput, NumericalFailure
from emend.models import load
from emend.patches import LowRank, WeightPatch, describe_base
from emend.report import terminal, write

MODULE = "model.layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")[0]


@pytest.fixture(scope="module")
def patch(model):
    out, inner = model.get_submodule(MODULE).weight.shape
    generator = torch.Generator().manual_seed(0)
    factor = LowRank(
        torch.randn(2, inner, generator=generator), torch.randn(out, 2, generator=generator)
    )
    return WeightPatch(factors={MODULE: factor}, edits=(), method="test", base=describe_base(model))


@pytest.fixture
def applied(model, patch):
    """A function that reads the scale back from what the model computes."""
    ids = torch.arange(6)[None]
    with torch.no_grad():
        zero = model(ids).logits
        with patch.applied(model):
            one = model(ids).logits

    def scale(network):
        with torch.no_grad():
            now = network(ids).logits
        return float((now - zero).norm() / (one - zero).norm())

    return scale


def constant(name, value):
    return Measure(name, lambda model: value)


def test_the_model_has_the_scaled_vector_while_it_is_measured(model, patch, applied):
    found = tune(model, patch, goal="addition", targets=[Measure("scale", applied)])
    assert [point.scale for point in found.points] == [round(0.05 * n, 2) for n in range(21)]
    assert found.points[0].targets["scale"] == 0.0
    assert found.points[-1].targets["scale"] == pytest.approx(1.0)
    assert found.scale == max(found.points, key=lambda one: one.targets["scale"]).scale
    assert applied(model) == 0.0  # nothing is left attached


def test_negation_takes_the_largest_scale_within_the_bound(model, patch, applied):
    falls = Measure("accuracy", lambda network: 0.8 - 0.1 * applied(network) ** 2)
    found = tune(model, patch, goal="negation", targets=[], control=falls)
    assert found.bound == pytest.approx(0.95 * 0.8)
    kept = [one.scale for one in found.points if one.control >= 0.95 * 0.8]
    assert found.scale == max(kept)
    assert 0 < found.scale < 1
    rises = Measure("perplexity", lambda network: 20 + applied(network), lower_is_better=True)
    found = tune(model, patch, goal="negation", targets=[], control=rises)
    assert found.bound == pytest.approx(20.5)
    assert found.chosen.control <= 20.5
    tight = tune(model, patch, goal="negation", targets=[], control=rises, bound=19.0)
    assert tight.scale == 0.0  # no scale is within: nothing is forgotten


def test_addition_takes_the_best_mean_within_a_bound_that_is_given(model, patch, applied):
    best = Measure("a", lambda network: applied(network))
    rises = Measure("perplexity", lambda network: 20 + applied(network), lower_is_better=True)
    given = {"goal": "addition", "targets": [best], "control": rises, "scales": [0.2, 0.4, 1.0]}
    free = tune(model, patch, **given)
    assert (free.scale, free.bound) == (max(free.points, key=lambda one: one.control).scale, None)
    second = sorted(one.control for one in free.points)[-2]
    bounded = tune(model, patch, **given, bound=second)
    assert (bounded.chosen.control, bounded.bound) == (second, second)
    assert bounded.scale != free.scale
    assert tune(model, patch, **given, bound=19.0).scale == 0.0
    with pytest.raises(InvalidInput, match="there is no control metric"):
        tune(model, patch, goal="addition", targets=[best], bound=20.5)


def test_addition_takes_the_best_mean(model, patch, applied):
    peak = Measure("a", lambda network: 1 - (applied(network) - 0.3) ** 2)
    flat = constant("b", 0.5)
    found = tune(model, patch, goal="addition", targets=[peak, flat], scales=[0.1, 0.3, 0.9])
    scales = {one.scale: one.targets["a"] for one in found.points}
    assert [*scales] == [0.0, 0.1, 0.3, 0.9]
    assert found.scale == max(scales, key=lambda one: scales[one])
    low = Measure("p", lambda network: 5 + abs(applied(network) - 0.3), lower_is_better=True)
    assert tune(model, patch, goal="addition", targets=[low], scales=[0.3, 0.9]).scale in scales


def test_a_dense_vector_is_measured_and_the_base_is_put_back(tmp_path):
    base = save_base(tmp_path / "base", dtype=torch.bfloat16)
    vector(base, save_tuned(base, tmp_path / "tuned", 1), tmp_path / "v")
    model, _ = load(str(base))
    before = {name: one.clone() for name, one in model.state_dict().items()}
    ids = torch.arange(6)[None]
    with torch.no_grad():
        own = model(ids).logits
    moved = Measure("moved", lambda network: float((network(ids).logits - own).norm()))
    with torch.no_grad():
        found = tune(
            model, load_vector(tmp_path / "v"), goal="addition", targets=[moved], scales=[0.5, 1]
        )
    assert found.points[0].targets["moved"] == 0.0
    assert found.points[2].targets["moved"] > 0
    assert all(torch.equal(model.state_dict()[name], one) for name, one in before.items())
    with pytest.raises(RuntimeError), scaled(model, load_vector(tmp_path / "v"), 1.0):
        raise RuntimeError  # also where the block fails
    assert all(torch.equal(model.state_dict()[name], one) for name, one in before.items())


def test_a_log_is_gone_on_from_and_not_mixed_up(model, patch, tmp_path):
    asked = []

    def counted(name):
        return Measure(name, lambda network: asked.append(1) or 0.5, identity="data 1")

    log = {"scales": [0.5, 1.0], "log_path": tmp_path / "log.jsonl"}
    tune(model, patch, goal="addition", targets=[counted("a")], **log)
    assert len(asked) == 3
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    (tmp_path / "log.jsonl").write_text("\n".join([*lines[:2], lines[2][:10]]))  # cut short
    tune(model, patch, goal="addition", targets=[counted("a")], **log)
    assert len(asked) == 4
    tune(model, patch, goal="addition", targets=[counted("b")], **log)  # another metric
    assert len(asked) == 7
    tune(model, 2 * patch, goal="addition", targets=[counted("a")], **log)  # another vector
    assert len(asked) == 10


def test_a_killed_run_goes_on_from_its_next_point(model, patch, tmp_path):
    calls = []

    def run(kill_at):
        def of(network):
            calls.append(1)
            if len(calls) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return float(len(calls))

        return tune(
            model,
            patch,
            goal="addition",
            targets=[Measure("calls", of)],
            scales=[0.25, 0.5, 0.75, 1.0],
            log_path=tmp_path / "log.jsonl",
        )

    child = os.fork()
    if not child:
        run(4)
        os._exit(1)  # never reached
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3
    found = run(0)
    assert len(calls) == 2  # two points were left
    assert [point.targets["calls"] for point in found.points] == [1.0, 2.0, 3.0, 1.0, 2.0]


def test_what_makes_no_sense_is_refused(model, patch):
    one = constant("a", 1.0)
    for given, said in [
        ({"goal": "forget", "targets": [one]}, "goal is 'forget'"),
        ({"goal": "negation", "targets": [one]}, "no control metric"),
        ({"goal": "addition", "targets": []}, "no target metric"),
        ({"goal": "addition", "targets": [one, one]}, "two metrics are named a"),
        ({"goal": "addition", "targets": [one], "scales": [0.0]}, "one of them positive"),
        ({"goal": "addition", "targets": [one], "scales": [math.inf]}, "finite"),
    ]:
        with pytest.raises(InvalidInput, match=said):
            tune(model, patch, **given)
    with pytest.raises(NumericalFailure, match="no scale has target metrics"):
        tune(model, patch, goal="addition", targets=[constant("a", math.nan)], scales=[1])


@pytest.mark.parametrize("suffix", ["html", "svg", "md", "json"])
def test_a_tuned_scale_is_drawn(model, patch, applied, tmp_path, suffix):
    control = Measure("perplexity", lambda network: 20 + applied(network), lower_is_better=True)
    found = tune(model, patch, goal="negation", targets=[Measure("rude", applied)], control=control)
    path = write(found, tmp_path / f"curve.{suffix}")
    text = path.read_text()
    if suffix == "json":
        assert json.loads(text)["scale"] == found.scale
    else:
        assert "rude" in text or suffix == "svg"  # matplotlib draws text as paths
    assert len(terminal(found).renderables) == 1
