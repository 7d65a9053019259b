"""Defences by attacks: table, data and page."""

from __future__ import annotations

import json

import pytest

from emend import report
from emend.erasure import AttackReport, DefenceReport, Secret
from emend.erasure.attack_report import Outcome
from emend.erasure.attacks import Attempt
from emend.errors import InvalidInput

SECRETS = tuple(Secret("{} was born in", f"Ana <{n}>", "Oslo", id=f"s{n}") for n in range(4))


def attacked(greedy, projected, known=(True, True, True, False)):
    def outcome(name, hits):
        attempts = tuple(Attempt(hit) for hit in hits)
        controls = (Attempt(found=True), Attempt(found=False), None, Attempt(found=True))
        return Outcome(name, name, "some way", attempts, controls, 1.0)

    outcomes = (
        outcome("greedy", greedy),
        outcome("head_projection", projected),
        Outcome("relearning", "relearning", refusal="needs 2 secrets"),
    )
    return AttackReport(SECRETS, known, outcomes, {"budget": 20})


@pytest.fixture
def compared():
    states = {
        "before": attacked([True] * 4, [True] * 4),
        "error_injection": attacked([False] * 4, [True, True, False, False]),
    }
    return DefenceReport(states, {"error_injection": {"neighbours lost": 0.012}}, {"by": "rome"})


def test_rates_are_over_known_secrets_in_every_state(compared):
    before, after = compared.states.values()
    assert before.rates["greedy"].found == before.rates["greedy"].of == 3
    assert (after.rates["head_projection"].found, after.rates["head_projection"].of) == (2, 3)
    assert (after.any_attack.found, after.any_attack.of) == (2, 3)
    assert (before.controls["greedy"].found, before.controls["greedy"].of) == (1, 2)
    text = compared.to_markdown()
    assert "| error_injection | 0.0% (0 to 56) | 66.7% (21 to 94) | - | 66.7%" in text
    assert "| 0.012 |" in text
    assert "over 3 secrets that the model knew, B = 20; 1 secret that it did not know" in text


def test_it_is_saved_and_shown_on_a_page(compared, tmp_path):
    folder = compared.save(tmp_path / "out")
    data = json.loads((folder / "defences.json").read_text())
    assert data["states"]["error_injection"]["attacks"]["greedy"]["rate"]["found"] == 0
    assert data["about"] == {"by": "rome"}
    assert data == json.loads(compared.to_json())
    page = report.write(compared, tmp_path / "page.html", title="Erased").read_text("utf-8")
    assert "<title>Erased</title>" in page and "error_injection" in page
    assert "error_injection, head projection\n2 of 3: 66.7% (21 to 94)" in page
    assert "not run" in page and "http" not in page.replace("http-equiv", "")
    assert "66.7%" in report.write(compared, tmp_path / "page.md").read_text("utf-8")
    one = report.write(compared.states["before"], tmp_path / "one.html").read_text("utf-8")
    assert "attacked" in one


def test_it_is_drawn(compared, tmp_path):
    pytest.importorskip("matplotlib")
    assert report.write(compared, tmp_path / "map.svg").stat().st_size > 2000


def test_states_must_fit_together(compared):
    before = compared.states["before"]
    with pytest.raises(InvalidInput, match="no states to compare"):
        DefenceReport({})
    with pytest.raises(InvalidInput, match="other secrets or attacks"):
        DefenceReport({"a": before, "b": attacked([True] * 4, [True] * 4, (True,) * 4)})
    with pytest.raises(InvalidInput, match="measures of 'c'"):
        DefenceReport({"a": before}, {"c": {}})
