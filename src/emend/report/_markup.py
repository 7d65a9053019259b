"""HTML and SVG elements; whatever is not markup already is escaped."""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """``value`` as markup: escaped, unless it is markup already."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def joined(*children: object) -> Markup:
    """Children one after the other."""
    return Markup("".join(text(child) for child in children))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """An element.

    Args:
        name: Its name, e.g. "td".
        children: Markup or anything else, which is escaped.
        attributes: Its attributes. A trailing underscore is dropped ("class_"), others become
            hyphens ("stroke_width"); None leaves one out.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{shown}>{joined(*children)}</{name}>")


def table(head: list[object], rows: list[list[object]], class_: str | None = None) -> Markup:
    """A table that scrolls by itself where the page is narrow; ``head`` may be empty."""
    body = [element("tr", *(_cell(cell) for cell in row)) for row in rows]
    titles = element("tr", *(element("th", cell, scope="col") for cell in head))
    above = [element("thead", titles)] if head else []
    inner = element("table", *above, element("tbody", *body))
    return element("div", inner, class_=f"scroll {class_ or ''}".rstrip())


def _cell(cell: object) -> Markup:
    if isinstance(cell, Markup) and cell.startswith(("<td", "<th")):
        return cell
    return element("td", cell)
