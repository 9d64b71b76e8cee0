"""A small corpus for tests of what is made of one: ledger, profile, examples, preview, report."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from infra.manifest import DatasetManifest, StageManifest
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.dataset import publish
from tasks.heldout import HeldoutSettings
from tasks.pipeline import Corpus, measure, pinned_corpus, refine
from tasks.sources.transport import SourceSettings
from tasks.stage import StageRunner
from tasks.tokens.mix import MixSettings
from tasks.tokens.tokenizer import TokenizerSettings
from tests.tasks.chains import only_long_documents
from tests.tasks.documents import prose
from tests.tasks.records import CRAWL, members, page, response, warcinfo, write_crawl

GERMAN = "Die Mühle steht am Fluss, und der Müller arbeitet dort seit vielen Jahren mit seinem Sohn zusammen. " * 5
HOSTILE = "</div><script>alert(1)</script>\u202e"


def small_crawl(root: Path) -> None:
    """Two shards: English prose, a copy, German, short, empty and missing pages, and one that means harm."""
    pages = [
        response(
            f"http://www.site{n % 7}.co.uk/{n}",
            page(f"{text}\n\nFor more of this please write to a{n}@example.com today."),
        )
        for n, text in enumerate(prose()[:40])
    ]
    odd = [
        response("http://german.example/", page(GERMAN)),
        response(
            "http://copy.example/", page(f"{prose()[0]}\n\nFor more of this please write to a0@example.com today.")
        ),
        response("http://short.example/", page("The mill and the river have not moved since.")),
        response("http://short.example/2", page(f"The mill and the river have not moved {HOSTILE} since.")),
        response("http://empty.example/", b"<html></html>"),
        response("http://gone.example/", b"gone", "404 Not Found"),
    ]
    write_crawl(root, [members(warcinfo(), *pages[:20], *odd[:3]), members(warcinfo(), *pages[20:], *odd[3:])])


def small_settings(crawl: Path) -> CorpusSettings:
    """Long English documents, one and a half times each."""
    return CorpusSettings(
        source=SourceSettings(base_url=str(crawl), crawl=CRAWL),
        filter=only_long_documents(),
        mix=MixSettings(default_weight=1.5),
        heldout=HeldoutSettings(fraction=0.1),
        tokenizer=TokenizerSettings(vocabulary_size=600),
    )


@dataclass(frozen=True)
class Small:
    """The corpus, and what it was made by."""

    runner: StageRunner
    settings: CorpusSettings
    corpus: Corpus
    dataset: DatasetManifest

    @property
    def store(self) -> Store:
        """Where it lies."""
        return self.runner.store

    def stage(self, name: str) -> StageManifest:
        """A stage by name."""
        return self.corpus.build.stage(name)

    def ledger(self) -> pa.Table:
        """The whole ledger."""
        return pa.concat_tables(pq.read_table(self.store.local_path(path)) for path in self.corpus.ledger.kept_paths)


def build_small(folder: Path, runner: StageRunner) -> Small:
    """Make the crawl in a folder and the corpus where the runner works."""
    small_crawl(folder)
    settings = pinned_corpus(small_settings(folder), runner.store)
    made = refine(runner, measure(runner, settings), settings)
    stages = [*made.build.every, made.ledger]
    dataset = publish(runner.store, "small", "1", settings, stages, made.tokenizer)
    return Small(runner, settings, made, dataset)
