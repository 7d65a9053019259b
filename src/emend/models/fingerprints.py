"""The fingerprints of a model: all its weights, and its configuration."""

from __future__ import annotations

from typing import Any

from torch import nn

from emend import _identity, _tensors
from emend.models.placing import stored_weights
from emend.models.start import ensure_start
from emend.models.wrapping import adapters_state, plain_weights


def model_fingerprint(model: nn.Module) -> str:
    """Hash everything of a model that a result depends on.

    That is every byte of every parameter and of every buffer that a checkpoint keeps, with names,
    shapes and dtypes, and the configuration (`_identity.config_fields`). It does not depend on the
    device, on offloading, on the order of registration, on the object or on the process. Patches
    that are attached do not count, since they leave the weights as they are; adapters of PEFT do,
    and which of them act.

    Each weight is read once, and again when it has changed; see `_tensors`.

    Args:
        model: A causal language model, whole in this process.

    Returns:
        32 hexadecimal digits, for the keys of caches.

    Raises:
        InvalidInput: A weight is on the meta device and nothing tells where its values are.
        UnsupportedModel: 4-bit weights are packed in a way that cannot be read.
    """
    weights = _tensors.digests_of_all(stored_weights(model))
    config = _identity.config_fields(getattr(model, "config", None))
    adapters = {"adapters": state} if (state := adapters_state(model)) else {}
    return _identity.key(
        "model", kind=type(model).__name__, weights=weights.exact, config=config, **adapters
    )


def tokens_fingerprint(model: nn.Module, tokenizer: Any) -> str:
    """Hash what decides which tokens a model reads of a text: its tokenizer and start token.

    The start token is looked for first where none is known yet, so that a key which is made before
    the first pass is that which is made after it.

    Returns:
        32 hexadecimal digits; see `_identity.tokenizer_fingerprint`.
    """
    ensure_start(model, tokenizer)
    return _identity.tokenizer_fingerprint(tokenizer)


def weights_hash(model: nn.Module) -> str:
    """Hash a model's weights, rounded to bfloat16: which checkpoint it is, in any float precision.

    They are those of the plain model: adapters of PEFT around its layers do not count, but where
    they were merged into its weights.

    Every number of every weight enters, with names and shapes. A checkpoint has one hash whether it
    is loaded in float32 or in bfloat16. Float16 rounds otherwise: only a checkpoint that is stored
    in float16 has the same hash in all three. Changes below half a unit of bfloat16's last place
    (a 256th part of the number) are not seen where none of the numbers is rounded otherwise, which
    among thousands of numbers is not to be expected.

    Returns:
        32 hexadecimal digits, for a patch to name its base by; see `describe_config` for the rest.

    Raises:
        InvalidInput: A weight is on the meta device and nothing tells where its values are.
        UnsupportedModel: 4-bit weights are packed in a way that cannot be read.
    """
    return _tensors.digests_of_all(plain_weights(model)).rounded


def forget_fingerprints() -> None:
    """Hash every weight anew, after single numbers were written through ``.data`` or numpy.

    All other changes are noticed without this; see `_tensors`.
    """
    _tensors.forget()


def describe_config(model: nn.Module) -> dict[str, Any]:
    """Give the fields of the configuration that a model computes with; see `_identity`."""
    return _identity.config_fields(getattr(model, "config", None))
