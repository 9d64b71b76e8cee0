"""The text behind training tokens: without what was held out, without copies, for as long as it is there."""

import pyarrow as pa

from infra.store import Store
from tasks.tokens.mix import COPY_MARK
from tasks.training_documents import trained_on, training_documents
from tests.tasks.small_corpus import Small


def test_the_documents_are_those_of_the_training_tokens(small: Small) -> None:
    found = training_documents(small.store, small.dataset)
    assert found is not None
    assert found.stage.stage == "mix"
    tables = [trained_on(small.store.read_table(path), found.heldout) for path in found.stage.kept_paths]
    ids = {
        shard.path: small.store.read_table(shard.path)["doc_id"].to_pylist() for shard in small.dataset.split("train")
    }
    trained = [each for some in ids.values() for each in some]
    assert any(COPY_MARK in each for each in trained)
    assert pa.concat_tables(tables)["id"].to_pylist() == [each for each in trained if COPY_MARK not in each]


def test_documents_that_are_gone_are_not_there(small: Small, tmp_path) -> None:
    assert training_documents(Store(str(tmp_path)), small.dataset) is None
    assert training_documents(small.store, small.dataset.model_copy(update={"stages": {}})) is None
    others = {**small.dataset.stages, "mix": small.dataset.stages["redact"]}
    assert training_documents(small.store, small.dataset.model_copy(update={"stages": others})) is None
    path = small.store.local_path(small.stage("mix").kept_paths[0])
    try:
        path.rename(path.with_suffix(".away"))
        assert training_documents(small.store, small.dataset) is None
    finally:
        path.with_suffix(".away").rename(path)
