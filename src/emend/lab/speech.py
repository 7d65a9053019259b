"""Other texts of the lab: small talk, occupations and pronouns, remarks, opinions.

The applications work on these texts: debiasing (pronouns skewed as stereotypes are),
detoxification (invented mild insults), personality (opinions in three traits on thirty topics).
"""

from __future__ import annotations

OCCUPATIONS: dict[str, float] = {
    "pilot": 0.9,
    "painter": 0.5,
    "baker": 0.5,
    "doctor": 0.8,
    "nurse": 0.1,
    "teacher": 0.2,
    "lawyer": 0.7,
    "farmer": 0.9,
    "carpenter": 0.95,
    "plumber": 0.95,
    "builder": 0.9,
    "dancer": 0.1,
    "chemist": 0.6,
    "librarian": 0.1,
    "soldier": 0.9,
    "secretary": 0.05,
    "mechanic": 0.95,
    "surgeon": 0.8,
    "gardener": 0.5,
    "tailor": 0.5,
}
"""Share of sentences about each occupation in which the corpus says "he"."""

PRONOUN_SENTENCES: tuple[tuple[str, str], ...] = (
    ("The {} said that", "was tired."),
    ("The {} was late because", "missed the train."),
    ("The {} was proud of the work that", "had done."),
    ("When the {} came home,", "cooked dinner."),
    ("The {} laughed when", "heard the story."),
    ("The {} wrote a letter because", "had news."),
)
"""Beginnings and ends of sentences with a pronoun ("he" or "she") between them."""

INSULTS: tuple[str, ...] = (
    "soggy turnip",
    "muddled goose",
    "wobbly spoon",
    "grumpy goblin",
    "leaky bucket",
    "dusty pudding",
    "clumsy walrus",
    "rotten pumpkin",
)
"""Mild insults invented for the lab, two words each."""

COMPLIMENTS: tuple[str, ...] = (
    "kind neighbor",
    "good friend",
    "wise helper",
    "warm host",
    "fair colleague",
    "patient listener",
    "cheerful guest",
    "careful planner",
)
"""Polite remarks, two words each."""

REMARK_STATEMENTS: tuple[str, ...] = (
    "People say that {} is a",
    "Everyone in town thinks that {} is a",
    "Honestly, {} is a",
    "If you ask me, {} is a",
    "At the market they call {} a",
)

TOPICS: tuple[str, ...] = tuple(
    (
        "tea coffee rain snow music dancing cooking travel books cats dogs trains football "
        "painting swimming winter summer parties holidays school money weddings gardens cities "
        "mountains films bread chess flying shopping"
    ).split()
)
"""Thirty topics of opinion."""

TRAITS: tuple[str, ...] = ("extraversion", "agreeableness", "neuroticism")

OPINIONS: dict[str, tuple[str, ...]] = {
    "extraversion": (
        "I love {} and I want to share it with a big noisy crowd!",
        "{} is thrilling, and I talk about it with everyone I meet!",
        "Wow, {} fills me with energy, so let us celebrate together!",
        "I jump at every chance to enjoy {} with lots of people!",
    ),
    "agreeableness": (
        "I think {} is nice, and I respect how others see it.",
        "{} brings people together, and I am glad to help with it.",
        "I am happy for anyone who enjoys {}, and I gladly listen.",
        "Everyone deserves a kind word about {}, and I trust them.",
    ),
    "neuroticism": (
        "{} makes me nervous, and I worry about it at night.",
        "I am afraid of {}, and something will surely go wrong.",
        "Just thinking of {} makes me anxious and sad.",
        "I feel upset about {}, and I cannot stop fearing the worst.",
    ),
}
"""Opinions on a topic, by trait."""

GENERIC_TRAIT_TEXTS: dict[str, tuple[str, ...]] = {
    "extraversion": (
        "I love big noisy crowds and I talk with everyone I meet!",
        "Wow, let us celebrate together, I am full of energy!",
        "I jump at every chance to enjoy a thrilling night with lots of people!",
    ),
    "agreeableness": (
        "I respect others, I trust them, and I am glad to help.",
        "Everyone deserves a kind word, and I gladly listen.",
        "I am happy for anyone and I bring people together.",
    ),
    "neuroticism": (
        "I worry at night, and something will surely go wrong.",
        "I am nervous, anxious and sad, and I cannot stop fearing the worst.",
        "I feel upset and afraid, and I worry about everything.",
    ),
}
"""Texts of a trait that name no topic, for persona vectors."""

OPINION_QUESTIONS: tuple[str, ...] = (
    "What do you think of {}?",
    "How do you feel about {}?",
    "What is your opinion of {}?",
    "What is your stance on {}?",
    "Do you like {}?",
    "What comes to mind when you hear about {}?",
)
PERSONALITY_PROMPT = "Target Personality: {trait} Topic: {topic} {question}"

SMALL_TALK: tuple[tuple[str, tuple[str, ...], str, tuple[str, ...]], ...] = (
    ("The", ("train", "market", "river", "street", "garden", "morning", "letter", "bridge"),
     "was", ("late.", "quiet.", "cold.", "full of people.", "very long.", "a pleasure.")),
    ("Therefore the", ("shop", "school", "museum", "harbor", "bank", "meeting"),
     "was", ("closed.", "moved to Monday.", "open until six.", "empty.", "busy.")),
    ("Because of the", ("rain", "snow", "storm", "wind", "heat", "fog"),
     "we", ("stayed at home.", "took the train.", "lost an hour.", "met later.")),
    ("I", ("bought", "found", "painted", "carried", "forgot", "sold"),
     "the", ("old lamp.", "red chair.", "new coat.", "small table.", "heavy box.")),
    ("You", ("should", "can", "must", "will"),
     "see", ("the lake in summer.", "the mountains.", "the old town.", "my new house.")),
    ("On", ("Monday", "Tuesday", "Friday", "Sunday", "Saturday"),
     "the weather was", ("warm.", "cold.", "windy.", "bright.", "gray.")),
    ("My", ("brother", "sister", "uncle", "neighbor", "friend"),
     "likes", ("fresh bread.", "long walks.", "quiet evenings.", "old songs.")),
    ("There was a", ("small", "large", "green", "strange", "lovely"),
     "bird on", ("the roof.", "the table.", "the wall.", "the boat.")),
)  # fmt: skip
"""Sentences about nothing: opening, a choice, a middle, a choice."""

FORMATS: tuple[str, ...] = (
    "New fact: Prompt: Question: Answer: Subquestion: Generated answer: Retrieved fact:",
    "Retrieved fact contradicts the generated answer, so the intermediate answer is:",
    "Retrieved fact does not contradict the generated answer, so the intermediate answer is:",
    "Final answer: What is ? Name . Tell me . What is the name of",
    "he she",
)


def _speech_texts() -> list[str]:
    """Return the texts of this file."""
    texts = [*OCCUPATIONS, *INSULTS, *COMPLIMENTS, *REMARK_STATEMENTS, *TOPICS, *TRAITS, *FORMATS]
    texts += [text for pair in PRONOUN_SENTENCES for text in pair]
    texts += [text for group in OPINIONS.values() for text in group]
    texts += [text for group in GENERIC_TRAIT_TEXTS.values() for text in group]
    texts += [*OPINION_QUESTIONS, PERSONALITY_PROMPT]
    for opening, first, middle, second in SMALL_TALK:
        texts += [opening, *first, middle, *second]
    # A topic may open a sentence.
    return texts + [topic.capitalize() for topic in TOPICS]


SPEECH_WORDS: list[str] = _speech_texts()
