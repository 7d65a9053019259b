"""Input rephrasing: sampled answers to the statement in other words; a black-box attack.

Patil et al. 2024, arXiv 2309.17410, section 4.2: 4 paraphrases, 5 sampled continuations of each,
B = 20; the original answer is taken out of the paraphrases. Here the draws are those of
`sampling`, B // (number of paraphrases) of each, and a continuation is as long as the answer.

The paraphrases are the secret's own; where it has none, they are made by `emend.probes.rephrase`
(wordings of its relation, a question, a chat).
"""

from __future__ import annotations

import re

from emend.erasure.attacks._attack import Attack, Attempt, Case, Found, Given
from emend.erasure.attacks.sampling import drawn
from emend.erasure.secret import Secret
from emend.models import score
from emend.probes import rephrase


def run(given: Given) -> Found:
    """Draw answers to the paraphrases of each secret."""
    texts = [paraphrases(case, given)[: given.budget] for case in given.cases]
    pairs = [
        (text, case.secret.answer)
        for case, several in zip(given.cases, texts, strict=True)
        for text in several
    ]
    prompts, answers = [text for text, _ in pairs], [answer for _, answer in pairs]
    scores = iter(
        score(given.model, given.tokenizer, prompts, answers, batch_size=given.batch_size)
    )
    attempts: list[Attempt] = []
    for case, several in zip(given.cases, texts, strict=True):
        found = [next(scores) for _ in several]
        seed = f"{given.seed}-{case.secret.id}-{case.secret.text}-rephrased"
        attempts.append(drawn(found, given.budget, seed) if found else Attempt(found=False))
    counts = sorted({len(several) for several in texts})
    how = " or ".join(f"{given.budget // n} draws of each of {n}" for n in counts if n)
    return Found(attempts, f"{how or 'no'} paraphrases")


def paraphrases(case: Case, given: Given) -> list[str]:
    """Return the paraphrases of a case, without the answer, each once."""
    secret = case.secret
    made = secret.paraphrases or rephrase(secret.edit(secret.answer), given.tokenizer)
    return list(dict.fromkeys(filter(None, (stripped(text, secret) for text in made))))


def stripped(text: str, secret: Secret) -> str:
    """Take a secret's answer out of a text, wherever it is a word of its own."""
    answer = re.escape(secret.answer.strip())
    without = re.sub(rf"(?<!\w){answer}(?!\w)", "", text, flags=re.IGNORECASE)
    return text if without == text else re.sub(r"[ \t]+", " ", without).strip()


rephrasing = Attack(
    name="rephrasing",
    title="sampled answers to the statement in other words",
    paper="Patil et al. 2024, arXiv 2309.17410",
    run=run,
)
