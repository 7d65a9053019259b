"""Pages, and the HTML and SVG elements in them; whatever is not markup already is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Escape ``value``, unless it is markup already."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def joined(*children: object) -> Markup:
    """Join children in their order."""
    return Markup("".join(text(child) for child in children))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """Write an element.

    Args:
        name: Its name, e.g. "td".
        children: Markup or anything else, which is escaped.
        attributes: Its attributes. A trailing underscore is dropped ("class_"), others become
            hyphens ("stroke_width"); None leaves one out.
    """
    return Markup(f"<{name}{_shown(attributes)}>{joined(*children)}</{name}>")


def void(name: str, /, **attributes: object) -> Markup:
    """Write an element that has no content and no end, such as "input"; see `element`."""
    return Markup(f"<{name}{_shown(attributes)}>")


def _shown(attributes: Mapping[str, object]) -> str:
    return "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )


def table(head: list[object], rows: list[list[object]], class_: str | None = None) -> Markup:
    """Write a table that scrolls by itself where the page is narrow; ``head`` may be empty."""
    body = [element("tr", *(_cell(cell) for cell in row)) for row in rows]
    titles = element("tr", *(element("th", cell, scope="col") for cell in head))
    above = [element("thead", titles)] if head else []
    inner = element("table", *above, element("tbody", *body))
    return element("div", inner, class_=f"scroll {class_ or ''}".rstrip())


def _cell(cell: object) -> Markup:
    if isinstance(cell, Markup) and cell.startswith(("<td", "<th")):
        return cell
    return element("td", cell)


def style_sheet(name: str) -> str:
    """Read a style sheet of the reports."""
    return (files("emend.report") / name).read_text("utf-8")


def document(title: str, parts: list[Markup], *styles: str) -> str:
    """Write a page that loads and runs nothing, whatever a model generated.

    Args:
        title: What the browser calls it.
        parts: Its content.
        styles: Names of further style sheets next to this file.
    """
    sheets = [style_sheet(name) for name in ("style.css", *styles)]
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
