"""Ask a model and the edited model the same question side by side, and edit between questions."""

from __future__ import annotations

from emend.chat._session import FORMS, Answer, Form, Session
from emend.chat._statement import Statement, parse_statement
from emend.chat._subject import find_subject, subject_candidates

__all__ = [
    "FORMS",
    "Answer",
    "Form",
    "Session",
    "Statement",
    "find_subject",
    "parse_statement",
    "subject_candidates",
]
