"""Serving a patch: what each engine requires of it, and the commands that serve an export.

From the sources of vLLM 0.33, SGLang 0.5.23 and llama.cpp (November 2026), and tried with PEFT
0.21. A patch saved in canonical form satisfies PEFT and SGLang (canonical form uses no field that
one of them ignores). Checked here is what depends on the patch: its rank and its model.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from emend.errors import EmendError, MissingExtra
from emend.models.gguf_names import gguf_names
from emend.models.packaged import MODELS

if TYPE_CHECKING:
    from emend.patches._weight import WeightPatch

Verdict = Literal["met", "broken", "untested"]

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM accepts for --max-lora-rank."""

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


CACHE_RULE = (
    "llama.cpp keeps keys and values that were computed under other adapters: start it with "
    "--cache-ram 0, and name every adapter with its scale in each request (0.0 turns it off)"
)


@dataclass(frozen=True)
class Constraint:
    """A requirement of one server.

    Attributes:
        server: PEFT, vLLM, SGLang or llama.cpp.
        verdict: "met"; "broken": the server will refuse the patch or compute something else;
            "untested": nothing is known against it, and nobody has tried.
        what: The finding, in one line.
        remedy: The flags to serve it with, or a workaround.
    """

    server: str
    verdict: Verdict
    what: str
    remedy: str

    def to_dict(self) -> dict[str, str]:
        """Return JSON-able data."""
        return asdict(self)


def serving(patch: WeightPatch) -> tuple[Constraint, ...]:
    """Check the requirements of PEFT, vLLM, SGLang and llama.cpp.

    Dense changes count with the largest rank that they can have; the saved patch may have a
    lower one, and its ``emend.json`` holds the constraints for that.
    """
    return constraints(patch.rank, patch.factors, patch.base)


def constraints(
    rank: int, modules: Iterable[str], base: Mapping[str, Any]
) -> tuple[Constraint, ...]:
    """Check the same as :func:`serving`, without the factors of a patch.

    Args:
        rank: The rank that the adapter is stored with.
        modules: Full names of the modules that it changes.
        base: The model, as :func:`~emend.patches.describe_base` describes it.
    """
    modules = tuple(modules)
    if not modules:
        return tuple(Constraint(server, "broken", *NOTHING) for server in SERVERS)
    last = _last_names(modules)
    return (
        Constraint(
            "PEFT", "met", "a plain LoRA adapter", "PeftModel.from_pretrained(model, directory)"
        ),
        *_vllm(rank, ",".join(last), str(base.get("model_type", ""))),
        Constraint(
            "SGLang",
            "met",
            f"one rank ({rank}) for all modules and no patterns",
            f"--enable-lora --lora-paths NAME=directory --max-lora-rank {rank} "
            f"--lora-target-modules {' '.join(last)}",
        ),
        _llama_cpp(modules, base),
    )


def _last_names(modules: Iterable[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in modules})


def _vllm_rank(rank: int) -> int:
    return next(allowed for allowed in VLLM_RANKS if allowed >= rank)


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
        ranked = Constraint(
            "vLLM",
            "met",
            f"rank {rank}",
            f"--enable-lora --max-lora-rank {_vllm_rank(rank)} --lora-target-modules {last}",
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


class Command(NamedTuple):
    """A command to type next.

    Attributes:
        engine: What serves the model.
        text: The command, one or more lines.
    """

    engine: str
    text: str


@dataclass(frozen=True)
class Served:
    """An exported patch.

    Attributes:
        patch: The patch.
        path: The file or directory that was written.
        base: The model that the engine loads, as an argument of its command; "" if not known.
    """

    patch: WeightPatch
    path: Path
    base: str

    @property
    def prompt(self) -> str:
        """The first edited prompt, with the start token that the edit was made with."""
        text = self.patch.edits[0].text if self.patch.edits else "The capital of France is"
        return self.start + text

    @property
    def start(self) -> str:
        """The start token that emend puts before a text; "" if none."""
        return str(self.patch.base.get("start_token") or "")


Steps = tuple[tuple[Command, ...], tuple[str, ...]]
"""Commands, and notes."""


def quoted(path: str | Path) -> str:
    """Quote a path for a shell."""
    return shlex.quote(str(path))


def gguf_adapter(served: Served) -> Steps:
    """Serve an adapter in GGUF: llama.cpp."""
    base = served.base or "BASE.gguf"
    start = f"llama-server --model {base} --lora {quoted(served.path)} --cache-ram 0"
    body = {**_request(served, "n_predict"), "lora": [{"id": 0, "scale": 1.0}]}
    notes = [CACHE_RULE, *_start_note(served)]
    if not served.base:
        notes.append(
            "BASE.gguf is the model that was edited, as convert_hf_to_gguf.py of llama.cpp "
            "writes it (quantised or not)"
        )
    return (Command("llama.cpp", f"{start}\n{_post(8080, '/completion', body)}"),), tuple(notes)


def merged_gguf(served: Served) -> Steps:
    """Serve a merged model in GGUF: llama.cpp, and what builds on it."""
    start = f"llama-server --model {quoted(served.path)}"
    name = served.path.stem.lower()
    ollama = (
        f"printf 'FROM %s\\n' {quoted(served.path.resolve())} > Modelfile\n"
        f"ollama create {quoted(name)} -f Modelfile && ollama run {quoted(name)}"
    )
    request = _post(8080, "/completion", _request(served, "n_predict"))
    commands = (Command("llama.cpp", f"{start}\n{request}"), Command("Ollama", ollama))
    return commands, tuple(_start_note(served))


def peft(served: Served, rank: int) -> Steps:
    """Serve a PEFT folder, whose factors have this rank: PEFT itself and vLLM."""
    patch, folder = served.patch, served.path
    commands = [Command("transformers + PEFT", _peft_script(served))]
    notes = [
        f"{one.server}: {one.what}; {one.remedy}"
        for one in constraints(rank, patch.factors, patch.base)
        if one.server == "vLLM" and one.verdict != "met"
    ]
    if rank <= VLLM_RANKS[-1]:
        commands.append(Command("vLLM", _vllm_command(served, rank)))
    if not served.base:
        notes.append(
            "the patch names no base: export it with the name that vLLM's --model will have "
            "(base_model), since its resolver takes an adapter for that very text alone"
        )
    elif _only_here(served.base):
        notes.append(
            f"vLLM cannot load {served.base!r}: export the patch merged, or export it "
            "with the name that vLLM's --model will have (base_model)"
        )
    notes.append(f"the folder's name is the adapter's: requests ask for the model {folder.name!r}")
    return tuple(commands), (*notes, *_start_note(served))


def merged(served: Served) -> Steps:
    """Serve a merged checkpoint: whatever loads the Hugging Face form."""
    folder = quoted(served.path)
    script = _script(
        "from transformers import pipeline",
        f"generate = pipeline('text-generation', {str(served.path)!r})",
        f"print(generate({served.prompt!r}, max_new_tokens=8, do_sample=False))",
    )
    body = {"model": str(served.path), **_request(served)}
    vllm = f"vllm serve {folder}\n{_post(8000, '/v1/completions', body)}"
    gguf = f"python convert_hf_to_gguf.py {folder} --outfile merged.gguf --outtype q8_0"
    if _from_gguf(str(served.patch.base.get("name") or "")):
        gguf = "emend export --patch PATCH --format merged-gguf --output_path merged.gguf"
    commands = (
        Command("transformers", script),
        Command("vLLM", vllm),
        Command("llama.cpp, Ollama", gguf),
    )
    return commands, tuple(_start_note(served))


def _vllm_command(served: Served, rank: int) -> str:
    folder = quoted(served.path.parent.resolve())
    settings = (
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True VLLM_PLUGINS=lora_filesystem_resolver "
        f"VLLM_LORA_RESOLVER_CACHE_DIR={folder}"
    )
    base = quoted(served.base) if served.base else "BASE"
    start = (
        f"vllm serve {base} --enable-lora --max-lora-rank {_vllm_rank(rank)} "
        f"--lora-target-modules {','.join(_last_names(served.patch.factors))}"
    )
    body = {"model": served.path.name, **_request(served)}
    return f"{settings} \\\n  {start}\n{_post(8000, '/v1/completions', body)}"


def _peft_script(served: Served) -> str:
    if _only_here(served.base):
        load = ("import emend", f"model, tokenizer = emend.load({served.base!r})")
    else:
        base = served.base or "BASE"
        load = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            f"model = AutoModelForCausalLM.from_pretrained({base!r})",
            f"tokenizer = AutoTokenizer.from_pretrained({base!r})",
        )
    return _script(
        "from peft import PeftModel",
        *load,
        f"model = PeftModel.from_pretrained(model, {str(served.path)!r})",
        f"inputs = tokenizer({served.prompt!r}, return_tensors='pt')",
        "output = model.generate(**inputs, max_new_tokens=8, do_sample=False)",
        "print(tokenizer.decode(output[0]))",
    )


def _only_here(base: str) -> bool:
    """Return whether only emend loads a model by this name."""
    return _from_gguf(base) or base.startswith("lab/")


def _from_gguf(base: str) -> bool:
    """Return whether the weights of a base came from a GGUF file."""
    return base in MODELS or is_gguf_name(base)


def is_gguf_name(base: str) -> bool:
    """Return whether a base is named by its GGUF file."""
    return base.casefold().endswith(".gguf")


def _start_note(served: Served) -> list[str]:
    if not served.start:
        return []
    return [
        f"begin every plain prompt with {served.start!r}, as the edits were made; a chat template "
        "needs none (docs/start-token.md)"
    ]


def _request(served: Served, length: str = "max_tokens") -> dict[str, Any]:
    return {"prompt": served.prompt, length: 8, "temperature": 0}


def _post(port: int, path: str, body: dict[str, Any]) -> str:
    data = shlex.quote(json.dumps(body, ensure_ascii=False))
    return (
        f"curl -s http://127.0.0.1:{port}{path} -H 'Content-Type: application/json' \\\n  -d {data}"
    )


def _script(*lines: str) -> str:
    return "\n".join(["python - <<'END'", *lines, "END"])
