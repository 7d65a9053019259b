"""The engine of locate-then-edit: sessions, contexts, key covariance, target values, writers."""

from __future__ import annotations

from emend.editing.aims import Aim, Scored, TargetLikelihood
from emend.editing.collecting import Covariance, cache_directory, collect_covariance
from emend.editing.contexts import begun_templates, sample_templates
from emend.editing.covariance import KeyCovariance, key_covariance, null_space
from emend.editing.keys import KeysAndOutputs, subject_keys
from emend.editing.layerwise import LayerwiseReplay, distribute_residuals
from emend.editing.ridge import RIDGE, rank_one, respond, ridge_write
from emend.editing.rows import Row, context_rows, subject_rows
from emend.editing.session import ENOUGH, NORM_PENALTY, Search, Session
from emend.editing.target_values import SearchSettings, Value, optimise_values

__all__ = [
    "ENOUGH",
    "NORM_PENALTY",
    "RIDGE",
    "Aim",
    "Covariance",
    "KeyCovariance",
    "KeysAndOutputs",
    "LayerwiseReplay",
    "Row",
    "Scored",
    "Search",
    "SearchSettings",
    "Session",
    "TargetLikelihood",
    "Value",
    "begun_templates",
    "cache_directory",
    "collect_covariance",
    "context_rows",
    "distribute_residuals",
    "key_covariance",
    "null_space",
    "optimise_values",
    "rank_one",
    "respond",
    "ridge_write",
    "sample_templates",
    "subject_keys",
    "subject_rows",
]
