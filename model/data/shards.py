"""Token shards are what the dataset's manifest says of them, or training does not start."""

from collections.abc import Sequence

from infra.errors import DamagedData
from infra.manifest import DatasetManifest, TokenShard
from infra.store import Store


def verify_shards(store: Store, dataset: DatasetManifest, shards: Sequence[TokenShard], *, content: bool) -> None:
    """Compare size, tokenizer and, with `content`, SHA-256 of each shard with the manifest, else DamagedData."""
    for shard in shards:
        if not store.exists(shard.path):
            raise _damaged(store, shard, "is missing")
        if (size := store.size(shard.path)) != shard.bytes:
            raise _damaged(store, shard, f"has {size} bytes instead of {shard.bytes}")
        if content and (found := store.sha256(shard.path)) != shard.sha256:
            raise _damaged(store, shard, f"has SHA-256 {found} instead of {shard.sha256}")
        metadata = store.open_table(shard.path).schema.metadata or {}
        tokenizer = metadata.get(b"tokenizer_sha256", b"").decode()
        if tokenizer != dataset.tokenizer.sha256:
            raise _damaged(store, shard, f"was made by tokenizer {tokenizer} instead of {dataset.tokenizer.sha256}")


def _damaged(store: Store, shard: TokenShard, what: str) -> DamagedData:
    return DamagedData(
        f"{store.full_path(shard.path)} {what}",
        "a token shard is what the dataset's manifest says of it",
        "Restore the file, or build the dataset again",
    )
