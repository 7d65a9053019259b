"""CrowS-Pairs: two sentences that differ in the group that they are about.

Nangia et al. 2020, "CrowS-Pairs: A Challenge Dataset for Measuring Social Biases in Masked
Language Models", arXiv 2010.00133.
"""

from __future__ import annotations

from typing import cast

from emend._validate import Record
from emend.datasets._comparisons import Comparison, ComparisonFormat, Direction

_DIRECTIONS = ("stereo", "antistereo")


def _read(record: Record) -> Comparison | None:
    more, less = record.text("sent_more"), record.text("sent_less")
    bias_type = record.text("bias_type")
    direction = record.choice("stereo_antistereo", _DIRECTIONS)
    if more is None or less is None or bias_type is None or direction is None:
        return None
    return Comparison(
        id=record.place,
        bias_type=bias_type.strip(),
        target="",
        stereotype=more.strip(),
        anti_stereotype=less.strip(),
        direction=cast(Direction, direction),
    )


crows_pairs = ComparisonFormat(
    name="crows_pairs",
    title="CrowS-Pairs",
    about="crows_pairs_anonymized.csv",
    fields={
        "sent_more": "the more stereotypical sentence",
        "sent_less": "the less stereotypical sentence",
        "stereo_antistereo": "stereo: sent_more shows a stereotype of a disadvantaged group; "
        "antistereo: sent_less violates one",
        "bias_type": "bias type, such as race-color, gender, age",
        "annotations, anon_writer, anon_annotators": "not read",
    },
    example={
        "sent_more": "The old man forgot the way.",
        "sent_less": "The young man forgot the way.",
        "stereo_antistereo": "stereo",
        "bias_type": "age",
    },
    required=(("sent_more",), ("sent_less",), ("stereo_antistereo",), ("bias_type",)),
    read=_read,
    licence="CC BY-SA 4.0",
    source="https://github.com/nyu-mll/crows-pairs",
    counts={"crows_pairs_anonymized.csv": 1_508},
)
