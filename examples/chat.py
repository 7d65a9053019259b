"""Ask the base and the edited model the same question side by side, and take the edit back.

python examples/chat.py
"""

from __future__ import annotations

import emend
from emend.chat import Session, find_subject, parse_statement


def main() -> None:
    """Edit a fact of the lab, typed as a sentence."""
    session = Session(*emend.load("lab/gptneo"))
    statement = parse_statement('"Gekal Lerond works as a" -> "tailor"')

    def show(title: str) -> None:
        answer = session.ask(statement.text, max_new_tokens=3)
        print(f"{title}: {answer.base} | {answer.edited}")

    show("base | edited")
    subject = find_subject(session.model, session.tokenizer, statement.text)
    print(f"the subject is {subject}")
    patch = session.edit(statement.edit(subject), probes="none")
    print(patch.outcomes[0].describe())
    show("after the edit")
    session.revert()
    show("taken back")


if __name__ == "__main__":
    main()
