"""Which documents are held out from training, by a hash of their text: the same text always falls on the same side."""

import hashlib

from pydantic import Field

from infra.settings import Settings


class HeldoutSettings(Settings):
    """How much of the corpus is kept for evaluation."""

    fraction: float = Field(default=0.02, ge=0, lt=1)
    """Share of documents that are held out; neither tokenizer nor model learns from them."""


def share(key: str) -> float:
    """A number in [0, 1) that depends on the key alone, evenly spread."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def is_heldout(text: str, settings: HeldoutSettings) -> bool:
    """Whether a document belongs to the held-out split."""
    return share(f"heldout:{text}") < settings.fraction
