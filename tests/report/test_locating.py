from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from io import StringIO

import pytest
import torch
from rich.console import Console

from emend.errors import InvalidInput, MissingExtra
from emend.locate import KINDS, AverageEffects, Lens, Settings, Trace
from emend.report import terminal, write
from emend.report._colours import colour, hexadecimal, ink, visible
from emend.report._curves import STYLES, ticks

EVIL = "<script>alert('x')</script>"
TOKENS = ("In", " Ana", " Bel", " <b>", "\n", " is")


def made(depth=3, tokens=TOKENS, kinds=("state", "mlp"), seed=0, **fields) -> Trace:
    generator = torch.Generator().manual_seed(seed)
    effects = {kind: torch.rand(len(tokens), depth, generator=generator) - 0.3 for kind in kinds}
    told = {"prompt": f"In Ana Bel {EVIL}", "subject": "Ana Bel", "answer": " Oslo"}
    numbers = {"first": 1, "last": 2, "clean": 0.9, "disturbed": 0.25, "deviation": 0.1}
    settings = Settings(kinds=kinds, window=3)
    return Trace(
        **{**told, **numbers, "said": " Oslo", "tokens": tokens, **fields},
        effects=effects,
        settings=settings,
    )


def seen(depth=3) -> Lens:
    chances = torch.linspace(0.1, 0.9, depth)[:, None, None].repeat(1, len(TOKENS), 2)
    best = tuple(tuple((f" w{n}", " <i>") for _ in TOKENS) for n in range(depth))
    ranks = torch.arange(1, depth * len(TOKENS) + 1).reshape(depth, len(TOKENS))
    return Lens("In Ana", TOKENS, " Oslo", best, chances, chances[:, :, 0] / 2, ranks)


def several() -> AverageEffects:
    traces = tuple(made(seed=seed) for seed in range(4))
    return AverageEffects(traces, 9, traces[0].settings)


RESULTS = {"trace": made, "averages": several, "lens": seen}


@pytest.mark.parametrize("what", RESULTS)
def test_pages_load_nothing_and_escape_what_models_say(what, tmp_path) -> None:
    make = RESULTS[what]
    page = write(make(), tmp_path / "page.html").read_text("utf-8")
    assert "<script" not in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert "url(" not in page
    assert "default-src 'none'" in page
    if what != "averages":
        assert "&lt;" in page  # the token " <b>" or " <i>"
        assert "<i>" in page  # and ours


def test_a_trace_page_has_every_effect_in_its_colour(tmp_path) -> None:
    found = made()
    page = write(found, tmp_path / "page.html").read_text("utf-8")
    for kind in found.effects:
        effects = found.effects[kind]
        limit, common = (
            float(effects.abs().max()),
            max(float(e.abs().max()) for e in found.effects.values()),
        )
        for token, row in enumerate(effects.tolist()):
            for layer, value in enumerate(row):
                told = f"{visible(TOKENS[token])}, layer {layer}\n{100 * value:+.2f} points"
                own, shared = (hexadecimal(colour(value, one)) for one in (limit, common))
                cell = f"--own:{own};--own-ink:{ink(colour(value, limit))};--all:{shared}"
                assert cell in page
                assert told.replace("<", "&lt;").replace(">", "&gt;") in page
    assert page.count('class="subject"') == 2 * len(found.effects)
    assert "P(&#x27;Oslo&#x27;) is 90.0%, and 25.0% with noise" in page
    assert "By itself" not in page
    other = write(made(said=" Rome"), tmp_path / "other.html").read_text("utf-8")
    assert "By itself the model says &#x27;Rome&#x27;" in other


def test_pages_state_that_noise_took_nothing_away(tmp_path) -> None:
    """Fault B15: in the report too."""
    idle = made(clean=0.002, disturbed=0.009)
    page = write(idle, tmp_path / "page.html").read_text("utf-8")
    line = "Noise at the subject does not lower P(&#x27;Oslo&#x27;) (0.2% to 0.9%), so that"
    assert line in page
    other = write(made(), tmp_path / "b.html").read_text("utf-8")
    assert "the map means nothing" not in other
    found = AverageEffects((made(), made(seed=1), idle), 3, made().settings)
    page = write(found, tmp_path / "c.html").read_text("utf-8")
    assert "in 1 of 3 facts, which have nothing to bring back" in page


def test_maps_of_many_layers_are_narrow(tmp_path) -> None:
    page = write(made(depth=40), tmp_path / "page.html").read_text("utf-8")
    assert 'class="heat narrow"' in page
    assert 'id="numbers"' not in page
    assert "<span>36</span>" in page
    assert "<span>37</span>" not in page
    alone = write(made(kinds=("state",)), tmp_path / "page.html").read_text("utf-8")
    assert 'id="numbers"' in alone
    assert 'id="same"' not in alone  # there is but one map


def test_averages_are_told_with_their_intervals(tmp_path) -> None:
    found = several()
    page = write(found, tmp_path / "page.html").read_text("utf-8")
    mean, margin, _ = found.by_role("mlp")["last_subject"]
    assert f"{100 * mean[1]:.1f} ± {100 * margin[1]:.1f}" in page
    assert "4 facts. Noise at the subject takes 65.0 ± 0.0 percentage points" in page
    drawn = page.split("<svg")[1].split("</svg>")[0]
    roles = found.by_role("state")
    assert drawn.count("<polyline") == drawn.count("<polygon") == len(roles)
    single = AverageEffects(found.traces[:1], 1, found.settings)  # has no intervals
    page = write(single, tmp_path / "page.html").read_text("utf-8")
    assert "<polygon" not in page
    assert "nan" not in page.split("<svg")[1].split("</svg>")[0].replace("± nan", "")


@pytest.mark.parametrize("what", RESULTS)
def test_pictures_and_data(what, tmp_path) -> None:
    make = RESULTS[what]
    png = write(make(), tmp_path / "a.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width = int.from_bytes(png[16:20], "big")
    assert 300 < width < 4000
    svg = write(make(), tmp_path / "a.svg").read_text("utf-8")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    data = json.loads(write(make(), tmp_path / "a.JSON").read_text("utf-8"))
    assert data == json.loads(json.dumps(make().to_dict()))


def test_plots_of_many_kinds_stand_below_each_other(tmp_path) -> None:
    def size(kinds) -> tuple[int, int]:
        one = made(kinds=kinds)
        path = write(AverageEffects((one, one), 2, one.settings), tmp_path / "a.png")
        header = path.read_bytes()[16:24]
        return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")

    three, five = size(KINDS[:3]), size(KINDS)
    assert three[0] == five[0] < 1600  # readable at the width of a page
    assert five[1] > 1.7 * three[1]


def test_tokens_of_any_script_are_drawn(tmp_path) -> None:
    tokens = ("$x$", " 北京", "\x0f", "\ufffd", " 🙂", "^_")
    write(made(tokens=tokens), tmp_path / "a.png")
    assert [visible(token) for token in tokens[2:3]] == ["␏"]
    assert visible("") == "∅"


def test_misuse_is_refused(tmp_path, monkeypatch) -> None:
    with pytest.raises(InvalidInput, match=r"trace\.txt.*\.html, \.json, \.md, \.png, \.svg"):
        write(made(), tmp_path / "trace.txt")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"emend\[report\]"):
        write(made(), tmp_path / "trace.png")
    assert list(tmp_path.iterdir()) == []


def test_ticks_are_round() -> None:
    assert ticks(-0.19, 0.85) == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert ticks(0.0, 0.043) == [0.0, 0.01, 0.02, 0.03, 0.04]
    assert ticks(-0.5, 0.5) == [-0.4, -0.2, 0.0, 0.2, 0.4]
    assert ticks(0.0, 0.0) == [0.0]


def _luminance(shown) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in shown]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_numbers_can_be_read_on_every_colour() -> None:
    for step in range(-20, 21):
        shown = colour(step / 20, 1.0)
        written = ink(shown)
        inks = [int(written[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        pair = sorted([_luminance([c / 255 for c in shown]), _luminance(inks)])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 4.0, step


# Machado et al. 2009: what is seen without one kind of cones.
DICHROMATS = {
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("kind", DICHROMATS)
def test_more_and_less_differ_to_every_colour_vision(kind) -> None:
    matrix = torch.tensor(DICHROMATS[kind])

    def see(shown):
        return matrix @ torch.tensor([float(channel) for channel in shown])

    for step in range(5, 21):
        above, below = see(colour(step / 20, 1.0)), see(colour(-step / 20, 1.0))
        assert (above - below).norm() > 25, step
    lines = [see(int(style.colour[n : n + 2], 16) for n in (1, 3, 5)) for style in STYLES.values()]
    looks = list(STYLES.values())
    for first in range(6):
        for second in range(first):
            apart = float((lines[first] - lines[second]).norm())
            # Told apart by hue, or else by dash and marker.
            assert apart > 30 or looks[first].dash != looks[second].dash


def test_darker_is_more() -> None:
    for sign in (1, -1):
        seen = [_luminance([c / 255 for c in colour(sign * n / 20, 1.0)]) for n in range(21)]
        assert seen == sorted(seen, reverse=True)
    assert colour(float("nan"), 1.0) == colour(0.0, 1.0) == colour(1.0, 0.0)


def shown(renderable, width=100) -> list[str]:
    console = Console(width=width, file=StringIO(), color_system=None)
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_terminal_shows_numbers_tokens_and_stars() -> None:
    found = made(kinds=("mlp",))
    title, head, *rows = shown(terminal(found))
    assert title == "MLP, window of 3, percentage points"
    assert head.split() == ["0", "1", "2"]
    for token, (line, effects) in enumerate(zip(rows, found.effects["mlp"].tolist(), strict=False)):
        name, *numbers = line.split()
        assert name.strip("*") == visible(TOKENS[token]).strip()
        assert name.endswith("*") == (token in (1, 2))
        assert [int(one) for one in numbers] == [round(100 * value) for value in effects]


@pytest.mark.parametrize(("depth", "width"), [(24, 2), (48, 1)])
def test_many_layers_fit_a_terminal(depth, width) -> None:
    found = made(depth=depth, kinds=("state",))
    title, _, *rows = shown(terminal(found), width=80)
    effects = found.effects["state"]
    limit = float(effects.abs().max())
    assert f"tenths of {100 * limit:.3g} points" in title
    for line, values in zip(rows, effects.tolist(), strict=False):
        digits = [line[-width * depth :][n * width : (n + 1) * width] for n in range(depth)]
        for digit, value in zip(digits, values, strict=True):
            assert abs(int(digit)) == min(9, int(10 * abs(value) / limit))
            if width == 2:
                assert int(digit) * value >= 0


def test_a_lens_in_the_terminal_and_on_a_page(tmp_path) -> None:
    lines = shown(terminal(seen()))
    last = next(line for line in lines if line.startswith("│ 2 "))
    assert "45%" in last
    assert "18" in last
    assert "␣w2 90.0%" in last
    page = write(seen(), tmp_path / "a.html").read_text("utf-8")
    assert page.index("layer 2") < page.index("layer 0")  # the last above
    assert "45% #18" in page
