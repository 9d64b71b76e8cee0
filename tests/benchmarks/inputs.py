"""What both sides of the benchmark work on: WARC files, pages, texts, block lists and a tokenizer, in one folder.

warc/                  the chosen archives of the crawl, by their own names
crawl.json             where the crawl is, for our own reader
pages.jsonl.gz         decoded pages
texts.jsonl.gz         texts of other pages, spread over all archives
lists/                 the block lists that datatrove carries, unpacked
tokenizer.json         byte-level BPE learned from the texts, with <|endoftext|>
"""

import gzip
import json
import tarfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from infra.store import Store
from tasks.extraction.decode import decode
from tasks.extraction.extract import ExtractSettings, extract
from tasks.sources.fetch import fetch_shard, shard_paths
from tasks.sources.select import SelectSettings, resolve_lists
from tasks.sources.transport import SourceSettings, local_url
from tasks.stage import texts

END = "<|endoftext|>"
VOCABULARY = 32_000


@dataclass(frozen=True)
class Crawl:
    """Some shards of a crawl on this machine."""

    root: str
    name: str
    shards: int | None

    @property
    def source(self) -> SourceSettings:
        """For our own reader."""
        return SourceSettings(base_url=local_url(Path(self.root)), crawl=self.name, shards=self.shards)

    @property
    def paths(self) -> list[Path]:
        """The archives."""
        return [Path(self.root) / path for path in shard_paths(self.source)]

    @classmethod
    def of(cls, folder: Path, shards: int | None = None) -> "Crawl":
        """The crawl of a prepared folder, or fewer shards of it."""
        values = json.loads((folder / "crawl.json").read_text())
        return cls(**values | ({} if shards is None else {"shards": shards}))


def prepare(folder: Path, crawl: Crawl, assets: Path, pages: int, text_bytes: int) -> None:
    """Fill the folder. `assets` is where datatrove keeps its lists; at most half of the texts are measured."""
    (folder / "warc").mkdir(parents=True)
    for path in crawl.paths:
        (folder / "warc" / path.name).symlink_to(path.resolve())
    (folder / "crawl.json").write_text(json.dumps(asdict(crawl)))
    found, read = _pages_and_texts(crawl)
    _save(folder / "pages.jsonl.gz", _spread(found, pages))
    share = min(0.5, text_bytes / max(sum(map(len, read)), 1))
    chosen = _spread(read, len(read))
    count = round(share * len(read))
    _save(folder / "texts.jsonl.gz", chosen[:count])
    _save(folder / "others.jsonl.gz", chosen[count:])
    with tarfile.open(assets / "url_filterblacklistsv0_3_0.tar.gz") as lists:
        lists.extractall(folder / "lists", filter="data")
    for name in ("banned_words", "soft_banned_words", "banned_subwords"):
        (folder / "lists" / f"{name}.txt").write_bytes((assets / f"{name}.txt").read_bytes())
    started = time.process_time()
    selection = resolve_lists(Store(str(folder / "compiled")), _selection(folder / "lists"))
    spent = time.process_time() - started
    kept = {"compiled": selection.compiled, "digest": selection.digest, "honour_opt_outs": ()}
    (folder / "select.json").write_text(json.dumps({"settings": kept, "seconds": spent}))
    _train(chosen).save(str(folder / "tokenizer.json"))


def _selection(lists: Path) -> SelectSettings:
    """The peer's lists and no opt-outs, as FineWeb."""
    return SelectSettings(
        honour_opt_outs=(),
        host_lists=(str(lists / "domains"),),
        url_lists=(str(lists / "urls"),),
        word_lists=(str(lists / "banned_words.txt"),),
        soft_word_lists=(str(lists / "soft_banned_words.txt"),),
        subword_lists=(str(lists / "banned_subwords.txt"),),
    )


def _pages_and_texts(crawl: Crawl) -> tuple[list[str], list[str]]:
    pages: list[str] = []
    found: list[str] = []
    for path in shard_paths(crawl.source):
        for split in fetch_shard(Store("."), path, crawl.source):
            rows: list[Any] = split.kept.select(["payload", "charset"]).to_pylist()
            pages += [decode(row["payload"], row["charset"]) for row in rows]
            found += texts(extract(split.kept, ExtractSettings()).kept)
    return pages, found


def _spread(values: list[str], count: int) -> list[str]:
    """So many values from all over a list, in an order that is not the list's: neighbours are alike."""
    step = max(len(values) // max(count, 1), 1)
    return list(islice((value for start in range(step) for value in values[start::step]), count))


def _train(lines: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def _save(path: Path, values: Iterable[str]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as out:
        out.writelines(f"{json.dumps(value)}\n" for value in values)


def load(path: Path) -> list[str]:
    """Pages or texts of a prepared folder."""
    return list(_lines(path))


def _lines(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
