"""Shapes of decoders that have a name: `training.model = "150m"` in a configuration means one of them.

    name   weights of layers  layers  hidden  heads  groups     ffn  sequence
    1m                0.79 M       4     128      4       2     384       256
    4m                 4.4 M       6     256      8       4     704       512
    15m                 13 M       8     384      6       2    1024      1024
    60m                 54 M      12     640     10       2    1792      1024
    150m               142 M      12    1024     16       8    2816      2048
    350m               340 M      24    1024     16       8    3584      2048
    1b                0.97 B      16    2048     32       8    8192      4096
    3.6b               2.8 B      28    3072     24       8    8192      4096
    8b                 7.0 B      32    4096     32       8   14336      8192
    70b                 68 B      80    8192     64       8   28672      8192

Embeddings come on top: with a vocabulary of 32,768 the 1b has 1.1 B weights, with 128,256 the 3.6b has 3.6 B, the 8b
8.0 B and the 70b 70.6 B. 1b and 3.6b have the shape of Llama 3.2's models (1b with the vocabulary of Llama 2), 8b and
70b that of Llama 3 (arXiv:2407.21783); all four are as Llama without norms of queries and keys. Smaller ones tie the
output layer to the embedding, because it would be a large part of them, and normalise queries and keys.
"""

from collections.abc import Mapping
from typing import Any


def _shape(layers: int, hidden: int, heads: int, groups: int, ffn: int, sequence: int) -> dict[str, Any]:
    names = ("num_layers", "hidden_size", "num_attention_heads", "num_query_groups", "ffn_hidden_size")
    values = (layers, hidden, heads, groups, ffn)
    return {**dict(zip(names, values, strict=True)), "sequence_length": sequence}


_LLAMA = {"tied_embeddings": False, "qk_norm": False, "rope_base": 500_000}

SIZES: Mapping[str, Mapping[str, Any]] = {
    "1m": _shape(4, 128, 4, 2, 384, 256),
    "4m": _shape(6, 256, 8, 4, 704, 512),
    "15m": _shape(8, 384, 6, 2, 1024, 1024),
    "60m": _shape(12, 640, 10, 2, 1792, 1024),
    "150m": _shape(12, 1024, 16, 8, 2816, 2048),
    "350m": _shape(24, 1024, 16, 8, 3584, 2048),
    "1b": {**_shape(16, 2048, 32, 8, 8192, 4096), **_LLAMA},
    "3.6b": {**_shape(28, 3072, 24, 8, 8192, 4096), **_LLAMA},
    "8b": {**_shape(32, 4096, 32, 8, 14_336, 8192), **_LLAMA},
    "70b": {**_shape(80, 8192, 64, 8, 28_672, 8192), **_LLAMA},
}
"""Fields of `model.settings.architecture.ModelSettings` by name; the others keep their defaults."""


def with_size(value: Any) -> Any:
    """Input of ModelSettings in which a name, alone or as `size` beside other fields, is replaced by its shape.

    Raises ValueError for a name that there is not.
    """
    given = {"size": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or "size" not in given:
        return value
    name = str(given["size"]).lower()
    if name not in SIZES:
        raise ValueError(f"size {given['size']} is not one of {', '.join(SIZES)}")
    return {**SIZES[name], **{key: each for key, each in given.items() if key != "size"}}
