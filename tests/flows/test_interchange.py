"""`gristmill export` and `gristmill import`, from a trained run to settings that go on from it."""

from pathlib import Path

import pytest

from flows.interchange import Import, export_run, find_run, import_folder
from flows.refreshes.champion import Champion
from flows.refreshes.continuation import weights_of
from infra.errors import BadInput
from infra.store import Store
from model.interchange.imported import ImportedModel, check_start
from model.run import prepare_run
from model.settings.architecture import ModelSettings, RopeScaling
from tests.model.small_runs import launch, real_documents, small_training, write_dataset


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("root")))


def test_a_trained_run_is_exported_and_taken_in_again(store: Store, tmp_path: Path) -> None:
    dataset = write_dataset(store, real_documents())
    run = prepare_run(store, dataset, "small", small_training(steps=2))
    launch(store, run)
    written = export_run(store, "small")
    assert Path(written.folder) == store.local_path(f"exports/small/{Path(run.folder).name}")
    assert (written.step, written.run, written.different) == (2, run.folder, 0)
    assert written.checked == sum(shard.documents for shard in dataset.split("heldout"))
    assert written.bytes == sum(path.stat().st_size for path in Path(written.folder).iterdir())
    assert "0 differ" in written.text()
    assert "Model    " in export_run(store, run.folder, tmp_path / "there").text()
    with pytest.raises(BadInput, match="exists already"):
        export_run(store, "small", tmp_path / "there")

    taken = import_folder(store, Path(written.folder), "back")
    check_start(taken.imported, run.training.model, dataset.tokenizer)
    assert "--set training.start_from=models/back" in taken.text()
    assert "--set training.model.hidden_size=32" in taken.text()
    assert f"--set corpus.tokenizer.path={store.local_path('models/back/tokenizer.model')}" in taken.text()

    champion = Champion(run, dataset, 2)
    store.write_bytes(f"exports/{champion.weights}/config.json", b"of a refresh that was killed")
    assert weights_of(store, champion) == f"models/{champion.weights}"
    assert not store.exists(f"exports/{champion.weights}")


def test_nested_settings_are_printed_whole() -> None:
    model = ModelSettings(rope_scaling=RopeScaling())
    imported = ImportedModel(name="m", model=model, rows=1, tensors={}, tokenizer="tokenizer.json", tokenizers=())
    text = Import(imported=imported, folder="there").text()
    assert "--set training.model.rope_scaling.kind=llama3" in text
    assert "--set training.model.rope_scaling.original_length=8192" in text


def test_runs_are_found_by_name_or_folder(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there are none"):
        find_run(Store(str(tmp_path)), "absent")
    for folder in ("one/1-a", "two/1-a", "two/1-b"):
        Store(str(tmp_path)).write_bytes(f"runs/{folder}/run.json", b"{}")
    here = Store(str(tmp_path))
    assert find_run(here, "one") == find_run(here, "runs/one/1-a") == find_run(here, str(tmp_path / "runs/one/1-a"))
    assert find_run(here, "two/1-b") == tmp_path / "runs/two/1-b"
    with pytest.raises(BadInput, match="there are two/1-a, two/1-b"):
        find_run(here, "two")
