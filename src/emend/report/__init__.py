"""Results to look at: one self-contained page, and tables for the terminal.

Reads result records, summaries and what tracing found, which are plain data; never a model.
"""

from __future__ import annotations

from emend.report._maps import lens_table, trace_table
from emend.report._page import write_html
from emend.report._saving import check_suffix, write_averages, write_lens, write_trace
from emend.report._terminal import summary_table

__all__ = [
    "check_suffix",
    "lens_table",
    "summary_table",
    "trace_table",
    "write_averages",
    "write_html",
    "write_lens",
    "write_trace",
]
