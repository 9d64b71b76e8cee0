"""A checkpoint as a folder that transformers reads. One process, on the CPU, whatever layout wrote the checkpoint.

    config.json, generation_config.json                    see model.interchange.transformers_config
    model.safetensors                                      or parts of at most so many bytes, with an index
    tokenizer.json, tokenizer_config.json, ...             see infra.exported_tokenizer
    gristmill.json                                         which run and step this is, and its tokenizer

Weights are read tensor by tensor, a layer at a time, from the float32 master weights; no more than one file's are in
memory at once.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from infra.errors import BadInput, DamagedData
from infra.exported_tokenizer import tokenizer_files
from infra.manifest import DatasetManifest
from infra.settings import Settings
from infra.store import Store, sync_path
from model.interchange.imported import PROVENANCE, Provenance
from model.interchange.shapes import shard_names, transformers_shapes
from model.interchange.tensors import to_transformers
from model.interchange.transformers_config import to_config
from model.run import RunRecord, step_name

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_MASTERS = ("optimizer.state.param.", "optimizer.state.fp32_param.")
"""In front of the names of float32 master weights: those spread over the data processes, and those whole in each."""


class ExportSettings(Settings):
    """How a checkpoint is written for transformers."""

    step: int | None = Field(default=None, ge=1)
    """Step of the checkpoint; unset takes the newest."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the weights; unset takes the type in which the run computes."""
    largest_file: int = Field(default=4 << 30, ge=1)
    """Bytes of weights in each file."""


class SavedWeights:
    """The weights in a checkpoint's folder, float32 master weights where it has them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = FileSystemReader(folder)
        self._metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)

    def read(self, key: str, layer: int | None) -> torch.Tensor:
        """One layer of a stack, or a tensor that is none, whole. DamagedData where the checkpoint lacks it."""
        stored = self._metadata.state_dict_metadata
        name = next((master + key for master in _MASTERS if master + key in stored), key)
        tensor = stored.get(name)
        if not isinstance(tensor, TensorStorageMetadata):
            raise self._lacks(key)
        sizes = list(tensor.size) if layer is None else [1, *tensor.size[1:]]
        offsets = [0] * len(sizes) if layer is None else [layer, *[0] * (len(sizes) - 1)]
        wanted = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
        items = create_read_items_for_chunk_list(name, tensor, [wanted])
        target = torch.empty(sizes, dtype=tensor.properties.dtype)
        if sum(item.lengths.numel() for item in items) != target.numel():
            raise self._lacks(key)
        self._reader.read_data(LoadPlan(items), _Into(target)).wait()
        return target if layer is None else target[0]

    def _lacks(self, key: str) -> DamagedData:
        return DamagedData(
            f"{self._folder} holds no whole {key}",
            "a checkpoint holds every weight of its model",
            "Export another step",
        )


class _Into(DefaultLoadPlanner):
    """Puts what is read into one tensor."""

    def __init__(self, target: torch.Tensor) -> None:
        super().__init__()
        self._target = target

    def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
        part = self._target
        for axis, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            part = part.narrow(axis, start, length)
        return part

    def commit_tensor(self, read_item: ReadItem, tensor: torch.Tensor) -> None:
        """Nothing is left to do."""


def export_checkpoint(
    store: Store, run: RunRecord, dataset: DatasetManifest, out: Path, settings: ExportSettings
) -> Provenance:
    """Write a folder for transformers, whole or not at all.

    BadInput for a model that transformers has no form for, a step without a checkpoint, or a folder that exists.
    """
    dtype = settings.dtype or run.training.dtype
    tokenizer, model = dataset.tokenizer, run.training.model
    config = to_config(model, run.vocabulary_size, tokenizer.end_of_document, tokenizer.pad, dtype)
    if out.exists():
        raise BadInput(f"{out} exists already", "an export is written into a folder of its own", "Choose another --out")
    step = _whole_step(store, run, settings.step)
    provenance = Provenance(
        run=run.folder,
        step=step,
        dataset=f"{dataset.name}/{dataset.version}",
        dataset_fingerprint=dataset.fingerprint,
        tokenizer_sha256=tokenizer.sha256,
    )
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        saved = SavedWeights(store.local_path(f"{run.folder}/checkpoints/{step_name(step)}"))
        _write_weights(temporary, saved, run, DTYPES[dtype], settings.largest_file)
        files = tokenizer_files(store.read_bytes(tokenizer.path), tokenizer, model.sequence_length)
        ids = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        files |= {"config.json": _json(config), "generation_config.json": _json(ids)}
        files[PROVENANCE] = provenance.model_dump_json(indent=1).encode()
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        for path in (*temporary.iterdir(), temporary):
            sync_path(path)
        temporary.rename(out)
        sync_path(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return provenance


def _whole_step(store: Store, run: RunRecord, wanted: int | None) -> int:
    """The step to export: the newest whole checkpoint's, or the one that is wanted, by the digests of its files."""
    folder = f"{run.folder}/checkpoints"
    names = sorted((name for name in store.names(folder) if not name.endswith(".tmp")), reverse=True)
    chosen = [name for name in names if wanted is None or name == step_name(wanted)]
    for name in chosen:
        if _is_whole(store, f"{folder}/{name}"):
            return int(name.rpartition("-")[2])
    raise BadInput(
        f"no whole checkpoint {'' if wanted is None else f'of step {wanted} '}in {store.full_path(folder)}",
        f"a checkpoint is exported; there are {', '.join(names) or 'none'}",
        "Train the run further, or name another --step",
    )


def _is_whole(store: Store, folder: str) -> bool:
    """Whether a checkpoint's files have the digests of its meta.json."""
    try:
        files = json.loads(store.read_bytes(f"{folder}/meta.json"))["files"]
        return all(store.sha256(f"{folder}/{name}") == written["sha256"] for name, written in files.items())
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def _write_weights(folder: Path, saved: SavedWeights, run: RunRecord, dtype: torch.dtype, largest: int) -> None:
    """Write the safetensors files, and their index if they are several."""
    model, vocabulary_size = run.training.model, run.vocabulary_size
    sizes = {name: _bytes(shape, dtype) for name, shape in transformers_shapes(model, vocabulary_size).items()}
    files = shard_names(sizes, largest)
    tensors = to_transformers(saved, model, vocabulary_size)
    for file, content in _by_file(tensors, files, dtype):
        save_file(content, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)  # safetensors makes it private
    if len(set(files.values())) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(files.items()))}
        (folder / "model.safetensors.index.json").write_bytes(_json(index))


def _by_file(
    tensors: Iterator[tuple[str, torch.Tensor]], files: dict[str, str], dtype: torch.dtype
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """The tensors of one file after the other; their order is that of the files."""
    current, content = "", dict[str, torch.Tensor]()
    for name, tensor in tensors:
        if files[name] != current and content:
            yield current, content
            content = {}
        current = files[name]
        content[name] = tensor.to(dtype, copy=True).contiguous()
    yield current, content


def _bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return torch.Size(shape).numel() * dtype.itemsize


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"
