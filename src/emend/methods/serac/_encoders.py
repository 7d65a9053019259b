"""What makes vectors of texts for a scope classifier: the model's own states, or another encoder.

An encoder is described by JSON-able data that a patch keeps; `encoder_of` makes it again.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from emend.errors import InvalidInput, MissingExtra, UnknownName
from emend.methods._modules import find_module
from emend.models import base, ensure_start
from emend.models.forward import batches, evaluating, head_at, longest_text
from emend.models.placing import device_of
from emend.models.positions import pad, pad_id, prompt_tokens
from emend.models.sharing import hooked
from emend.models.start import front_ids

BATCH = 32
PROBE = "The name of the capital is"
"""Text whose vector tells encoders of one name apart."""


class Encoder(Protocol):
    """Makes vectors of texts."""

    @property
    def description(self) -> dict[str, Any]:
        """What `encoder_of` makes it of, JSON-able."""
        ...

    def encode(self, model: nn.Module, tokenizer: Any, texts: Sequence[str]) -> Tensor:
        """(N, size) float32 vectors of N texts, for a model with whatever is attached to it."""
        ...


class States:
    """What some modules of the unedited model are given at a text's last token.

    Of a text longer than the model reads, the last tokens are read (behind its start token).

    Args:
        modules: Their full names. What each is given is divided by its length.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = tuple(modules)

    @property
    def description(self) -> dict[str, Any]:
        """See `Encoder.description`."""
        return {"kind": "states", "modules": list(self.modules)}

    def encode(self, model: nn.Module, tokenizer: Any, texts: Sequence[str]) -> Tensor:
        """See `Encoder.encode`."""
        ensure_start(model, tokenizer)
        front = len(front_ids(tokenizer))
        room = (longest_text(model) or 0) - front
        rows = [(*row[:front], *row[front:][-room:]) for row in prompt_tokens(tokenizer, texts)]
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        with base(model), torch.no_grad(), evaluating(model):
            for members in batches([len(row) for row in rows], BATCH):
                vectors = self._batch(model, [rows[n] for n in members], pad_id(tokenizer))
                for number, vector in zip(members, vectors, strict=True):
                    found[number] = vector
        return torch.stack(found) if found else torch.empty(0, 0)

    def _batch(self, model: Any, rows: Sequence[tuple[int, ...]], padding: int) -> Tensor:
        seen: dict[str, Tensor] = {}
        ends = torch.tensor([len(row) - 1 for row in rows])
        index = torch.arange(len(rows))

        def watch(name: str) -> Any:
            def look(_module: nn.Module, args: tuple[Any, ...]) -> None:
                given = args[0].reshape(len(rows), -1, args[0].shape[-1])
                seen[name] = given[index.to(given.device), ends.to(given.device)].float().cpu()

            return look

        batch = pad(rows, padding).to(device_of(model.get_input_embeddings()))
        with ExitStack() as stack:
            for name in self.modules:
                site = find_module(model, name)
                stack.enter_context(hooked(site, watch(name), before=True))
            stack.enter_context(head_at(model, index[:1], ends[:1]))
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        vectors = [nn.functional.normalize(seen[name], dim=-1) for name in self.modules]
        return torch.cat(vectors, dim=-1)


class Sentences:
    """A sentence-transformers model by its name.

    Args:
        name: Its name or directory.

    Raises:
        MissingExtra: sentence-transformers is not installed.
    """

    def __init__(self, name: str) -> None:
        try:
            package = importlib.import_module("sentence_transformers")
        except ImportError as error:
            raise MissingExtra.of(
                "sentence-transformers", "retrieval", "encode with one of its models"
            ) from error
        self.name = name
        self._network: Any = package.SentenceTransformer(name)

    @property
    def description(self) -> dict[str, Any]:
        """See `Encoder.description`; with some numbers that tell models of one name apart."""
        probe = self._encode([PROBE])[0]
        return {"kind": "sentences", "name": self.name, "probe": probe[:8].tolist()}

    def encode(self, model: nn.Module, tokenizer: Any, texts: Sequence[str]) -> Tensor:
        """See `Encoder.encode`."""
        del model, tokenizer
        return self._encode(texts)

    def _encode(self, texts: Sequence[str]) -> Tensor:
        vectors = self._network.encode(
            list(texts), convert_to_tensor=True, normalize_embeddings=True
        )
        return vectors.float().cpu()


def encoder_of(description: Mapping[str, Any]) -> Encoder:
    """The encoder that a description was made of.

    Raises:
        InvalidInput: A model of that name is another one by now.
        UnknownName: There is no such kind of encoder.
        MissingExtra: What it needs is not installed.
    """
    kind = str(description.get("kind"))
    if kind == "states":
        return States(description["modules"])
    if kind != "sentences":
        raise UnknownName("encoder", kind, ["states", "sentences"])
    found = Sentences(description["name"])
    check_encoder(description, found.description)
    return found


def check_encoder(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse vectors of one encoder where those of another are kept.

    Raises:
        InvalidInput: They are of different ones.
    """
    same = {**expected, "probe": None} == {**found, "probe": None}
    probes = [torch.tensor(each.get("probe") or [0.0]) for each in (expected, found)]
    same = same and probes[0].shape == probes[1].shape
    if not same or not torch.allclose(probes[0], probes[1], atol=1e-3):
        raise InvalidInput(
            f"the memory was made with the encoder {_named(expected)}, found {_named(found)}: "
            "use that encoder, or make the memory again with this one"
        )


def _named(description: Mapping[str, Any]) -> str:
    if description.get("kind") == "sentences":
        return str(description.get("name"))
    return "states of " + ", ".join(map(str, description.get("modules", ())))
