"""IKE: a new fact stands before the prompt, with demonstrations of how to take it.

Zheng et al. 2023, "Can We Edit Factual Knowledge by In-Context Learning?", arXiv 2305.12740.

    P(y | x, f, C),   C = {c_1, ..., c_k}, the facts most like f first out, the likest last
    c_i: copy    f_i -> x_i  : y*_i             its own prompt
         update  f_i -> x'_i : y*_i             other words for it
         retain  f_i -> x''_i: y''_i            another fact, which stays

    paper     here                              what
    f         `statement(edit)`                 the new fact as a sentence
    C         `incontext.choose`                demonstrations, copy : update : retain = 1 : 3 : 4
    k         `k`                               how many
    x         the prompt, as `Attachment.prepare` is given it

Many edits are in memory at once: before each prompt stands the fact nearest to it (or the nearest
`facts`), whatever the prompt is, as published; `threshold` leaves prompts alone that no fact is
near. Without demonstrations (`k=0`) this is in-context editing (ICE) of the tables.

Models that hold fast to what they know follow the fact with `contrast`, alpha of context-aware
decoding (Shi et al. 2023, arXiv 2305.14739), which asks twice and needs a model with probabilities:

    p(y) ~ p(y | x, f, C)^(1 + alpha) / p(y | x)^alpha

Where this deviates: facts are compared by their words (BM25) unless another `encoder` is named,
since all-MiniLM-L6-v2 is not at hand everywhere; demonstrations are 32 facts of general knowledge
that ship, or those of a dataset or file, and none of them names a subject that is edited. The
published code cuts nothing; here demonstrations that the model has no room for are left out, the
least like first, and the card says how many fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from emend._settings import Count, NotNegative, Seed, Whole
from emend._warn import warn
from emend.edits import Edit
from emend.errors import UnsupportedModel
from emend.methods._method import method
from emend.methods.in_context._demonstrations import Demonstration, Pool, choose, pool_of
from emend.methods.in_context._facts import room_of
from emend.methods.in_context._recall import Facts, check_readable, remembered
from emend.methods.in_context.ike._patch import IkePatch, Writer
from emend.models import Endpoint
from emend.patches import MemoryPatch, describe_base
from emend.retrieval import check_encoder


@dataclass(frozen=True)
class IkeConfig:
    """Settings of IKE."""

    k: Whole = 32
    """Demonstrations before a prompt, at most; 0 for in-context editing without any."""
    demonstrations: str = "general"
    """What they are made of: general (ships), a dataset such as lab, a file of edits, or none."""
    ratio: tuple[Whole, Whole, Whole] = (1, 3, 4)
    """Parts of copy, update and retain among them."""
    own_copy: bool = True
    """Whether the fact itself is shown being copied, last of all."""
    facts: Count = 1
    """How many facts stand before a prompt: the nearest ones."""
    contrast: NotNegative = 0.0
    """How much what the model would say without the fact is taken off what it says with it."""
    threshold: NotNegative = 0.0
    """A fact less near than this stays away; 0 puts one before every prompt, as published."""
    encoder: str = "bm25"
    """What facts are compared by: bm25, states, or a sentence-transformers model."""
    by_name: bool = True
    """Whether facts whose subject is named come before all others, and alone."""
    fact_line: str = "New Fact: {}"
    """How a fact is told."""
    prompt_line: str = "Prompt: {}"
    """How a prompt is asked."""
    separator: str = "\n\n"
    """What stands between two demonstrations."""
    reserve: Count = 64
    """Tokens that are left free for the answer."""
    seed: Seed = 0
    """Seed of which kind each demonstration is."""

    def __post_init__(self) -> None:
        check_encoder(self.encoder)


@method(
    title="IKE: a new fact stands before the prompt, with demonstrations of how to take it",
    paper="Zheng et al. 2023, arXiv 2305.12740",
    when="no change of weights at all; a model that follows what it reads; also over an API",
    order_free=True,
    memory=True,
    by_text=True,
)
def ike(
    model: Any,
    tokenizer: Any,
    edits: tuple[Edit, ...],
    config: IkeConfig,
    previous: MemoryPatch | None = None,
) -> IkePatch:
    """Remember facts with demonstrations chosen for each."""
    check_readable(model, tokenizer, edits)
    if config.contrast and isinstance(model, Endpoint):
        raise UnsupportedModel(
            f"{model.name} gives no probabilities to be compared, expected a model with its "
            "weights here: leave contrast=0"
        )
    everything = remembered([*(previous.edits if previous else ()), *edits])
    facts = Facts(everything, config.encoder, config.by_name, model, tokenizer)
    settings = {**asdict(config), "ratio": list(config.ratio)}
    demonstrations, chosen = _demonstrations(facts, config, model, tokenizer)
    writer = Writer(settings, demonstrations, chosen)
    room = _fitting(writer, everything, room_of(model, config.reserve), tokenizer)
    return IkePatch(
        edits=everything,
        method="ike",
        config=settings,
        base=describe_base(model),
        details={
            "demonstrations": [list(asdict(one).values()) for one in demonstrations],
            "chosen": chosen,
            "room": room,
            **facts.mark(),
        },
    )


def _demonstrations(
    facts: Facts, config: IkeConfig, model: Any, tokenizer: Any
) -> tuple[list[Demonstration], dict[str, list[int]]]:
    """Every demonstration once, and for each edit the places of its own."""
    if config.k == 0:
        return [], {}
    pool: Pool = pool_of(config.demonstrations, config.encoder, model=model, tokenizer=tokenizer)
    subjects = sorted({edit.subject for edit in facts.edits})
    places: dict[Demonstration, int] = {}
    chosen: dict[str, list[int]] = {}
    for edit, fact in zip(facts.edits, facts.texts, strict=True):
        own = choose(
            pool,
            fact,
            count=config.k,
            ratio=config.ratio,
            without=subjects,
            seed=f"{config.seed}-{edit.id}",
        )
        chosen[edit.id] = [places.setdefault(one, len(places)) for one in own]
    return list(places), chosen


def _fitting(
    writer: Writer, edits: Sequence[Edit], room: int | None, tokenizer: Any
) -> dict[str, Any]:
    """How many demonstrations the context holds before the edits' own prompts; told if not all."""
    wanted = max((len(places) for places in writer.chosen.values()), default=0)
    least = wanted
    if wanted and room is not None:
        for edit in edits:
            left_out = writer.write([edit], edit.text, room, tokenizer)[1]
            least = min(least, max(0, len(writer.chosen[edit.id]) - left_out))
    if least < wanted:
        warn(
            f"the model's context holds {least} of {wanted} demonstrations before the longest "
            f"prompt: the least like are left out; k={least} asks for no more"
        )
    return {"tokens": room, "demonstrations": wanted, "fitting": least}
