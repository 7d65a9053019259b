"""The logit lens: what the model would say after each block, read through its final norm and head.

nostalgebraist 2020, "interpreting GPT: the logit lens". For each block l and token t:

    p = softmax(W_U ln_f(h_t^(l)))

After the last block it is what the model says. Before it, it is a reading of a state that later
blocks were trained to read, and the head was not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emend._brief import brief
from emend.errors import InvalidInput
from emend.locate.states import block_states
from emend.models import ModelView, ensure_start, join_target
from emend.models.positions import prompt_tokens


@brief
@dataclass(frozen=True)
class Lens:
    """What each block's output says at each token of a prompt.

    Attributes:
        prompt: The text.
        tokens: Its T tokens, as text.
        answer: The first token of the answer, as text.
        best: For each block and token the `top` most probable tokens as text, in that order.
        chances: (layers, T, top), their probabilities, float32 on the CPU.
        answer_chances: (layers, T), probability of the answer.
        answer_ranks: (layers, T) int64, its rank; 1 is the most probable.
    """

    prompt: str
    tokens: tuple[str, ...]
    answer: str
    best: tuple[tuple[tuple[str, ...], ...], ...]
    chances: Tensor
    answer_chances: Tensor
    answer_ranks: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, for JSON."""
        return {
            "prompt": self.prompt,
            "tokens": list(self.tokens),
            "answer": self.answer,
            "best": self.best,
            "chances": self.chances.tolist(),
            "answer_chances": self.answer_chances.tolist(),
            "answer_ranks": self.answer_ranks.tolist(),
        }


def lens(
    model: nn.Module, tokenizer: Any, prompt: str, answer: str | None = None, *, top: int = 5
) -> Lens:
    """Read what each block's output says.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        prompt: A text to be continued.
        answer: Its first token's rank and probability are reported; by default what the
            model says after the prompt.
        top: How many of the most probable tokens are named.

    Raises:
        InvalidInput: An empty prompt, one longer than the model reads, or a `top` below 1.
        UnsupportedModel: The model has no head that can be read through.
    """
    if top < 1:
        raise InvalidInput(f"top is {top}, expected at least 1")
    view = ModelView(model)
    ensure_start(model, tokenizer)
    text = prompt.rstrip(" ")
    ids, token = prompt_tokens(tokenizer, [text])[0], None
    if answer is not None:
        ids, target = join_target(tokenizer, text, answer)
        token = target[0]
    states = block_states(view, ids)
    with torch.no_grad():
        if token is None:
            token = int(view.logits(states[-1][-1]).argmax())
        rows = [_read(view.logits(state).float(), token, top) for state in states]
    chances, named, answer_chances, ranks = (torch.stack(part) for part in zip(*rows, strict=True))
    best = tuple(
        tuple(tuple(str(tokenizer.decode([each])) for each in place) for place in layer)
        for layer in named.tolist()
    )
    words = tuple(str(tokenizer.decode([each])) for each in ids)
    answer = str(tokenizer.decode([token]))
    return Lens(text, words, answer, best, chances, answer_chances, ranks)


def _read(logits: Tensor, token: int, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read (T, vocabulary) logits: the top probabilities and ids, the token's own, and its rank."""
    chances = logits.softmax(-1).cpu()
    best = chances.topk(min(top, chances.shape[-1]))
    own = chances[:, token]
    ranks = (chances > own[:, None]).sum(-1) + 1
    return best.values, best.indices, own, ranks
