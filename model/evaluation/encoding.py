"""Texts of benchmarks as the tokens that a model reads.

In training an end-of-document token precedes every document, and no text begins otherwise. So every context begins
with one here, the empty context being nothing else. (The harness calls this `add_bos_token`.) What is cut from the
left for want of room loses it like any other token.
"""

from collections.abc import Sequence

from infra.vocabulary import Vocabulary

Tokens = tuple[int, ...]


class PromptEncoder:
    """Encodes contexts and continuations; needs no model."""

    def __init__(self, vocabulary: Vocabulary, end_of_document: int) -> None:
        self._vocabulary, self.end_of_document = vocabulary, end_of_document

    def encode(self, text: str, *, begins: bool = True) -> list[int]:
        """The ids of a text, after an end-of-document token if it `begins`."""
        ids = self._vocabulary.encode([text])[0].tolist()
        return [self.end_of_document, *ids] if begins else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids."""
        return self._vocabulary.decode(ids)

    def encode_contexts(self, texts: Sequence[str]) -> list[Tokens]:
        """Prompts as the model reads them, each with an end-of-document token before it."""
        unique = list(dict.fromkeys(texts))
        found = dict(zip(unique, self._vocabulary.encode(unique), strict=True))
        return [(self.end_of_document, *found[text].tolist()) for text in texts]

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[Tokens, Tokens]]:
        """Contexts and continuations as the harness's `TemplateLM` cuts them.

        Spaces at the end of a context belong to the continuation; context and continuation are encoded together, and
        what is left after as many tokens as the context alone has is the continuation. Where nothing would be left,
        because tokens join across the border (the harness fails there), the continuation begins where the two differ.
        """
        moved = [_spaces_moved(*pair) for pair in pairs]
        contexts = list(dict.fromkeys(context for context, _ in moved))
        alone = dict(zip(contexts, self._vocabulary.encode(contexts), strict=True))
        begun = {text: (self.end_of_document, *ids.tolist()) for text, ids in alone.items()}
        wholes = list(dict.fromkeys(context + continuation for context, continuation in moved))
        together = dict(zip(wholes, self._vocabulary.encode(wholes), strict=True))
        return [self._cut(begun[context], together[context + continuation].tolist()) for context, continuation in moved]

    def _cut(self, context: Tokens, whole: list[int]) -> tuple[Tokens, Tokens]:
        both = (self.end_of_document, *whole)
        if len(both) > len(context):
            return context, both[len(context) :]
        same = next((at for at, (one, other) in enumerate(zip(context, both, strict=False)) if one != other), len(both))
        return both[:same], both[same:]


def _spaces_moved(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation
