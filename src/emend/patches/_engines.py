"""The commands that serve an exported patch, engine by engine, and what to know before them."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from emend.models.packaged import MODELS
from emend.patches._serving import VLLM_RANKS, constraints

if TYPE_CHECKING:
    from emend.patches._weight import WeightPatch

CACHE_RULE = (
    "llama.cpp keeps keys and values that were computed under other adapters: start it with "
    "--cache-ram 0, and name every adapter with its scale in each request (0.0 turns it off)"
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
    """What was exported.

    Attributes:
        patch: The patch.
        path: What was written.
        base: The model that the engine loads, as its command takes it; "" where it is not known.
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
        """The start token that emend puts in front of a text; "" where it puts none."""
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
    body = {**_llama_request(served), "lora": [{"id": 0, "scale": 1.0}]}
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
    request = _post(8080, "/completion", _llama_request(served))
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
        commands.append(Command("vLLM", _vllm(served, rank)))
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


def _vllm(served: Served, rank: int) -> str:
    most = next(allowed for allowed in VLLM_RANKS if allowed >= rank)
    modules = sorted({name.rpartition(".")[2] for name in served.patch.factors})
    folder = quoted(served.path.parent.resolve())
    settings = (
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True VLLM_PLUGINS=lora_filesystem_resolver "
        f"VLLM_LORA_RESOLVER_CACHE_DIR={folder}"
    )
    base = quoted(served.base) if served.base else "BASE"
    start = (
        f"vllm serve {base} --enable-lora --max-lora-rank {most} "
        f"--lora-target-modules {','.join(modules)}"
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
    """Whether a base is known by a name that emend alone loads."""
    return _from_gguf(base) or base.startswith("lab/")


def _from_gguf(base: str) -> bool:
    """Whether the weights of a base came from a GGUF file."""
    return base in MODELS or base.casefold().endswith(".gguf")


def _start_note(served: Served) -> list[str]:
    if not served.start:
        return []
    return [
        f"begin every plain prompt with {served.start!r}, as the edits were made; a chat template "
        "needs none (docs/start-token.md)"
    ]


def _request(served: Served) -> dict[str, Any]:
    return {"prompt": served.prompt, "max_tokens": 8, "temperature": 0}


def _llama_request(served: Served) -> dict[str, Any]:
    return {"prompt": served.prompt, "n_predict": 8, "temperature": 0}


def _post(port: int, path: str, body: dict[str, Any]) -> str:
    data = shlex.quote(json.dumps(body, ensure_ascii=False))
    return (
        f"curl -s http://127.0.0.1:{port}{path} -H 'Content-Type: application/json' \\\n  -d {data}"
    )


def _script(*lines: str) -> str:
    return "\n".join(["python - <<'END'", *lines, "END"])
