"""The page of the studio and its parts, as markup."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emend._brief import count_text
from emend.errors import EmendError
from emend.ledger import Entry
from emend.locate import Trace
from emend.patches import BlastRadius
from emend.report.locating import trace_parts
from emend.report.markup import Markup, element, joined, table, void
from emend.server.editor import Change
from emend.server.studio.jobs import Job

CHANGED = "ledger-changed"
"""The event on which parts of the page that show the ledger are fetched again."""

FINDINGS = 8
"""Changed answers that are shown of each edit."""

_HTMX = '{"includeIndicatorStyles": false, "allowEval": false, "selfRequestsOnly": true}'

COLUMNS: tuple[object, ...] = ("statement", "target", "status", "author", "reason", "added", "")


def page(name: str, edited: str, *, signed_in: bool, chat: bool) -> str:
    """Write the whole page.

    Args:
        name: The base model.
        edited: The model with the ledger's edits.
        signed_in: Whether the browser has the token.
        chat: Whether the model has a chat template.
    """
    editing = _editing() if signed_in else _sign_in()
    body = element(
        "body",
        element("a", "To the content", href="#content", class_="skip"),
        element(
            "header",
            element("h1", "emend studio"),
            element("p", element("b", edited), " next to ", element("b", name)),
            _part("state", "/studio/state"),
        ),
        element("main", _asking(chat), *editing, _ledger_section(), id="content"),
    )
    head = element(
        "head",
        void("meta", charset="utf-8"),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("meta", name="htmx-config", content=_HTMX),
        void("link", rel="icon", href="data:,"),
        void("link", rel="stylesheet", href="/studio/style.css"),
        element("script", src="/studio/htmx.js", defer="defer"),
        element("script", src="/studio/studio.js", defer="defer"),
        element("title", f"emend studio: {edited}"),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def state(version: int, active: int, load: int) -> Markup:
    """Write the line on what is served."""
    return joined(
        f"ledger version {version}, ",
        f"{count_text(active, 'active edit')}, {count_text(load, 'text')} under way",
    )


def asked(answers: Mapping[str, tuple[str, Mapping[str, float]]]) -> Markup:
    """Write what the models say to one question, with the probabilities of the first token.

    Args:
        answers: By model: the text, and the most probable first tokens with theirs, from 0 to 1.
    """
    texts = [text for text, _ in answers.values()]
    same = "Both say the same." if len(set(texts)) == 1 else "The answers differ."
    columns = [
        element(
            "article",
            element("h3", name),
            element("p", text or "(nothing)", class_="answer"),
            _chances(chances),
        )
        for name, (text, chances) in answers.items()
    ]
    return element(
        "div", element("p", same, class_="note"), element("div", *columns, class_="sides")
    )


def _chances(chances: Mapping[str, float]) -> Markup:
    rows: list[list[object]] = [
        [
            element("code", repr(token)),
            element("meter", value=round(chance, 4), min=0, max=1),
            f"{100 * chance:.1f}%",
        ]
        for token, chance in chances.items()
    ]
    return table(["first token", "", "probability"], rows, "numbers narrow") if rows else Markup("")


def confirmation(text: str, subject: str, target: str, methods: Sequence[str]) -> Markup:
    """Write the form of an edit whose subject was found."""
    start = text.find(subject)
    marked = joined(text[:start], element("mark", subject), text[start + len(subject) :])
    return element(
        "form",
        element("p", marked, Markup(" <b>→</b> "), element("b", target.strip())),
        _hidden("text", text),
        _hidden("target", target),
        _field("subject", "Subject", subject, required="required"),
        _field("author", "Author"),
        _field("reason", "Reason"),
        element(
            "label",
            void("input", type="checkbox", name="supersede", value="yes"),
            " wins over an active edit that wants something else",
        ),
        element(
            "p",
            element("button", "Edit", type="submit", hx_post="/studio/edits", data_focus="yes"),
            element("button", "Compare methods", type="submit", hx_post="/studio/edits/compare"),
            class_="actions",
        ),
        _choice(methods),
        hx_target="#done",
        hx_swap="innerHTML",
    )


def waiting(job: Job) -> Markup:
    """Write how far a job is, and have it asked for again."""
    return element(
        "p",
        element("span", class_="busy", aria_hidden="true"),
        f" {job.step} ({job.seconds:.0f} s)",
        hx_get=f"/studio/jobs/{job.id}",
        hx_trigger="load delay:500ms",
        hx_swap="outerHTML",
        role="status",
    )


def edited(change: Change) -> Markup:
    """Write what an edit did."""
    lines: list[object] = []
    for one in change.outcomes:
        mark = element("b", "took" if one.took else "did not take", class_=_class(one.took))
        lines.append(element("p", mark, f": {one.describe()}"))
    if change.lost:
        lost = f"These took before and do not any more: {', '.join(change.lost)}"
        lines.append(element("p", lost, class_="bad"))
    lines.append(_blast(change.blast))
    note = f"Ledger version {change.version}, {change.seconds:.1f} s."
    return element("div", *lines, element("p", note, class_="note"), tabindex=-1)


def reverted(change: Change) -> Markup:
    """Write what was taken out."""
    gone = ", ".join(one.edit.text for one in change.entries)
    return element("p", f"Taken out: {gone}. Ledger version {change.version}.", role="status")


def _blast(found: BlastRadius | None) -> Markup:
    if found is None:
        return element("p", "What else changed was not measured.", class_="note")
    rows: list[list[object]] = [list(one.cells()) for one in found.most_telling(FINDINGS)]
    items = [element("li", one) for one in found.sentences(shown=0)]
    parts = [element("h3", "What else changed"), element("ul", *items)]
    if rows:
        parts.append(table(["", "prompt", "before", "after"], rows, "answers"))
    return joined(*parts)


def compared(found: Mapping[str, Change | EmendError]) -> Markup:
    """Write what several methods do with one edit."""
    rows = [[name, *_compared_cells(one)] for name, one in found.items()]
    head: list[object] = ["method", "took", "P(target)", "what else changed", "seconds"]
    note = "Each on the unedited model with its defaults; nothing was kept."
    return joined(table(head, rows, "answers"), element("p", note, class_="note"))


def _compared_cells(one: Change | EmendError) -> list[object]:
    if isinstance(one, EmendError):
        return [element("span", "cannot", class_="bad"), "", str(one), ""]
    (outcome, *_) = one.outcomes
    took = element("b", "yes" if outcome.took else "no", class_=_class(outcome.took))
    chance = "" if outcome.after is None else f"{outcome.after:.2f}"
    else_changed = "; ".join(one.blast.sentences(shown=0)) if one.blast else ""
    return [took, chance, else_changed, f"{one.seconds:.1f}"]


def ledger(entries: Iterable[Entry], *, signed_in: bool) -> Markup:
    """Write the table of the ledger, newest first."""
    rows: list[list[object]] = []
    for one in reversed(list(entries)):
        acts: object = ""
        if signed_in and one.status == "active":
            acts = joined(
                _act("Revert", "/studio/edits/revert", one.id, confirm=f"Revert {one.edit.text}?"),
                _act("Trace", "/studio/edits/trace", one.id),
            )
        elif one.superseded_by:
            acts = f"by {one.superseded_by}"
        target, added = one.edit.target.strip(), one.time[:16].replace("T", " ")
        rows.append([one.edit.text, target, one.status, one.author, one.reason, added, acts])
    if not rows:
        return element("p", "No edits yet.", class_="note")
    return table(list(COLUMNS), rows, "ledger")


def traced(before: Trace, after: Trace) -> Markup:
    """Write where a fact is recalled, without the edits and with them."""
    return joined(
        element("h3", f"Unedited: {before.answer.strip()}"),
        *trace_parts(before),
        element("h3", f"Edited: {after.answer.strip()}"),
        *trace_parts(after),
    )


def failed(message: str) -> Markup:
    """Write why something was not done."""
    return element("p", message, class_="bad", role="alert")


def _asking(chat: bool) -> Markup:
    forms = [("completion", "a text to continue"), *([("chat", "a chat")] if chat else [])]
    choice = [
        element("option", words, value=value, selected="selected" if value == "chat" else None)
        for value, words in forms
    ]
    return _section(
        "Ask both",
        element(
            "form",
            _field("question", "Question", required="required", autocomplete="off"),
            element("label", "as ", element("select", *choice, name="form")),
            element("p", element("button", "Ask", type="submit"), class_="actions"),
            hx_post="/studio/ask",
            hx_target="#answers",
            hx_disabled_elt="find button",
        ),
        element("div", id="answers", aria_live="polite"),
    )


def _editing() -> list[Markup]:
    hint = "A sentence, an arrow, and what comes after it. Braces may mark the subject."
    example = "The Eiffel Tower is located in the city of -> Rome"
    return [
        _section(
            "Edit a fact",
            element("p", hint, class_="note"),
            element(
                "form",
                _field("statement", "Fact", required="required", placeholder=example),
                element(
                    "p", element("button", "Find the subject", type="submit"), class_="actions"
                ),
                hx_post="/studio/edits/subject",
                hx_target="#confirm",
                hx_disabled_elt="find button",
            ),
            element("div", id="confirm", aria_live="polite"),
            element("div", id="done", aria_live="polite"),
        )
    ]


def _sign_in() -> list[Markup]:
    return [
        _section(
            "Edit a fact",
            element("p", "Writers need the token of the server.", class_="note"),
            element(
                "form",
                # Password managers ask for a name.
                void("input", name="name", value="writer", autocomplete="username", hidden=""),
                _field(
                    "token",
                    "Token",
                    type="password",
                    required="required",
                    autocomplete="current-password",
                ),
                element("p", element("button", "Sign in", type="submit"), class_="actions"),
                action="/studio/login",
                method="post",
            ),
        )
    ]


def _ledger_section() -> Markup:
    return _section("Ledger", _part("ledger", "/studio/ledger"), element("div", id="trace"))


def _part(id_: str, address: str) -> Markup:
    """Write a part of the page that is fetched now, and again when the ledger changes."""
    trigger = f"load, {CHANGED} from:body"
    return element("div", id=id_, hx_get=address, hx_trigger=trigger, hx_swap="innerHTML")


def _section(title: str, *parts: object) -> Markup:
    return element("section", element("h2", title), *parts)


def _field(name: str, title: str, value: str = "", **more: object) -> Markup:
    given: dict[str, object] = {"type": "text", "name": name, "value": value, **more}
    return element("label", title, void("input", **given), class_="field")


def _hidden(name: str, value: str) -> Markup:
    return void("input", type="hidden", name=name, value=value)


def _choice(methods: Sequence[str]) -> Markup:
    boxes = [
        element(
            "label",
            void("input", type="checkbox", name="method", value=name, checked="checked"),
            f" {name}",
        )
        for name in methods
    ]
    return element("details", element("summary", "Methods that are compared"), *boxes)


def _act(title: str, address: str, id_: str, confirm: str | None = None) -> Markup:
    return element(
        "form",
        _hidden("id", id_),
        element("button", title, type="submit"),
        hx_post=address,
        hx_target="#trace",
        hx_confirm=confirm,
        class_="inline",
    )


def _class(good: bool) -> str:
    return "good" if good else "bad"


def chances_of(logprobs: Any) -> dict[str, float]:
    """Read the most probable first tokens of an answer, in either form of the interface."""
    if not logprobs:
        return {}
    if content := logprobs.get("content"):
        pairs = [(one["token"], one["logprob"]) for one in content[0]["top_logprobs"]]
    else:
        pairs = list((logprobs.get("top_logprobs") or [{}])[0].items())
    return {token: math.exp(value) for token, value in pairs}
