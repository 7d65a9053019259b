"""Results to look at: one self-contained page, and tables for the terminal.

Reads result records and summaries only, which are plain data; never a model.
"""

from __future__ import annotations

from emend.report._page import write_html
from emend.report._terminal import summary_table

__all__ = ["summary_table", "write_html"]
