"""The studio: facts edited in a browser, on the same application and ledger as the interfaces.

By file:

    routes     what the browser asks for
    pages      the page and its parts, by the markup of `emend.report`
    jobs       what takes longer than a request: an edit, a comparison, a trace
    static     style sheet, focus; htmx 2.0.8 (Zero-Clause BSD), which replaces parts of the page
"""

from __future__ import annotations

from emend.server.studio.routes import studio_router

__all__ = ["studio_router"]
