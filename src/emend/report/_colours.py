"""The colours of effects and probabilities: blue for more, orange for less than nothing.

The two differ in hue and in lightness to every kind of colour vision, and both are light where
there is little, so that dark text can be read on it.
"""

from __future__ import annotations

from math import isfinite

Colour = tuple[int, int, int]

PAPER: Colour = (247, 249, 251)
ABOVE: tuple[Colour, ...] = (PAPER, (170, 208, 232), (74, 144, 198), (16, 84, 148), (6, 40, 84))
BELOW: tuple[Colour, ...] = (PAPER, (247, 205, 160), (226, 138, 60), (158, 78, 10))


def colour(value: float, limit: float) -> Colour:
    """Return the colour of a value.

    Args:
        value: It; what is not finite has the paper's colour.
        limit: The value, above 0, whose colour is the darkest.
    """
    if not isfinite(value) or limit <= 0:
        return PAPER
    stops = ABOVE if value >= 0 else BELOW
    place = min(abs(value) / limit, 1.0) * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    share = place - low
    first, second = stops[low], stops[low + 1]
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def hexadecimal(shown: Colour) -> str:
    """Write a colour as HTML does."""
    return "#{:02x}{:02x}{:02x}".format(*shown)


def ink(shown: Colour) -> str:
    """Choose the colour of text on a colour: dark, or white where that is more legible."""
    red, green, blue = (channel / 255 for channel in shown)
    return "#ffffff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.48 else "#14171a"


def visible(token: str) -> str:
    """Show a token's first space, line breaks and control characters."""
    shown = token.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣", 1)
    pictured = "".join(chr(0x2400 + ord(one)) if ord(one) < 0x20 else one for one in shown)
    return pictured or "∅"
