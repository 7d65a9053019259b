"""Fingerprints of everything that a result depends on.

Every cache, journal, ledger value, sweep record and patch base takes its key from here, so that no
stored result is used for another input:

    key                     of a computation: its name, its version here, and all its inputs
    digest                  of settings: JSON-able data, dataclasses, dtypes, tensors
    texts_digest            of texts in their order: their content, never their name
    file_digest             of a file's content
    tokenizer_fingerprint   of how a tokenizer tokenizes
    config_fields           the fields of a configuration that a model computes with

The fingerprint of a model, `models.model_fingerprint`, is made of `config_fields` and of the
digests of all its weights (`_tensors`). All digests are XXH3 of 128 bits (by the library xxhash):
they distinguish inputs that differ by accident, and are no signatures.

Inputs with the same key give the same result. The converse need not hold: a tokenizer saved by
another version of its library may have another key, which costs a computation and is safe.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import xxhash

from emend import _tensors

VERSIONS = {
    "bench": 2,  # records have magnitudes and correct tokens, units the form of their file
    "cholesky factor": 1,
    "endpoint answer": 1,
    "hypernetwork training": 1,
    "key covariance": 2,  # keys at start tokens are left out
    "model": 1,
    "patch": 1,
    "single change": 2,  # of rome: contexts as memit has them
    "spectrum": 1,
    "style vector": 1,
    "sweep": 1,
    "grid": 1,
    "scale tuning": 1,
    "target value": 3,  # searches end by themselves, statements have eight tokens
    "task vector": 1,
    "text source": 1,
    "tokenizer": 1,
}
"""The version of each algorithm whose results are cached. Raise it when the same inputs give
another result (beyond rounding), so that results of older code are computed anew. A method states
its own, by ``@method(version=...)``."""

IGNORED_FIELDS = frozenset(
    "_attn_implementation architectures attn_implementation auto_map chunk_size_feed_forward "
    "dtype emend gradient_checkpointing id2label init_std initializer_range label2id layerdrop "
    "num_labels output_attentions output_hidden_states problem_type quantization_config "
    "return_dict task_specific_params tokenizer_class torch_dtype transformers.js_config "
    "transformers_version use_cache".split()
)
"""Fields of a configuration on which no logit depends: bookkeeping, initial weights, special tokens
(emend takes them from the tokenizer), precision (which the weights have) and the lab's marker
(``emend``). See also `IGNORED_ENDINGS`."""

IGNORED_ENDINGS = ("dropout", "name_or_path", "pdrop", "_token_id")
"""Endings of further ignored fields; dropout, since emend runs models in evaluation mode."""

_BLOCK = 1 << 20


def key(algorithm: str, /, **inputs: Any) -> str:
    """Return the key under which the result of a computation is cached.

    Args:
        algorithm: A name of `VERSIONS`.
        inputs: All inputs of the computation, each of a type that `digest` accepts.

    Returns:
        32 hexadecimal digits.

    Raises:
        KeyError: The algorithm has no version.
        TypeError: An input has no canonical form.
    """
    return digest([algorithm, VERSIONS[algorithm], inputs])


def digest(value: Any) -> str:
    """Hash settings by their canonical form.

    Args:
        value: None, bool, int, float, str, bytes, a path, an enum, a dtype or device of torch, a
            scalar of numpy, a tensor, and mappings, sequences, sets and dataclasses of these. The
            order of a mapping's and a set's members does not count; a list equals a tuple.

    Returns:
        32 hexadecimal digits.

    Raises:
        TypeError: It contains something else, which has no canonical form.
    """
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())


def texts_digest(texts: Iterable[str]) -> str:
    """Hash the content of texts in their order; 32 hexadecimal digits."""
    content = xxhash.xxh3_128()
    for text in texts:
        data = text.encode(errors="surrogatepass")
        content.update(len(data).to_bytes(8, "little"))
        content.update(data)
    return content.hexdigest()


def file_digest(path: Path) -> str:
    """Hash the content of a file; 32 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    content = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            content.update(block)
    return content.hexdigest()


def directory_digest(path: Path) -> str:
    """Hash the names and contents of all files under a directory; 32 hexadecimal digits.

    Raises:
        OSError: A file cannot be read.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])


def config_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a configuration that a model computes with.

    Args:
        config: A configuration of transformers, or a mapping.

    Returns:
        Values by dotted path (``text_config.rms_norm_eps``), JSON-able, without `IGNORED_FIELDS`
        and without fields that are None, which a version of transformers may not know. Numbers
        are rounded to six digits, since files of other formats store them in float32.
    """
    given = config if isinstance(config, Mapping) else getattr(config, "to_dict", dict)()
    found: dict[str, Any] = {}
    for name, value in cast("Mapping[Any, Any]", given).items():
        name = str(name)
        if value is None or name in IGNORED_FIELDS or name.endswith(IGNORED_ENDINGS):
            continue
        if isinstance(value, Mapping):
            inner = config_fields(value)
            found |= {f"{name}.{path}": inner[path] for path in inner}
        else:
            found[name] = _rounded(_plain(value))
    return dict(sorted(found.items()))


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Hash everything that determines how a tokenizer tokenizes a text.

    That is its vocabulary, merges, normalizer, splitting, added tokens, the tokens that it puts
    around a text, and its special tokens. Padding, truncation and chat templates do not count.

    Returns:
        32 hexadecimal digits. A tokenizer without an accessible vocabulary has a new fingerprint in
        each process, so that no cached result is used for it.
    """
    special = dict(getattr(tokenizer, "special_tokens_map", None) or {})
    special.pop("pad_token", None)
    common = {
        "special": {name: str(token) for name, token in special.items()},
        "split_special_tokens": bool(getattr(tokenizer, "split_special_tokens", False)),
        "start": list(getattr(getattr(tokenizer, "emend_start", None), "ids", ())),
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and hasattr(backend, "get_added_tokens_decoder"):
        return key("tokenizer", **common, **_fast_parts(tokenizer, backend))
    if not hasattr(tokenizer, "get_vocab"):
        return _unknown(tokenizer)
    model = getattr(tokenizer, "sp_model", None)
    return key(
        "tokenizer",
        **common,
        kind=f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}",
        vocabulary=tokenizer.get_vocab(),
        merges=[list(pair) for pair in getattr(tokenizer, "bpe_ranks", ())],
        pieces=model.serialized_model_proto() if model is not None else None,
    )


def _plain(value: Any) -> Any:
    """Return the canonical form of a value, as JSON data."""
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": xxhash.xxh3_128_hexdigest(value)}
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {name if isinstance(name, str) else repr(name): _plain(one) for name, one in items}
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(each) for each in cast("set[Any]", value)), key=json.dumps)
    if isinstance(value, Sequence):
        return [_plain(each) for each in cast("Sequence[Any]", value)]
    return _of_library(value)


def _of_library(value: Any) -> Any:
    """Return the canonical form of a value of torch or numpy, without importing them."""
    kind = type(value)
    if hasattr(value, "untyped_storage"):
        return {"tensor": _tensors.digests_of(value).exact}
    if kind.__module__ == "torch" and kind.__name__ in ("dtype", "device"):
        return str(value)
    if kind.__module__ == "numpy" and value.shape == ():
        return _plain(value.item())
    raise TypeError(f"no fingerprint of {kind.__name__}: give settings, texts or tensors")


def _rounded(value: Any) -> Any:
    """Round floats, also in lists, to six digits; whole ones become integers."""
    if isinstance(value, list):
        return [_rounded(each) for each in cast("list[Any]", value)]
    if not isinstance(value, float):
        return value
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() else short


_models: WeakKeyDictionary[Any, tuple[str, str]] = WeakKeyDictionary()
_own: WeakKeyDictionary[Any, str] = WeakKeyDictionary()

_PROBE = (
    "".join(map(chr, range(32, 127))) + " The capital of Poland is Warsaw, naïve café, 北京. 12,345"
)
_LIVE = ("dropout", "unk_token", "fuse_unk", "byte_fallback", "ignore_merges")


def _fast_parts(tokenizer: Any, backend: Any) -> dict[str, Any]:
    """Return the parts of a tokenizer of the library tokenizers.

    Its model, up to megabytes of vocabulary and merges, is hashed again only if its size or its
    tokens of a probe text change; all other parts each time.
    """
    model, size = backend.model, backend.get_vocab_size(with_added_tokens=False)
    some = [backend.id_to_token(number) for number in range(0, size, size // 256 + 1)]
    probe = digest([size, some, backend.encode(_PROBE).ids])
    known = _models.get(tokenizer)
    if known is None or known[0] != probe:
        known = (probe, digest(model.__getstate__()))
        _models[tokenizer] = known
    parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    states = {name: getattr(backend, name) for name in parts}
    added: dict[int, Any] = backend.get_added_tokens_decoder()
    return {
        "model": known[1],
        "live": [getattr(model, name, None) for name in _LIVE],
        "added": {str(number): repr(token) for number, token in added.items()},
        **{name: part and part.__getstate__() for name, part in states.items()},
    }


def _unknown(tokenizer: Any) -> str:
    try:
        return _own.setdefault(tokenizer, f"unknown-{uuid.uuid4().hex}")
    except TypeError:  # it cannot be referred to weakly
        return f"unknown-{uuid.uuid4().hex}"
