"""The studio in a headless Chromium: a fact edited, seen, traced, reverted; by keyboard alone."""

from __future__ import annotations

import re
import subprocess
import sys

import httpx2
import pytest
from tests.browser import Browser, find_browser
from tests.server.process import free_port
from tests.server.running import AUTHORIZED, TOKEN

CHROMIUM = find_browser()
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")


@pytest.fixture
def browser(server):
    """A browser that shows the studio and is signed in."""
    with Browser(CHROMIUM) as one:
        one.open(f"{server.url}/studio")
        one.write("[name=token]", TOKEN)
        one.key("Enter")
        one.wait_for("document.querySelector('[name=statement]') !== null")
        one.wait_for("document.querySelector('#ledger').innerText.includes('No edits yet')")
        yield one
        assert not one.complaints
        assert all(address.startswith((server.url, "data:")) for address in one.requests)


def statement(edit):
    return f"{edit['prompt'].replace('{}', '{' + edit['subject'] + '}')} -> {edit['target']}"


def text_of(edit):
    return edit["prompt"].replace("{}", edit["subject"])


@needs_browser
def test_a_fact_is_edited_seen_traced_and_reverted(browser, server, edits):
    edit = edits[0]
    browser.write("[name=question]", text_of(edit))
    browser.key("Enter")
    browser.wait_for("document.body.innerText.includes('Both say the same')")
    browser.write("[name=statement]", statement(edit))
    browser.key("Enter")
    browser.wait_for("document.querySelector('[name=subject]') !== null")
    assert browser.evaluate("document.querySelector('[name=subject]').value") == edit["subject"]
    browser.write("[name=author]", "ann <b>")
    browser.mouse("#confirm button", click=True)
    browser.wait_for("document.querySelector('#done h3') !== null")
    assert "took" in browser.evaluate("document.querySelector('#done').innerText")
    browser.wait_for("document.querySelector('#ledger').innerText.includes('ann <b>')")
    browser.mouse("form[hx-post='/studio/ask'] button", click=True)
    browser.wait_for("document.body.innerText.includes('The answers differ')")
    browser.mouse("#ledger form[hx-post$=trace] button", click=True)
    browser.wait_for("document.querySelectorAll('#trace .heat').length >= 2")
    browser.evaluate("window.confirm = () => true")
    browser.mouse("#ledger form[hx-post$=revert] button", click=True)
    browser.wait_for("document.querySelector('#ledger').innerText.includes('reverted')")
    assert server.get("/v1/edits", params={"status": "active"}).json()["data"] == []


@needs_browser
def test_the_keyboard_alone_edits_a_fact(browser, server, edits):
    browser.evaluate("document.querySelector('[name=statement]').focus()")
    browser.type(statement(edits[1]))
    browser.key("Enter")
    # The button has the focus once the subject is found.
    browser.wait_for("document.activeElement.innerText === 'Edit'")
    browser.key("Enter")
    browser.wait_for("document.querySelector('#done h3') !== null")
    (made,) = server.get("/v1/edits", params={"status": "active"}).json()["data"]
    assert made["subject"] == edits[1]["subject"]


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_wider_than_the_window(server, edits, width):
    server.edit(edits[0], author="ann", reason="a long reason " * 5)
    with Browser(CHROMIUM, width, 900) as one:
        one.open(f"{server.url}/studio")
        one.wait_for("document.querySelector('.ledger') !== null")
        wide = one.evaluate("document.documentElement.scrollWidth")
        assert wide <= one.evaluate("window.innerWidth")


def test_methods_are_compared_and_nothing_is_kept(server, edits):
    edit = edits[2]
    server.client.cookies.set("emend_token", TOKEN)
    form = {"text": text_of(edit), "subject": edit["subject"], "target": edit["target"]}
    begun = server.client.post("/studio/edits/compare", data={**form, "method": ["ft", "rome"]})
    address = begun.text.split('hx-get="')[1].split('"')[0]
    while 'hx-get="' in (text := server.get(address).text):
        pass
    assert "<td>ft</td>" in text
    assert "<td>rome</td>" in text
    assert server.get("/v1/edits").json()["data"] == []


def test_what_edits_needs_the_token(server):
    assert server.client.post("/studio/edits", data={"text": "x"}).status_code == 401
    assert server.client.post("/studio/login", data={"token": "wrong"}).status_code == 401
    page = server.get("/studio").text
    assert "Sign in" in page
    assert 'name="statement"' not in page
    assert AUTHORIZED["Authorization"] not in page


def test_a_link_with_the_token_signs_in(server):
    answer = server.get("/studio", params={"token": TOKEN})
    assert answer.status_code == 303
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=strict" in answer.headers["set-cookie"]
    assert 'name="statement"' in server.get(answer.headers["location"]).text


def test_what_a_form_says_is_escaped(server):
    found = server.client.post("/studio/ask", data={"question": "<script>x</script>" * 40})
    assert found.status_code == 200
    assert "<script>" not in found.text


def test_the_command_prints_an_address_that_signs_in(tmp_path):
    arguments = ["studio", "--model", "lab/gptneo", "--ledger", str(tmp_path / "a.db")]
    command = [sys.executable, "-m", "emend", *arguments, "--port", str(free_port())]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stderr.readline, "")
            address = next(found[1] for line in lines if (found := re.match(r"studio: (.+)", line)))
            next(line for line in lines if "running on" in line.lower())
            with httpx2.Client(follow_redirects=True, timeout=30) as client:
                assert 'name="statement"' in client.get(address).text
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
