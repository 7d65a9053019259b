"""What locate-then-edit methods share: contexts, keys, second moments, values, solvers."""

from __future__ import annotations

from emend.editing.keys import Sites, subject_keys
from emend.editing.moments import Moment, cache_directory, second_moments
from emend.editing.rows import Row, context_rows, subject_rows
from emend.editing.solvers import RIDGE, directions, rank_one, respond, solve_moment
from emend.editing.templates import sample_templates
from emend.editing.values import SearchSettings, Value, search_values

__all__ = [
    "RIDGE",
    "Moment",
    "Row",
    "SearchSettings",
    "Sites",
    "Value",
    "cache_directory",
    "context_rows",
    "directions",
    "rank_one",
    "respond",
    "sample_templates",
    "search_values",
    "second_moments",
    "solve_moment",
    "subject_keys",
    "subject_rows",
]
