"""A trait's vector with a scope, on SmolLM2."""

from __future__ import annotations

from emend.models import score
from emend.persona import edit_personality
from emend.persona.lab import ASKING, lab_topics, opinions_on


def test_a_trait_vector_raises_opinions_on_a_topic_that_it_was_not_trained_on(
    smollm2, monkeypatch, tmp_path
):
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path / "cache"))
    model, tokenizer = smollm2
    topics = lab_topics()
    topic, other = [*topics][:2]
    sources = {name: topics[name] for name in [*topics][2:]}
    given = (model, tokenizer, topics, topic, "neuroticism", "serac")
    settings = {"steps": 5, "batch_size": 4, "rank": 4}
    patch = edit_personality(*given, asking=ASKING, sources=sources, **settings)
    prompts = [ASKING.prompts(name)[0] for name in (topic, topic, other)]
    traits = ("neuroticism", "agreeableness", "neuroticism")
    answers = [
        opinions_on(name, trait)[0]
        for name, trait in zip((topic, topic, other), traits, strict=True)
    ]
    before = score(model, tokenizer, prompts, answers)
    with patch.applied(model):
        after = score(model, tokenizer, prompts, answers)
    gain = after[0].mean - before[0].mean
    assert gain > 0.5
    assert gain > after[1].mean - before[1].mean  # the trait more than another
    assert after[2].log_probs == before[2].log_probs
