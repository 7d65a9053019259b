"""Tokens and lookup positions are those the published ROME used on the recorded models."""

from __future__ import annotations

import pytest
from tests.parity.recorded import LAYER, NAMES, SITES, recorded

from emend.models import ModelView, encode, join_target
from emend.models.positions import pad


@pytest.mark.parametrize("name", NAMES)
def test_rows_and_lookup(name):
    facts = recorded(name)
    tokenizer = facts.tokenizer
    view = ModelView(facts.model)
    assert view.name_of(view.down_projection(LAYER)) == SITES[name]
    assert facts.runs
    for run in facts.runs.values():
        request = run["request"]
        templates = [context.format(request["prompt"]) for context in facts.templates]
        templates.append("{} is a")  # of the KL term
        texts = [template.format(request["subject"]) for template in templates]
        spans = [
            (start := template.index("{}"), start + len(request["subject"]))
            for template in templates
        ]
        assert encode(tokenizer, texts, spans).lookup.tolist() == run["lookup"]
        rows = [
            join_target(tokenizer, text, request["target_new"]["str"].strip())
            for text in texts[:-1]
        ]
        assert all(target == run["target_ids"] for _, target in rows)
        joined = pad([[*prompt, *target[:-1]] for prompt, target in rows])
        width = joined.input_ids.shape[1]
        for ids, mask, row in zip(
            joined.input_ids, joined.attention_mask, run["ids"][:-1], strict=True
        ):
            count = int(mask.sum())
            assert ids[:count].tolist() == row[:count]
        assert [sum(mask) for mask in run["mask"][:-1]] == joined.lengths.tolist()
        assert width <= len(run["ids"][0])
