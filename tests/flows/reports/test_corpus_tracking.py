"""The MLflow run of a dataset, when MLflow has got another address."""

from flows.config import TrackingSettings
from flows.reports.corpus_tracking import track_corpus, tracked_corpus
from infra.environment import Environment
from infra.report import CorpusReport, DatasetIdentity, RecordCounts
from infra.store import Store
from infra.tracking import open_run
from model.run import LaunchRecord
from tests.model.findings.contenders import DATASET


def test_a_dataset_is_recorded_once_whatever_the_address_of_mlflow(evaluated_store: Store) -> None:
    store, environment = evaluated_store, Environment(root=evaluated_store.root)
    here = open_run(store, None, "gristmill/corpus", "corpus")
    gone = here.model_copy(update={"tracking_uri": "http://127.0.0.1:9"})
    LaunchRecord(tracked=gone).save(store, f"{DATASET.folder}/tracked.json")
    identity = DatasetIdentity(name=DATASET.name, version=DATASET.version, fingerprint=DATASET.fingerprint)
    records = RecordCounts(read=0, documents=0, quarantined=0, skipped={})
    report = CorpusReport(dataset=identity, stages=(), records=records, tokens=0)
    assert track_corpus(store, DATASET, report, environment, TrackingSettings()) == here
    assert tracked_corpus(store, DATASET.folder) == here
