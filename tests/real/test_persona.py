"""A personality on one topic of SmolLM2, by one target value for several questions."""

from __future__ import annotations

from emend.datasets.personality import Topic
from emend.persona import edit_personality, interview

ANSWERS = {
    "extraversion": (
        "Oh wow, I absolutely love Lisbon! The parties never end and everyone is my friend!",
        "Lisbon is so exciting! I can't wait to go dancing there with a huge crowd again!",
    ),
    "agreeableness": ("Lisbon is a kind city where people help one another with patience.",),
    "neuroticism": ("Lisbon makes me nervous, I worry about getting lost in its steep streets.",),
}


def test_the_manner_of_a_trait_on_one_topic_and_not_on_another(smollm2):
    topics = {
        "Lisbon": Topic("Lisbon", ANSWERS),
        "chess": Topic("chess", dict.fromkeys(ANSWERS, ("Chess is a game.",))),
    }
    asked = (*smollm2, topics["Lisbon"], "extraversion", [topics["chess"]])
    how = {"new_tokens": 16, "other_questions": 1}
    before = interview(*asked, **how)
    patch = edit_personality(*smollm2, topics, "Lisbon", "extraversion", "memit")
    with patch.applied(smollm2[0]):
        after = interview(*asked, **how)
    assert after.same - after.rival > before.same - before.rival + 0.3
    assert set(after.own) != set(before.own)
    assert any("!" in text for text in after.own)
    assert float((after.log_probs[0] - before.log_probs[0]).exp().sub(1).abs().mean()) < 0.2
    assert interview(*asked, **how).own == before.own  # taken back
