"""Tokenizers with a name of their own, for several corpora to share.

    tokenizers/NAME/VERSION/tokenizer.model    what `corpus.tokenizer.path` takes
    tokenizers/NAME/VERSION/manifest.json      what it was learned from, and how well it does

The version is the hash of the file, so that learning the same tokenizer again makes no second one.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from infra.manifest import FINGERPRINT_DIGITS, DatasetManifest, Manifest, TokenizerRecord
from infra.settings import Settings
from infra.store import Store
from infra.vocabulary import Vocabulary
from tasks.heldout import HeldoutSettings, is_heldout
from tasks.tokens.tokenizer import TokenizerSettings
from tasks.tokens.tokenizer_sample import UNKNOWN


class LanguageFertility(Settings):
    """What a tokenizer makes of one language's text."""

    language: str
    """As ISO 639 names it."""
    documents: int
    text_bytes: int
    """Of UTF-8."""
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        """More is shorter: less to train on and to generate."""
        return self.text_bytes / max(self.tokens, 1)


class PublishedTokenizer(Manifest):
    """A tokenizer that other corpora can take."""

    name: str
    version: str
    dataset: str
    """NAME/VERSION that it was learned from."""
    settings: dict[str, Any]
    tokenizer: TokenizerRecord
    """Its path is that of the published file."""
    languages: tuple[LanguageFertility, ...]
    """Measured on held-out text, most text first."""

    def rows(self) -> list[dict[str, Any]]:
        """The languages as a table."""
        return [
            {
                "language": each.language,
                "documents": each.documents,
                "bytes": each.text_bytes,
                "tokens": each.tokens,
                "bytes per token": round(each.bytes_per_token, 3),
            }
            for each in self.languages
        ]

    def text(self) -> str:
        """The same for people."""
        lines = [f"{self.name}/{self.version}: {self.tokenizer.vocabulary_size:,} tokens, from {self.dataset}"]
        lines += [f"{each.language:<8} {each.bytes_per_token:6.3f} bytes per token" for each in self.languages]
        return "\n".join([*lines, f"For corpora: corpus.tokenizer.path={self.tokenizer.path}"])


def fertility(
    store: Store, paths: Sequence[str], heldout: HeldoutSettings, vocabulary: Vocabulary, max_bytes: int
) -> tuple[LanguageFertility, ...]:
    """Bytes and tokens by language of the first held-out documents in `paths`, of `max_bytes` in all."""
    documents: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for language, text in _heldout_texts(store, paths, heldout):
        documents[language] += 1
        sizes[language] += len(text.encode())
        tokens[language] += len(vocabulary.encode([text])[0])
        if sizes.total() >= max_bytes:
            break
    return tuple(
        LanguageFertility(language=each, documents=documents[each], text_bytes=size, tokens=tokens[each])
        for each, size in sizes.most_common()
    )


def publish_tokenizer(
    store: Store,
    name: str,
    dataset: DatasetManifest,
    tokenizer: TokenizerRecord,
    settings: TokenizerSettings,
    languages: tuple[LanguageFertility, ...],
) -> PublishedTokenizer:
    """Copy a tokenizer's file to where its name says, and write its manifest last; done already if it is there."""
    version = tokenizer.sha256[:FINGERPRINT_DIGITS]
    folder = f"tokenizers/{name}/{version}"
    path = f"{folder}/{PurePath(tokenizer.path).name}"
    published = PublishedTokenizer(
        name=name,
        version=version,
        dataset=f"{dataset.name}/{dataset.version}",
        settings=settings.identity(),
        tokenizer=tokenizer.model_copy(update={"path": path}),
        languages=languages,
    )
    if not store.exists(f"{folder}/manifest.json"):
        store.write_bytes(path, store.read_bytes(tokenizer.path))
        published.save(store, f"{folder}/manifest.json")
    return PublishedTokenizer.load(store, f"{folder}/manifest.json")


def _heldout_texts(store: Store, paths: Sequence[str], heldout: HeldoutSettings) -> Iterator[tuple[str, str]]:
    for path in paths:
        reader = store.open_table(path)
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            for language, text in zip(batch["language"].to_pylist(), batch["text"].to_pylist(), strict=True):
                if text and is_heldout(text, heldout):
                    yield language or UNKNOWN, text
