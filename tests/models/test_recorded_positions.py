"""Tokens and lookup positions are those the published ROME used on the recorded models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emend.models import ModelView, encode, join_target, load
from emend.models.positions import pad

PARITY = Path(__file__).parents[2].parent / "shared" / "parity"

pytestmark = pytest.mark.skipif(
    not PARITY.is_dir(), reason="the recorded outputs (../shared/parity) are not beside the clone"
)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_rows_and_lookup(name):
    model, tokenizer = load(PARITY / name)
    recorded = json.loads((PARITY / f"{name}_float32.json").read_text())
    assert recorded["runs"]
    view = ModelView(model)
    for run in recorded["runs"]:
        request = run["request"]
        assert f"{view.name_of(view.down_projection(2))}.weight" == run["weight"]
        templates = [context.format(request["prompt"]) for context in recorded["contexts"]]
        templates.append(recorded["kl_prompt"])
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
