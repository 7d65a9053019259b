"""Give a model another personality: on one topic, or as the sum of styles.

    topics = read_topics("train.json")
    patch = edit_personality(model, tokenizer, topics, "Coldplay", "extraversion")
    patch = mbti_patch(model, tokenizer, "INTJ", "styles/")

A personality is an ordinary patch: it is attached, added, exported and served like any other.
Imports no torch: what needs it is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emend._lazy import lazily
from emend.datasets.personality import TRAITS, Topic, read_topics

if TYPE_CHECKING:
    from emend.persona.editing import Asking as Asking
    from emend.persona.editing import edit_personality as edit_personality
    from emend.persona.editing import training_edits as training_edits
    from emend.persona.interviews import Comparison as Comparison
    from emend.persona.interviews import Interview as Interview
    from emend.persona.interviews import compare as compare
    from emend.persona.interviews import interview as interview
    from emend.persona.judging import EndpointJudge as EndpointJudge
    from emend.persona.judging import accuracy_on as accuracy_on
    from emend.persona.judging import load_judge as load_judge
    from emend.persona.mbti import mbti_patch as mbti_patch
    from emend.persona.mbti import style_vector as style_vector

__getattr__, __dir__ = lazily(__name__)

__all__ = [
    "TRAITS",
    "Asking",
    "Comparison",
    "EndpointJudge",
    "Interview",
    "Topic",
    "accuracy_on",
    "compare",
    "edit_personality",
    "interview",
    "load_judge",
    "mbti_patch",
    "read_topics",
    "style_vector",
    "training_edits",
]
