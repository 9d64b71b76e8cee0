"""Weights of an imported model in place of the drawn ones, cut for this rank's layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from infra.store import Store
from model.architectures.weights import sharded_tensors
from model.interchange.imported import ImportedModel, load_imported, verify_files
from model.interchange.tensors import fill_from
from model.parallel import Place
from model.settings.architecture import ModelSettings


def load_start(
    chunks: Sequence[Any], store: Store, path: str, place: Place, model: ModelSettings, *, verify: bool = True
) -> None:
    """Fill a model, before its optimizer is built, with the weights of `models/NAME`; every rank calls this.

    DamagedData if its files are not those that were imported: sizes always, and with `verify` the SHA-256 of every
    file, of which each rank reads some.
    """
    imported = load_imported(store, path)
    verify_files(store, imported, list(imported.files), content=False)
    if verify:
        verify_files(store, imported, sorted(imported.files)[place.rank :: place.processes], content=True)
    place.wait_for_all()
    source = SafetensorsFiles(store.local_path(path), imported)
    metadata = {"dp_cp_group": place.data_group()}
    with torch.no_grad():
        for chunk in chunks:
            for part in sharded_tensors(chunk.sharded_state_dict(metadata=metadata)):
                if part.data is not None:
                    _fill(part, source, model)


def _fill(part: Any, source: "SafetensorsFiles", model: ModelSettings) -> None:
    stacked = part.prepend_axis_num
    layer = int(part.global_offset[0]) if stacked else None
    target = torch.empty(part.data.shape, dtype=torch.float32)
    fill_from(source, target, part.key, layer, tuple(part.global_offset[stacked:]), model)
    part.data.copy_(target)


class SafetensorsFiles:
    """The tensors of an imported model, read by slices from mapped files."""

    def __init__(self, folder: Path, imported: ImportedModel) -> None:
        names = sorted(set(imported.tensors.values()))
        opened: dict[str, Any] = {name: safe_open(folder / name, framework="pt") for name in names}
        self._tensors = {name: opened[file].get_slice(name) for name, file in imported.tensors.items()}

    def rows(self, name: str) -> int:
        """Length of the first axis of a tensor."""
        return int(self._tensors[name].get_shape()[0])

    def read(self, name: str, rows: slice, columns: slice | None) -> torch.Tensor:
        """A part of a tensor."""
        tensor = self._tensors[name]
        return tensor[rows] if columns is None else tensor[rows, columns]
