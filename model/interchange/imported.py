"""Models of others to go on training from: `models/NAME/` under the root. Nothing here imports torch.

    model-*.safetensors, tokenizer.json, ...     the weights and the tokenizer as they came
    manifest.json                                written last: settings, and the digest of every file

Files are linked where the file system allows it and copied otherwise; what is pinned are their digests. Weights are
read from safetensors only, never from pickles, which can run code.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from safetensors import SafetensorError, safe_open

from infra.errors import BadInput, DamagedData
from infra.manifest import Manifest, TokenizerRecord, fingerprint
from infra.settings import Settings
from infra.store import TEMPORARY_SUFFIX, Store, sync_path
from model.interchange.shapes import transformers_shapes
from model.interchange.transformers_config import from_config
from model.settings.architecture import ModelSettings

PROVENANCE = "gristmill.json"
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_TYPES = ("F32", "BF16", "F16")
_FREE = (
    "sequence_length",
    "rope_base",
    "rope_scaling",
    "init_std",
    "hidden_dropout",
    "attention_dropout",
    "masked_fraction",
    "mean_span",
)
"""Settings of a model that may change when its training goes on."""


class Provenance(Manifest):
    """Where an exported model comes from."""

    run: str
    """Folder of the run, relative to its root."""
    step: int
    dataset: str
    """NAME/VERSION."""
    dataset_fingerprint: str
    tokenizer_sha256: str
    """Digest of the dataset's own tokenizer file, of which tokenizer.json is another form."""


class ImportedFile(Settings):
    """What a file has to be."""

    bytes: int
    sha256: str


class ImportedModel(Manifest):
    """A model to go on training from."""

    name: str
    model: ModelSettings
    """Its shape, for training.model."""
    rows: int
    """Rows of its embedding: its vocabulary, perhaps with some that stand for nothing."""
    tensors: dict[str, str]
    """The file of each tensor."""
    files: dict[str, ImportedFile] = Field(default_factory=dict)
    """Weights and tokenizer."""
    tokenizer: str
    """The tokenizer's file to build datasets with: tokenizer.json, or what an export of ours was trained with."""
    tokenizers: tuple[str, ...]
    """SHA-256 of the tokenizer's files, any of which may be that of a dataset to train on."""

    @property
    def folder(self) -> str:
        """Folder of the model, relative to the root."""
        return f"models/{self.name}"

    @property
    def digest(self) -> str:
        """Hash over the model's shape and the content of its files."""
        files = {name: file.sha256 for name, file in self.files.items()}
        return fingerprint(model=self.model.identity(), files=files)

    @property
    def tokenizer_path(self) -> str:
        """The tokenizer's file, relative to the root, for tokenizer.path."""
        return f"{self.folder}/{self.tokenizer}"


def import_model(store: Store, source: Path, name: str, sequence_length: int | None = None) -> ImportedModel:
    """Take a checkpoint of transformers in under a name; again is nothing, unless it is another.

    Samples will have `sequence_length` tokens, or the most that its config.json allows. BadInput for what cannot be
    trained on, or a name that another model has.
    """
    if not store.is_local:
        raise BadInput(f"root {store.root}", "weights are mapped into memory", "Give a local --root")
    if not name or name.startswith(".") or not all(part.isalnum() or part in "-_." for part in name):
        raise BadInput(f"model name {name!r}", "it is a folder's name: letters, digits, '-', '_', '.'", "Change it")
    model = from_config(_json(source / "config.json"), sequence_length)
    tensors, rows = _checked_tensors(source, model)
    tokenizers = [each for each in _TOKENIZERS if (source / each).exists()]
    if not tokenizers:
        raise _unusable(source, f"has neither {' nor '.join(_TOKENIZERS)}")
    names = [*sorted(set(tensors.values())), *tokenizers]
    place = Store(str(source.resolve()))
    files = {each: ImportedFile(bytes=place.size(each), sha256=place.sha256(each)) for each in names}
    digests = {files[each].sha256: each for each in reversed(tokenizers)}
    own = Provenance.load(place, PROVENANCE).tokenizer_sha256 if (source / PROVENANCE).exists() else ""
    made = ImportedModel(
        name=name,
        model=model,
        rows=rows,
        tensors=tensors,
        files=files,
        tokenizer=digests.get(own, tokenizers[0]),
        tokenizers=tuple(sorted(digests.keys() | ({own} if own else set()))),
    )
    return _placed(store, source, made)


def _placed(store: Store, source: Path, made: ImportedModel) -> ImportedModel:
    path = f"{made.folder}/manifest.json"
    if store.exists(path):
        if (found := ImportedModel.load(store, path)) != made:
            raise BadInput(
                f"{store.full_path(made.folder)} holds another model ({found.digest} instead of {made.digest})",
                "a name stays with its model",
                "Choose another name, or remove that folder if no run started from it",
            )
        return made
    store.remove(made.folder)  # left by an import that was killed
    store.make_folder(made.folder)
    for name in made.files:
        target = store.local_path(f"{made.folder}/{name}")
        _link_or_copy((source / name).resolve(), target)
        sync_path(target)
    made.save(store, path)
    return made


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        temporary = target.with_name(target.name + TEMPORARY_SUFFIX)
        shutil.copyfile(source, temporary)
        temporary.replace(target)


def _checked_tensors(source: Path, model: ModelSettings) -> tuple[dict[str, str], int]:
    """The file of each tensor and the rows of the embedding; BadInput unless all are there in their shapes."""
    if (source / _INDEX).exists():
        index = _json(source / _INDEX).get("weight_map")
        if not isinstance(index, Mapping) or not all(isinstance(name, str) for name in index.values()):
            raise _unusable(source, f"has no weight_map in {_INDEX}")
        names = sorted(set(index.values()))
    else:
        names = ["model.safetensors"]
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in names:
        found |= {tensor: (name, shape) for tensor, shape in _shapes(source, name).items()}
    # Old files carry the frequencies of the rotary positions, and tied ones the output layer twice.
    ignored = {name for name in found if name.endswith("rotary_emb.inv_freq")}
    ignored |= {"lm_head.weight"} if model.tied_embeddings else set()
    _, (rows, *_) = found.get("model.embed_tokens.weight", ("", (0,)))
    wanted = transformers_shapes(model, rows)
    for name in sorted((wanted.keys() | found.keys()) - ignored):
        has, needs = found.get(name, ("", None))[1], wanted.get(name)
        if has != needs:
            raise _unusable(source, f"has {name} in shape {has} where config.json asks for {needs}")
    return {name: found[name][0] for name in wanted}, rows


def _shapes(source: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a safetensors file."""
    path = source / name
    if Path(name).name != name or not path.is_file():
        raise _unusable(source, f"has no file {name!r}")
    try:
        with safe_open(path, framework="numpy") as opened:
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 - it is no mapping
            kinds = {key: each.get_dtype() for key, each in slices.items()}
            shapes = {key: tuple(each.get_shape()) for key, each in slices.items()}
    except (SafetensorError, OSError) as error:
        raise _unusable(source, f"has a damaged {name} ({error})") from error
    other = sorted({kind for kind in kinds.values() if kind not in _TYPES})
    if other:
        raise _unusable(source, f"has weights of type {', '.join(other)} in {name}")
    return shapes


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _unusable(path.parent, f"has no readable {path.name} ({error})") from error
    if not isinstance(content, Mapping):
        raise _unusable(path.parent, f"has a {path.name} that is no object")
    return content


def _unusable(source: Path, why: str) -> BadInput:
    return BadInput(
        f"{source} {why}",
        "a checkpoint of transformers has config.json, safetensors (float32, bfloat16 or float16; whole or with "
        "an index), and tokenizer.json or tokenizer.model",
        "Complete the folder, or save it again with save_pretrained(..., safe_serialization=True)",
    )


def load_imported(store: Store, path: str) -> ImportedModel:
    """Read an imported model's manifest, given `models/NAME`; BadInput names what there is instead."""
    try:
        return ImportedModel.load(store, f"{path}/manifest.json")
    except FileNotFoundError:
        known = ", ".join(f"models/{name}" for name in store.names("models")) or "none"
        raise BadInput(
            f"training.start_from = {path}",
            f"it names an imported model under {store.root}; known: {known}",
            "Take one in with `gristmill import FOLDER NAME`",
        ) from None


def check_start(imported: ImportedModel, model: ModelSettings, tokenizer: TokenizerRecord) -> None:
    """Refuse with BadInput a training whose model or tokenizer is not that of the imported model."""
    if tokenizer.sha256 not in imported.tokenizers or tokenizer.vocabulary_size > imported.rows:
        raise BadInput(
            f"the dataset's tokenizer ({tokenizer.sha256[:12]}, {tokenizer.vocabulary_size:,} tokens) is not that of "
            f"{imported.folder} ({imported.rows:,} rows)",
            "weights go with the tokenizer that they were trained with",
            f"Build the dataset with tokenizer.path = {imported.tokenizer_path}",
        )
    ours, theirs = model.model_dump(), imported.model.model_dump()
    for name in sorted(ours.keys() - set(_FREE)):
        same = model.kv_channels == imported.model.kv_channels if name == "head_width" else ours[name] == theirs[name]
        if not same:
            raise BadInput(
                f"training.model.{name} = {ours[name]}",
                f"{imported.folder} was made with {theirs[name]}; only {', '.join(_FREE)} may change",
                f"Set it to {theirs[name]}",
            )


def verify_files(store: Store, imported: ImportedModel, names: Sequence[str], *, content: bool) -> None:
    """Raise DamagedData unless files are what the manifest says: their sizes, and with `content` their digests."""
    for name in names:
        path, expected = f"{imported.folder}/{name}", imported.files[name]
        present = store.exists(path) and store.size(path) == expected.bytes
        if present and (not content or store.sha256(path) == expected.sha256):
            continue
        raise DamagedData(
            f"{store.full_path(path)} is not the file that was imported",
            "an imported model stays as its manifest describes it",
            f"Remove {store.full_path(imported.folder)} and import the model again",
        )
