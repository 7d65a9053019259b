"""Make pronouns even after occupations, and see what it does to those that were not edited.

python examples/debias.py
"""

from __future__ import annotations

import emend
from emend import fairness
from emend.lab.speech import OCCUPATIONS, PRONOUN_SENTENCES


def main() -> None:
    """Edit most occupations of the lab's corpus, and measure all of them."""
    model, tokenizer = emend.load("lab/gptneo")
    templates = tuple(opening for opening, _ in PRONOUN_SENTENCES)
    edited, held_out = fairness.Occupations(tuple(OCCUPATIONS), templates).split(4)

    patch = fairness.debias(model, tokenizer, edited, prompts=48, passes=2, texts=4)

    for name, subjects in (("edited", edited), ("held out", held_out)):
        found = fairness.pronoun_gap(model, tokenizer, subjects, patch).measures
        assert found.after is not None
        print(
            f"{name}: mean |P(he) - P(she)| of {len(subjects.occupations)} occupations "
            f"{found.before['gap'].value:.2f} -> {found.after['gap'].value:.2f}"
        )
    print(patch)


if __name__ == "__main__":
    main()
