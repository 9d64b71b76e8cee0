"""Models of transformers taken in and written again: the same weights, and the same logits in float32."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from infra.errors import BadInput, DamagedData
from infra.manifest import DatasetManifest
from infra.store import Store
from model.architectures.build import build_model
from model.config import OptimizerSettings, TrainingSettings
from model.interchange.export import ExportSettings, SavedWeights, export_checkpoint
from model.interchange.imported import ImportedModel, check_start, import_model, load_imported
from model.interchange.shapes import megatron_shapes, shard_names
from model.interchange.start import load_start
from model.parallel import Place
from model.recovery.checkpoint import Checkpoints
from model.run import RunRecord, prepare_run
from model.updates.distribution import distribute
from model.updates.optimizer import build_optimizer
from tests.model.small_runs import VOCABULARY, launch, layout, small_training

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "attn_implementation": "eager",
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "llama-scaled": {"head_dim": 16, "rope_parameters": LLAMA3, "num_key_value_heads": 4},
    "mistral": {"sliding_window": 9, "num_key_value_heads": 1},
    "qwen3": {"head_dim": 8, "tie_word_embeddings": True},
    "qwen3-windows": {
        "head_dim": 16,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0},
    },
}


def theirs(kind: str, folder: Path, store: Store, dataset: DatasetManifest, **changes: Any) -> Any:
    """A model of transformers with weights far from the initial ones, saved in several files with its tokenizer."""
    config = {
        "llama": transformers.LlamaConfig,
        "mistral": transformers.MistralConfig,
        "qwen3": transformers.Qwen3Config,
    }[kind.partition("-")[0]](**{**SMALL, **KINDS[kind], **changes})
    torch.manual_seed(1)
    model: Any = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(1 + 0.1 * torch.randn(weight.shape) if "norm" in name else 0.1 * torch.randn(weight.shape))
    model.save_pretrained(folder, max_shard_size="60KB")
    (folder / "tokenizer.model").write_bytes(store.read_bytes(dataset.tokenizer.path))
    return model


def training_from(imported: ImportedModel, **changes: Any) -> TrainingSettings:
    return small_training(model=imported.model, **changes)


def tokens() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(2).integers(0, VOCABULARY, (2, 64)))


def our_logits(model: Any) -> torch.Tensor:
    ids = tokens()
    with torch.no_grad():
        return model(ids, torch.arange(ids.shape[1]).expand(ids.shape), None)[..., :VOCABULARY]


def their_logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens()).logits


def loaded(store: Store, imported: ImportedModel, place: Place) -> tuple[TrainingSettings, list[Any]]:
    training = training_from(imported)
    chunks = build_model(training, training.parallel, place, VOCABULARY)
    load_start(chunks, store, imported.folder, place, imported.model)
    return training, chunks


def saved(store: Store, dataset: DatasetManifest, name: str, training: TrainingSettings, chunks: Any, place: Place):
    """The run of a model, with one checkpoint of step 1."""
    run = prepare_run(store, dataset, name, training)
    wrapped = distribute(chunks, training.parallel)
    checkpoints = Checkpoints(store, run, place)
    checkpoints.save(wrapped, build_optimizer(wrapped, training), step=1, consumed_samples=8, seconds=1.0)
    checkpoints.finish()
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_logits_both_ways(kind: str, store: Store, dataset: DatasetManifest, place: Place, tmp_path) -> None:
    original = theirs(kind, tmp_path / "theirs", store, dataset)
    imported = import_model(store, tmp_path / "theirs", kind)
    assert imported.model.sequence_length == 64
    check_start(imported, imported.model, dataset.tokenizer)
    training, chunks = loaded(store, imported, place)
    ours = our_logits(chunks[0].eval())
    assert ours.std() > 0.3
    torch.testing.assert_close(ours, their_logits(original), rtol=0, atol=1e-5)

    run = saved(store, dataset, f"from-{kind}", training, chunks, place)
    out = tmp_path / "out"
    provenance = export_checkpoint(store, run, dataset, out, ExportSettings())
    assert (provenance.step, provenance.run) == (1, run.folder)
    again: Any = transformers.AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager")
    assert type(again) is type(original)
    assert again.dtype == torch.float32
    torch.testing.assert_close(their_logits(again.eval()), ours, rtol=0, atol=1e-5)
    assert all(torch.equal(*pair) for pair in zip(again.parameters(), original.parameters(), strict=True))

    back = import_model(store, out, f"{kind}-again")
    assert back.model == imported.model
    check_start(back, imported.model, dataset.tokenizer)


def test_rows_after_the_vocabulary_get_the_mean(store: Store, dataset: DatasetManifest, place: Place, tmp_path) -> None:
    original = theirs("llama-scaled", tmp_path, store, dataset)
    _, chunks = loaded(store, import_model(store, tmp_path, "mean"), place)
    for ours, from_them in (
        (chunks[0].embedding.word_embeddings.weight, original.model.embed_tokens.weight),
        (chunks[0].output_layer.weight, original.lm_head.weight),
    ):
        assert ours.shape[0] == 512
        assert torch.equal(ours[:VOCABULARY], from_them)
        torch.testing.assert_close(ours[VOCABULARY:], from_them.mean(0).expand(112, -1), rtol=0, atol=1e-6)


def test_any_layout_loads_and_writes_the_same_weights(store: Store, dataset: DatasetManifest, tmp_path) -> None:
    original = theirs("qwen3-windows", tmp_path / "theirs", store, dataset, num_key_value_heads=2)
    imported = import_model(store, tmp_path / "theirs", "spread")
    training = training_from(imported, parallel=layout(tensor=2, pipeline=2))
    run = prepare_run(store, dataset, "spread", training)
    launch(store, run, "tests.model.interchange_rank", imported.folder)
    export_checkpoint(store, run, dataset, tmp_path / "out", ExportSettings(largest_file=60_000))
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    assert files == sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    tensors = {name: weight for file in files for name, weight in load_file(tmp_path / "out" / file).items()}
    assert index["metadata"]["total_size"] == sum(weight.nbytes for weight in tensors.values())
    assert tensors.keys() == original.state_dict().keys()
    assert all(torch.equal(weight, tensors[name]) for name, weight in original.state_dict().items())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_type_of_the_weights(
    optimizer: Any, store: Store, dataset: DatasetManifest, place: Place, tmp_path
) -> None:
    training = small_training(dtype="bfloat16", seed=7, optimizer=OptimizerSettings(kind=optimizer))
    chunks = build_model(training, training.parallel, place, VOCABULARY)
    run = saved(store, dataset, "typed", training, chunks, place)
    for dtype in (None, "float32", "float16"):
        out = tmp_path / str(dtype)
        export_checkpoint(store, run, dataset, out, ExportSettings(dtype=dtype))
        weights = load_file(out / "model.safetensors")
        assert {str(weight.dtype) for weight in weights.values()} == {f"torch.{dtype or 'bfloat16'}"}
    folder = store.local_path(f"{run.folder}/checkpoints/step-00000001")
    assert SavedWeights(folder).read("decoder.final_layernorm.weight", None).dtype == torch.float32
    with pytest.raises(DamagedData, match=r"no whole decoder\.none"):
        SavedWeights(folder).read("decoder.none", None)


def test_the_names_of_all_weights_are_known(place: Place) -> None:
    training = small_training(model=small_training().model.model_copy(update={"tied_embeddings": False}))
    (model,) = build_model(training, training.parallel, place, VOCABULARY)
    state = model.sharded_state_dict(metadata={"dp_cp_group": place.data_group()})
    found = {value.key for value in state.values() if hasattr(value, "key") and not value.key.endswith("_extra_state")}
    assert found == megatron_shapes(training.model, VOCABULARY).keys()


def test_what_cannot_be_exported(store: Store, dataset: DatasetManifest, place: Place, tmp_path) -> None:
    training = small_training(seed=8)
    run: RunRecord = prepare_run(store, dataset, "unsaved", training)
    with pytest.raises(BadInput, match="no whole checkpoint"):
        export_checkpoint(store, run, dataset, tmp_path / "out", ExportSettings())
    run = saved(store, dataset, "unsaved", training, build_model(training, layout(), place, VOCABULARY), place)
    with pytest.raises(BadInput, match="of step 5"):
        export_checkpoint(store, run, dataset, tmp_path / "out", ExportSettings(step=5))
    with pytest.raises(BadInput, match="exists already"):
        export_checkpoint(store, run, dataset, tmp_path, ExportSettings())
    (store.local_path(f"{run.folder}/checkpoints/step-00000001/__0_0.distcp")).write_bytes(b"")
    with pytest.raises(BadInput, match="no whole checkpoint"):
        export_checkpoint(store, run, dataset, tmp_path / "out", ExportSettings())
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_imported(store: Store, dataset: DatasetManifest, tmp_path) -> None:
    good = tmp_path / "good"
    theirs("llama", good, store, dataset)
    bad = tmp_path / "bad"

    def refused(match: str, name: str = "bad") -> None:
        with pytest.raises(BadInput, match=match):
            import_model(store, bad, name)
        shutil.rmtree(bad)
        shutil.copytree(good, bad)

    shutil.copytree(good, bad)
    refused("folder's name", "../x")
    (bad / "tokenizer.model").unlink()
    refused("tokenizer.json nor tokenizer.model")
    (bad / "config.json").write_text("[")
    refused("no readable config.json")
    (bad / "config.json").write_text(json.dumps(json.loads((good / "config.json").read_text()) | {"hidden_size": 64}))
    refused("has .* in shape .* where config.json asks for")
    first = sorted(bad.glob("*.safetensors"))[0]
    first.write_bytes(first.read_bytes()[:100])
    refused("damaged")
    first.unlink()
    refused("has no file")
    (bad / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../good/x.safetensors"}}))
    refused("has no file")
    (bad / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": ["b"]}}))
    refused("has no weight_map")
    first_weights = load_file(first)
    save_file({name: weight.to(torch.int8) for name, weight in first_weights.items()}, first)
    refused("type I8")
    assert store.names("models/bad") == []


def test_a_model_is_what_was_imported(store: Store, dataset: DatasetManifest, place: Place, tmp_path) -> None:
    theirs("llama", tmp_path / "one", store, dataset)
    imported = import_model(store, tmp_path / "one", "pinned", 32)
    assert imported == import_model(store, tmp_path / "one", "pinned", 32) == load_imported(store, "models/pinned")
    with pytest.raises(BadInput, match="another model"):
        import_model(store, tmp_path / "one", "pinned", 16)
    with pytest.raises(BadInput, match=r"known: .*models/pinned"):
        load_imported(store, "models/absent")
    check_start(imported, imported.model.model_copy(update={"sequence_length": 8}), dataset.tokenizer)
    with pytest.raises(BadInput, match="num_layers = 3"):
        check_start(imported, imported.model.model_copy(update={"num_layers": 3}), dataset.tokenizer)
    with pytest.raises(BadInput, match=r"tokenizer\.path = models/pinned/tokenizer\.model"):
        check_start(imported, imported.model, dataset.tokenizer.model_copy(update={"sha256": "0" * 64}))
    weights = store.local_path(f"{imported.folder}/{sorted(imported.files)[0]}")
    content = weights.read_bytes()
    weights.unlink()  # a link to the source's
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedData, match="not the file that was imported"):
        loaded(store, imported, place)


def test_weights_are_shared_out_among_files_in_order() -> None:
    assert shard_names({"a": 5, "b": 5}, 10) == dict.fromkeys("ab", "model.safetensors")
    names = shard_names({"a": 5, "b": 6, "c": 20, "d": 1}, 10)
    assert [int(name[6:11]) for name in names.values()] == [1, 2, 3, 4]
    assert names["a"] == "model-00001-of-00004.safetensors"
