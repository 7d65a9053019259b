"""What to change, and what to ask afterwards: `Edit`, `Probe`, `MultiHop`. Loads no torch."""

from __future__ import annotations

from emend.edits._edit import GROUPS, Edit, Probe, prompt_fault
from emend.edits._list import check_conflicts, check_edits, continued
from emend.edits._multi_hop import MultiHop, SingleHop
from emend.edits._statements import (
    Keys,
    conflict,
    conflicting,
    keys_of,
    reason_of,
)
from emend.edits._text import normalised
from emend.edits._translations import group_of, statements_of, with_translations
from emend.edits.answers import states_answer
from emend.edits.joining import continuation, joined
from emend.edits.record import edit_from_record, edit_to_record

__all__ = [
    "GROUPS",
    "Edit",
    "Keys",
    "MultiHop",
    "Probe",
    "SingleHop",
    "check_conflicts",
    "check_edits",
    "conflict",
    "conflicting",
    "continuation",
    "continued",
    "edit_from_record",
    "edit_to_record",
    "group_of",
    "joined",
    "keys_of",
    "normalised",
    "prompt_fault",
    "reason_of",
    "statements_of",
    "states_answer",
    "with_translations",
]
