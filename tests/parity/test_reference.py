"""The plain reference loop reproduces the recordings of the published ROME."""

from __future__ import annotations

import pytest
import torch
from tests.parity.recorded import NAMES, TAGS, Recorded, recorded, relative
from tests.reference import rome as reference


def run_of(name: str, tag: str) -> tuple[Recorded, reference.Rows, str, str]:
    facts = recorded(name)
    request = facts.runs[tag]["request"]
    prompt, subject = request["prompt"], request["subject"]
    target = request["target_new"]["str"]
    rows = reference.build_rows(facts.tokenizer, prompt, subject, target, facts.templates)
    return facts, rows, prompt, subject


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tag", TAGS)
def test_rows_are_the_recorded_rows(name: str, tag: str) -> None:
    facts, rows, _, _ = run_of(name, tag)
    run = facts.runs[tag]
    assert rows.attention_mask.tolist() == run["mask"]
    mask = torch.tensor(run["mask"])
    assert (rows.input_ids * mask).tolist() == (torch.tensor(run["ids"]) * mask).tolist()
    assert rows.labels.tolist() == run["rt"]
    assert rows.lookup == run["lookup"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tag", TAGS)
def test_value(name: str, tag: str) -> None:
    facts, rows, _, _ = run_of(name, tag)
    steps = 5 if tag.startswith("cov5") else 20
    found = reference.search_value(facts.model, facts.site, rows, steps=steps, clamp=3.0)
    assert relative(found.v_init, facts.tensor(tag, "v_init")) < 1e-5
    tolerance = 1e-5 if steps == 5 else 5e-4
    assert relative(found.v_star, facts.tensor(tag, "v_star")) < tolerance
    assert found.losses == pytest.approx(facts.runs[tag]["losses"], abs=2e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tag", TAGS)
def test_key_and_update(name: str, tag: str) -> None:
    facts, _, prompt, subject = run_of(name, tag)
    pairs = [
        reference.key_at_subject(
            facts.model, facts.site, facts.tokenizer, template.replace("{}", prompt), subject
        )
        for template in facts.templates
    ]
    key = torch.stack([pair[0] for pair in pairs]).mean(0)
    assert relative(key, facts.tensor(tag, "k_mean")) < 1e-5
    moment = None if tag.startswith("nocov") else facts.tensors["mom2_moment"]
    u, v = reference.rank_one(key, moment, facts.tensor(tag, "v_star"), *pairs[0])
    assert relative(u, facts.tensor(tag, "left_u")) < 5e-5
    assert relative(v, facts.tensor(tag, "right_v")) < 5e-4


@pytest.mark.parametrize("name", NAMES)
def test_second_moment(name: str) -> None:
    facts = recorded(name)
    found = reference.second_moment(facts.model, facts.site, facts.tokenizer, facts.texts)
    assert relative(found, facts.tensors["mom2_moment"]) < 1e-5
