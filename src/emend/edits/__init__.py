"""Edits and the questions asked about them: `Edit`, `Probe`, `MultiHop`. Loads no torch."""

from __future__ import annotations

from emend.edits._conflicts import (
    Keys,
    check_conflicts,
    check_edits,
    conflict,
    conflicting,
    continued,
    group_of,
    keys_of,
    reason_of,
    statements_of,
    with_translations,
)
from emend.edits._edit import GROUPS, Edit, MultiHop, Probe, SingleHop, normalised, prompt_fault
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
