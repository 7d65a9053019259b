"""What servers ask of a patch, and what to do where it cannot be had.

Read in the sources of vLLM 0.33, SGLang 0.5.23 and llama.cpp (November 2026), and tried with PEFT
0.21. Saved in canonical form a patch meets what PEFT and SGLang ask (they differ in which fields
they heed: canonical form uses none that one of them ignores). Checked here is what depends on the
patch: its rank and the model that it is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from emend.errors import EmendError, MissingExtra
from emend.models.gguf_names import gguf_names

if TYPE_CHECKING:
    from emend.patches._weight import WeightPatch

Verdict = Literal["met", "broken", "untested"]

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank of vLLM may be."""

VLLM_SERVES = frozenset(
    {
        *("llama", "mistral", "mixtral", "qwen2", "qwen3", "opt", "phi3"),
        *("gemma", "gemma2", "gemma3", "gemma3_text"),
    }
)
VLLM_REFUSES = frozenset({"gpt2", "gptj", "bloom", "falcon"})
MERGE = "write merged weights (emend export --format merged) and serve those"

SERVERS = ("PEFT", "vLLM", "SGLang", "llama.cpp")
NOTHING = ("the patch changes nothing, an adapter must change a module", "serve the base model")


@dataclass(frozen=True)
class Constraint:
    """What one server asks of a patch.

    Attributes:
        server: PEFT, vLLM, SGLang or llama.cpp.
        verdict: "met"; "broken": the server will refuse the patch or compute something else;
            "untested": nothing is known against it, and nobody has tried.
        what: What was found, in one line.
        remedy: What to do: the flags to serve it with, or the way round.
    """

    server: str
    verdict: Verdict
    what: str
    remedy: str

    def to_dict(self) -> dict[str, str]:
        """JSON-able."""
        return asdict(self)


def serving(patch: WeightPatch) -> tuple[Constraint, ...]:
    """What PEFT, vLLM, SGLang and llama.cpp ask of a patch, each with what to do.

    Dense changes count with the largest rank that they can have; what is saved may have less,
    and its ``emend.json`` says what holds of it.
    """
    return constraints(patch.rank, patch.factors, patch.base)


def constraints(
    rank: int, modules: Iterable[str], base: Mapping[str, Any]
) -> tuple[Constraint, ...]:
    """As :func:`serving`, for what is known of a patch without its factors.

    Args:
        rank: The rank that the adapter is stored with.
        modules: Full names of the modules that it changes.
        base: What :func:`~emend.patches.describe_base` says of the model.
    """
    modules = tuple(modules)
    if not modules:
        return tuple(Constraint(server, "broken", *NOTHING) for server in SERVERS)
    last = ",".join(sorted({name.rpartition(".")[2] for name in modules}))
    return (
        Constraint(
            "PEFT", "met", "a plain LoRA adapter", "PeftModel.from_pretrained(model, directory)"
        ),
        *_vllm(rank, last, str(base.get("model_type", ""))),
        Constraint(
            "SGLang",
            "met",
            f"one rank ({rank}) for all modules and no patterns",
            f"--enable-lora --lora-paths NAME=directory --max-lora-rank {rank} "
            f"--lora-target-modules {last.replace(',', ' ')}",
        ),
        _llama_cpp(modules, base),
    )


def _vllm(rank: int, last: str, model_type: str) -> tuple[Constraint, Constraint]:
    largest = VLLM_RANKS[-1]
    if rank > largest:
        ranked = Constraint(
            "vLLM",
            "broken",
            f"rank {rank}, expected at most {largest}",
            f"compress it (patch.compress(rank={largest}), emend patch compress --rank {largest}) "
            f"and read the error, or {MERGE}",
        )
    else:
        fits = next(allowed for allowed in VLLM_RANKS if allowed >= rank)
        ranked = Constraint(
            "vLLM",
            "met",
            f"rank {rank}",
            f"--enable-lora --max-lora-rank {fits} --lora-target-modules {last}",
        )
    if model_type in VLLM_REFUSES:
        return ranked, Constraint("vLLM", "broken", f"serves no LoRA for {model_type}", MERGE)
    if model_type in VLLM_SERVES:
        return ranked, Constraint("vLLM", "met", f"serves LoRA for {model_type}", "as above")
    found = f"LoRA for {model_type or 'this model'} was not tried"
    return ranked, Constraint("vLLM", "untested", found, f"try it, or {MERGE}")


def _llama_cpp(modules: Iterable[str], base: Mapping[str, Any]) -> Constraint:
    try:
        names = gguf_names(base)
        names.tensors(modules)
    except MissingExtra as error:
        return Constraint("llama.cpp", "untested", "tensor names were not checked", str(error))
    except EmendError as error:
        what, _, _ = str(error).partition(", expected")
        return Constraint("llama.cpp", "broken", what.partition(": ")[0], MERGE)
    return Constraint(
        "llama.cpp",
        "met",
        f"tensors of {names.architecture!r}",
        "emend export --format gguf, then llama-server --lora FILE --cache-ram 0",
    )
