from __future__ import annotations

import json
import math

import pytest
import torch
from tests.tiny import tiny_model

from emend.errors import InvalidInput, UnknownName
from emend.locate import trace, trace_many
from emend.locate.averages import effects_by_role, mean_of, role_of
from emend.models import ModelView, top1

QUESTIONS = [
    ("{} was born in", "Marie Curie", None),
    ("The mother tongue of {} is", "Anna Berg", None),
    ("{} is", "Kraków", None),
]


def test_roles() -> None:
    assert [role_of(i, 2, 5, 9) for i in range(9)] == [
        *(None, None, "first_subject", "middle_subject", "middle_subject", "last_subject"),
        *("first_after", "further", "last_token"),
    ]
    assert [role_of(i, 0, 1, 3) for i in range(3)] == [
        "first_subject",
        "last_subject",
        "last_token",
    ]
    assert [role_of(i, 0, 0, 2) for i in range(2)] == ["last_subject", "last_token"]
    assert [role_of(i, 0, 1, 2) for i in range(2)] == ["first_subject", "last_token"]


def test_mean_and_interval() -> None:
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 0.0]])
    found = mean_of(rows)
    assert found.mean.tolist() == [3.0, 0.0]
    # Sample variance (4 + 1 + 9) / 2 = 7.
    assert found.margin[0] == pytest.approx(1.96 * math.sqrt(7 / 3))
    assert found.facts == 3
    assert mean_of(rows[:1]).margin.isnan().all()


def test_averages_are_those_of_single_traces() -> None:
    model, tokenizer = tiny_model("gpt2")
    found = trace_many(model, tokenizer, QUESTIONS, draws=2, kinds=("state", "mlp"), window=2)
    view = ModelView(model)
    subjects = [
        view.embeddings(torch.tensor(tokenizer(one.prompt)["input_ids"][one.first : one.last + 1]))
        for one in found.traces
    ]
    deviation = float(torch.cat(subjects).std().detach())
    alone = [
        trace(
            *(model, tokenizer, prompt, subject),
            **{"draws": 2, "kinds": ("state", "mlp"), "window": 2, "deviation": deviation},
        )
        for prompt, subject, _ in QUESTIONS
    ]
    assert found.total[0] == pytest.approx(sum(one.total for one in alone) / 3, abs=1e-6)
    for kind in ("state", "mlp"):
        table = found.by_role(kind)
        assert "middle_subject" in table
        for role, (mean, _, facts) in table.items():
            each = [effects_by_role(one, kind) for one in alone]
            rows = [roles[role] for roles in each if role in roles]
            assert facts == len(rows)
            assert torch.allclose(mean, torch.stack(rows).mean(0), atol=1e-6)
    data = found.to_dict()
    assert data["facts"] == data["asked"] == 3
    assert data["deviation"] == pytest.approx(deviation)
    assert set(data["effects"]["mlp"]) == set(found.by_role("mlp"))
    assert json.dumps(data["effects"]["state"]["last_token"]["mean"], allow_nan=False)


def test_a_role_is_the_mean_over_its_tokens() -> None:
    model, tokenizer = tiny_model("llama")
    found = trace(model, tokenizer, *QUESTIONS[0][:2], draws=1)
    effects, roles = found.effects["state"], effects_by_role(found, "state")
    assert torch.equal(roles["first_subject"], effects[found.first])
    assert torch.equal(roles["last_subject"], effects[found.last])
    assert torch.equal(roles["last_token"], effects[-1])
    assert torch.allclose(roles["further"], effects[found.last + 2 : -1].mean(0))


def test_only_what_is_known_is_traced() -> None:
    model, tokenizer = tiny_model("gpt2")
    (token, _), *_ = top1(model, tokenizer, ["Marie Curie was born in"])
    wrong = next(word for word in (" Paris", " Warsaw") if tokenizer(word)["input_ids"][0] != token)
    asked = [("{} was born in", "Marie Curie", wrong), *QUESTIONS[1:]]
    found = trace_many(model, tokenizer, asked, draws=1)
    assert [one.subject for one in found.traces] == ["Anna Berg", "Kraków"]
    assert found.asked == 3
    assert len(trace_many(model, tokenizer, asked, draws=1, known_only=False).traces) == 3
    assert len(trace_many(model, tokenizer, asked, draws=1, limit=1).traces) == 1
    with pytest.raises(InvalidInput, match="none of the 1 answers"):
        trace_many(model, tokenizer, asked[:1])


def test_misuse_is_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    with pytest.raises(InvalidInput, match="no questions"):
        trace_many(model, tokenizer, [])
    with pytest.raises(UnknownName, match="did you mean 'window'"):
        trace_many(model, tokenizer, QUESTIONS, windows=3)
