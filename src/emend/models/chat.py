"""What a chat model reads where it is asked something: its own template around the question."""

from __future__ import annotations

from typing import Any

from emend.errors import InvalidInput


def has_chat_template(tokenizer: Any) -> bool:
    """Return whether a tokenizer brings a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def chat_prompt(tokenizer: Any, question: str) -> str:
    """Write a user's question as the tokenizer's chat template has it, up to the answer.

    Args:
        tokenizer: A tokenizer with a chat template.
        question: What the user says.

    Returns:
        The text for `generate`, without the start token that the tokenizer puts in front itself.

    Raises:
        InvalidInput: There is no template, or it refuses a user's turn alone.
    """
    if not has_chat_template(tokenizer):
        raise InvalidInput(
            "the tokenizer has no chat template, expected one to ask in chat: ask for a completion"
        )
    import jinja2

    turn = [{"role": "user", "content": question}]
    try:
        text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    except jinja2.TemplateError as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(
            f"the chat template refuses a user's turn alone ({reason}): ask for a completion"
        ) from None
    start = str(getattr(tokenizer, "bos_token", None) or "")
    own = start and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return text.removeprefix(start) if own else text
