"""A whole page: its style is in it, and it asks the network for nothing."""

from __future__ import annotations

from importlib.resources import files

from emend.report._markup import Markup, element


def document(title: str, parts: list[Markup], *styles: str) -> str:
    """A page that loads and runs nothing, whatever a model said.

    Args:
        title: What the browser calls it.
        parts: What stands in it.
        styles: Names of further style sheets beside this file.
    """
    sheets = [(files("emend.report") / name).read_text("utf-8") for name in ("style.css", *styles)]
    head = element(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        ),
        # Browsers ask the server of a page for an icon, unless it brings one.
        Markup('<link rel="icon" href="data:,">'),
        element("title", title),
        element("style", Markup("\n".join(sheets))),
    )
    body = element("body", element("main", *parts))
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"
