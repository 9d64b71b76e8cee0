"""Names, shapes and layouts of weights: Megatron-Core's beside those of transformers. Nothing here imports torch.

Megatron-Core stacks the layers of a matrix in one tensor of its checkpoint, and joins what is multiplied at once: for
each query group its queries, its key and its value; and gate and up of the feed-forward layer. Every layer of such a
tensor is a list of *blocks*: rows of transformers' tensors one below the other. Read one way, the blocks say where a
rank's slice of a matrix lies in a safetensors file; read the other way, how to take a matrix apart.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from model.settings.architecture import ModelSettings, padded_vocabulary

EMBEDDING, OUTPUT, LAYERS = "embedding.word_embeddings.weight", "output_layer.weight", "decoder.layers."


class Block(NamedTuple):
    """Some rows of one of transformers' tensors."""

    name: str
    start: int
    rows: int


def megatron_shapes(model: ModelSettings, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Names in a checkpoint with their shapes, the stack of layers in front; in the order of transformers' files."""
    hidden, width, ffn = model.hidden_size, model.kv_channels, model.ffn_hidden_size
    heads, groups, padded = model.num_attention_heads, model.num_query_groups, padded_vocabulary(vocabulary_size)
    layer: dict[str, tuple[int, ...]] = {
        "self_attention.linear_qkv.layer_norm_weight": (hidden,),
        "self_attention.linear_qkv.weight": ((heads + 2 * groups) * width, hidden),
        "self_attention.linear_proj.weight": (hidden, heads * width),
        "mlp.linear_fc1.layer_norm_weight": (hidden,),
        "mlp.linear_fc1.weight": (2 * ffn, hidden),
        "mlp.linear_fc2.weight": (hidden, ffn),
    }
    if model.qk_norm:
        layer |= {f"self_attention.{each}_layernorm.weight": (width,) for each in "qk"}
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (padded, hidden)}
    shapes |= {f"{LAYERS}{name}": (model.num_layers, *shape) for name, shape in layer.items()}
    shapes["decoder.final_layernorm.weight"] = (hidden,)
    return shapes if model.tied_embeddings else shapes | {OUTPUT: (padded, hidden)}


def transformers_shapes(model: ModelSettings, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Transformers' names with their shapes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for key, layer, shape in matrices(model, vocabulary_size):
        for block in blocks(key, layer, model, vocabulary_size):
            rows = max(block.start + block.rows, shapes.get(block.name, (0,))[0])
            shapes[block.name] = (rows, *shape[1:])
    return shapes


def matrices(model: ModelSettings, vocabulary_size: int) -> Iterator[tuple[str, int | None, tuple[int, ...]]]:
    """Name, layer and shape of every matrix or vector of a checkpoint, layer by layer."""
    shapes = megatron_shapes(model, vocabulary_size)
    stacked = {key: shape for key, shape in shapes.items() if key.startswith(LAYERS)}
    yield EMBEDDING, None, shapes[EMBEDDING]
    for layer in range(model.num_layers):
        yield from ((key, layer, shape[1:]) for key, shape in stacked.items())
    yield from ((key, None, shape) for key, shape in shapes.items() if key not in stacked and key != EMBEDDING)


def blocks(key: str, layer: int | None, model: ModelSettings, vocabulary_size: int) -> list[Block]:
    """The rows of a layer of a checkpoint's tensor; the rows after a vocabulary are left out."""
    hidden, width, ffn = model.hidden_size, model.kv_channels, model.ffn_hidden_size
    groups = model.num_query_groups
    share = model.num_attention_heads // groups * width
    if layer is None:
        names = {EMBEDDING: "model.embed_tokens.weight", OUTPUT: "lm_head.weight"}
        return [Block(names[key], 0, vocabulary_size)] if key in names else [Block("model.norm.weight", 0, hidden)]
    prefix, name = f"model.layers.{layer}.", key.removeprefix(LAYERS)
    if name == "self_attention.linear_qkv.weight":
        sizes = (("q", share), ("k", width), ("v", width))
        return [
            Block(f"{prefix}self_attn.{each}_proj.weight", group * rows, rows)
            for group in range(groups)
            for each, rows in sizes
        ]
    if name == "mlp.linear_fc1.weight":
        return [Block(f"{prefix}mlp.{each}_proj.weight", 0, ffn) for each in ("gate", "up")]
    others = {
        "self_attention.linear_qkv.layer_norm_weight": ("input_layernorm", hidden),
        "self_attention.q_layernorm.weight": ("self_attn.q_norm", width),
        "self_attention.k_layernorm.weight": ("self_attn.k_norm", width),
        "self_attention.linear_proj.weight": ("self_attn.o_proj", hidden),
        "mlp.linear_fc1.layer_norm_weight": ("post_attention_layernorm", hidden),
        "mlp.linear_fc2.weight": ("mlp.down_proj", hidden),
    }
    other, rows = others[name]
    return [Block(f"{prefix}{other}.weight", 0, rows)]


def shard_names(sizes: Mapping[str, int], largest: int) -> dict[str, str]:
    """The file of each tensor: one, or several of at most so many bytes (a larger tensor has one of its own)."""
    numbers: dict[str, int] = {}
    number = filled = 0
    for name, size in sizes.items():
        if filled and filled + size > largest:
            number, filled = number + 1, 0
        numbers[name], filled = number, filled + size
    if number == 0:
        return dict.fromkeys(sizes, "model.safetensors")
    return {name: f"model-{each + 1:05d}-of-{number + 1:05d}.safetensors" for name, each in numbers.items()}
