"""Continuing prompts token by token, with the keys and values of earlier positions cached."""

from typing import Any

import sentencepiece
import torch
from megatron.core.inference.contexts import StaticInferenceContext

from infra.errors import DamagedData
from infra.manifest import TokenizerRecord
from infra.store import Store
from model.config import EvaluationSettings
from model.run import Sample


def load_tokenizer(store: Store, record: TokenizerRecord) -> sentencepiece.SentencePieceProcessor:
    """Read the dataset's tokenizer; DamagedData if it is another than the manifest's."""
    found = store.sha256(record.path)
    if found != record.sha256:
        raise DamagedData(
            f"{store.full_path(record.path)} has SHA-256 {found} instead of {record.sha256}",
            "a tokenizer is what the dataset's manifest says of it",
            "Restore the file, or build the dataset again",
        )
    return sentencepiece.SentencePieceProcessor(model_proto=store.read_bytes(record.path))


def continue_prompts(
    model: Any,
    tokenizer: sentencepiece.SentencePieceProcessor,
    record: TokenizerRecord,
    settings: EvaluationSettings,
    sequence_length: int,
    device: torch.device,
) -> tuple[Sample, ...]:
    """Continue each prompt by at most `sample_tokens` tokens, or to the end of the document or of the sequence.

    The result depends on the seed and the weights; tensor-parallel ranks see the same logits and draw the same tokens.
    """
    samples: list[Sample] = []
    for index, prompt in enumerate(settings.prompts):
        generator = torch.Generator().manual_seed(settings.seed + index)
        # As in training, a document begins after the end of another one; a long prompt loses its beginning.
        given = [record.end_of_document, *tokenizer.encode(prompt)][-(sequence_length - 1) :]
        room = min(settings.sample_tokens, sequence_length - len(given))
        added = _continue(model, given, room, record, settings, generator, device)
        text = tokenizer.decode(given + added)
        samples.append(Sample(prompt=prompt, text=text[len(tokenizer.decode(given)) :]))
    return tuple(samples)


@torch.no_grad()
def _continue(
    model: Any,
    given: list[int],
    count: int,
    record: TokenizerRecord,
    settings: EvaluationSettings,
    generator: torch.Generator,
    device: torch.device,
) -> list[int]:
    cache = StaticInferenceContext(max_batch_size=1, max_sequence_length=len(given) + count)
    added: list[int] = []
    step = given
    while len(added) < count:
        start = cache.sequence_len_offset
        positions = torch.arange(start, start + len(step), device=device)[None]
        tokens = torch.tensor([step], device=device)
        logits = model(tokens, positions, None, inference_context=cache, runtime_gather_output=True)
        cache.sequence_len_offset += len(step)
        cache.enable_decode_mode()
        step = [_draw(logits[0, -1].float().cpu(), record, settings, generator)]
        if step[0] == record.end_of_document:
            break
        added += step
    return added


def _draw(
    logits: torch.Tensor, record: TokenizerRecord, settings: EvaluationSettings, generator: torch.Generator
) -> int:
    """One token from logits [padded vocabulary]; ids that no text has are left out."""
    logits = logits[: record.vocabulary_size].clone()
    logits[record.pad] = -torch.inf
    if settings.temperature == 0:
        return int(logits.argmax())
    if settings.top_k is not None and settings.top_k < len(logits):
        logits[logits < logits.topk(settings.top_k).values[-1]] = -torch.inf
    return int(torch.multinomial(torch.softmax(logits / settings.temperature, 0), 1, generator=generator))
