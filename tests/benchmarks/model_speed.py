"""How fast classifier and language model judge text: `python -m tests.benchmarks.model_speed ../shared/data`.

Both are trained on the Python proposals, the classifier against the mirror's pages, and measure the pages.
CPU seconds of one process; prints one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.cluster import open_cluster
from infra.environment import Environment
from infra.store import Store
from tasks.models.ngram_training import NgramTrainingSettings, train_ngram_model
from tasks.models.perplexity import PerplexitySettings, perplexity
from tasks.models.quality_model import scores_of
from tasks.models.quality_training import QualityTrainingSettings, train_quality_model
from tasks.models.reference import ReferenceFile
from tasks.stage import StageRunner
from tests.benchmarks.neardup_quality import CRAWLS, crawl
from tests.tasks.documents import stage_of


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """CPU seconds of a second call."""
    function(*arguments)
    started = time.process_time()
    function(*arguments)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data.resolve()
    pages = crawl(data / "commoncrawl", CRAWLS[0])
    texts = [page["text"] for page in pages]
    reference = (ReferenceFile(path=str(data / "text/peps.jsonl.gz")),)
    with tempfile.TemporaryDirectory() as root, open_cluster(Environment(root=root, workers=1)) as cluster:
        runner = StageRunner(Store(root), cluster)
        given = stage_of(runner.store, [pages])
        learned, classifier = train_quality_model(
            runner, given, QualityTrainingSettings(references=reference, languages=None)
        )
        counted, ngrams = train_ngram_model(runner, NgramTrainingSettings(references=reference, languages=None))
        languages, settings = [None] * len(texts), PerplexitySettings(models=(ngrams,))
        size = sum(len(text.encode()) for text in texts) / 1e6
        training = {each.stage: each.total("counters") for each in (learned, counted)}
        found = {
            "megabytes": round(size, 2),
            "classifier MB/s": round(size / seconds(scores_of, texts, classifier), 1),
            "perplexity MB/s": round(size / seconds(perplexity, texts, languages, settings), 1),
            "training": training,
        }
    sys.stdout.write(f"{json.dumps(found, indent=1)}\n")


if __name__ == "__main__":
    main()
