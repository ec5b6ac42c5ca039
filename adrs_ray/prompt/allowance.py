"""How many tokens a prompt may have, and how many one is taken to have."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adrs_ray.config import ModelConfig
from adrs_ray.generator import Message


def available(model: ModelConfig) -> int:
    """Tokens left for the prompt beside reasoning and answer."""
    return model.context_tokens - model.max_tokens - model.reasoning_tokens


def tokens_of(messages: Sequence[Message], model: ModelConfig) -> int:
    """An estimate: characters over `chars_per_token`, rounded up for each message."""
    return sum(math.ceil(len(message.content) / model.chars_per_token) for message in messages)


def fits(messages: Sequence[Message], model: ModelConfig) -> bool:
    return tokens_of(messages, model) <= available(model)
