"""Any Hugging Face causal language model: its structure, positions, scores and continuations."""

from __future__ import annotations

from emend.models.answering import Inquiry, Reply, inquire
from emend.models.architecture import Architecture
from emend.models.attachments import (
    Attachment,
    MixtureComponent,
    acting,
    attach,
    attachments,
    base,
    detach,
    for_everyone,
)
from emend.models.chat import chat_prompt, has_chat_template
from emend.models.endpoint import Endpoint, is_endpoint
from emend.models.fingerprints import (
    forget_fingerprints,
    model_fingerprint,
    tokens_fingerprint,
    weights_hash,
)
from emend.models.generation import Continuation, continuations, generate, stream
from emend.models.loading import load
from emend.models.passes import HookAttachment, TextAttachment
from emend.models.positions import (
    Encoded,
    beyond_subjects,
    encode,
    join_target,
    join_targets,
    subject_token,
    subject_tokens,
)
from emend.models.scoring import Score, perplexity, score, target_log_probs, top1
from emend.models.start import Start, ensure_start, set_start, start_of
from emend.models.view import ModelView

__all__ = [
    "Architecture",
    "Attachment",
    "Continuation",
    "Encoded",
    "Endpoint",
    "HookAttachment",
    "Inquiry",
    "MixtureComponent",
    "ModelView",
    "Reply",
    "Score",
    "Start",
    "TextAttachment",
    "acting",
    "attach",
    "attachments",
    "base",
    "beyond_subjects",
    "chat_prompt",
    "continuations",
    "detach",
    "encode",
    "ensure_start",
    "for_everyone",
    "forget_fingerprints",
    "generate",
    "has_chat_template",
    "inquire",
    "is_endpoint",
    "join_target",
    "join_targets",
    "load",
    "model_fingerprint",
    "perplexity",
    "score",
    "set_start",
    "start_of",
    "stream",
    "subject_token",
    "subject_tokens",
    "target_log_probs",
    "tokens_fingerprint",
    "top1",
    "weights_hash",
]
