"""MeLLo: questions are answered step by step, each step checked against the edited facts.

Zhong et al. 2023, "MQuAKE: Assessing Knowledge Editing in Language Models via Multi-Hop
Questions", arXiv 2305.14795, section 5.

    repeat  q_i <- the model's next subquestion, a_i <- its own answer
            f_i <- the edited fact nearest to q_i
            the model says whether f_i contradicts a_i, and goes on with the better answer
    until   "Final answer: ..."

    paper                     here
    the loop                  `incontext/stepwise.py`; its layout and its reading: `steps.py`
    edited fact memory        `incontext/recall.py`, over `emend.retrieval`
    four worked examples      `examples`; ours are our own

All questions of a call advance one round together. What was asked, retrieved and concluded is kept
for every question (`--log_samples`); steps that cannot be read count as failures, and the model
then reads the question alone.

Where this deviates: facts are compared by their words (BM25) unless another `encoder` is named
(published: Contriever), those whose subject the subquestion names first; before a statement to be
completed ("... was born in"), which the paper has not, stands the fact nearest to it, as in-context
editing has it. By `threshold` a fact that is not near may be kept away; the model is then shown its
own answer in the fact's place (as the scope detector of PokeMQA, arXiv 2312.15194, lets it stand).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from emend._settings import Count, NotNegative
from emend.edits import Edit
from emend.methods._method import method
from emend.methods.in_context._recall import Facts, check_readable, remembered
from emend.methods.in_context.mello._patch import MelloPatch, examples_of
from emend.patches import MemoryPatch, describe_base
from emend.retrieval import check_encoder


@dataclass(frozen=True)
class MelloConfig:
    """Settings of MeLLo."""

    hops: Count = 4
    """Steps of one question, at most."""
    examples: str = "general"
    """Worked examples before every question: general (four that ship), none, or a text file."""
    encoder: str = "bm25"
    """What facts are compared by: bm25, states, or a sentence-transformers model."""
    by_name: bool = True
    """Whether facts whose subject is named come before all others, and alone."""
    threshold: NotNegative = 0.0
    """A fact less near than this is not shown; 0 shows one at every step, as published."""
    with_answer: bool = False
    """Whether facts are sought by the model's own answer too, not by its subquestion alone."""
    new_tokens: Count = 256
    """Tokens that the model writes in one round, at most."""
    fact_line: str = "New Fact: {}"
    """How a fact is told before a statement that is no question."""
    prompt_line: str = "Prompt: {}"
    """How such a statement is put."""

    def __post_init__(self) -> None:
        check_encoder(self.encoder)


@method(
    title="MeLLo: questions answered step by step, each step checked against the edited facts",
    paper="Zhong et al. 2023, arXiv 2305.14795",
    when="what follows from edits over several facts; a model that can reason in steps, or an API",
    order_free=True,
    memory=True,
    by_text=True,
)
def mello(
    model: Any,
    tokenizer: Any,
    edits: tuple[Edit, ...],
    config: MelloConfig,
    previous: MemoryPatch | None = None,
) -> MelloPatch:
    """Remember facts to answer from."""
    check_readable(model, tokenizer, edits)
    everything = remembered([*(previous.edits if previous else ()), *edits])
    facts = Facts(everything, config.encoder, config.by_name, model, tokenizer)
    return MelloPatch(
        edits=everything,
        method="mello",
        config=asdict(config),
        base=describe_base(model),
        details={"examples": examples_of(config.examples), **facts.mark()},
    )
