"""Continuing prompts token by token, with the keys and values of earlier positions cached."""

from typing import Any

import torch
from megatron.core.inference.contexts import StaticInferenceContext

from infra.manifest import TokenizerRecord
from infra.vocabulary import Vocabulary
from model.config import EvaluationSettings
from model.run import Sample


def continue_prompts(
    model: Any,
    vocabulary: Vocabulary,
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
        given = [record.end_of_document, *vocabulary.encode([prompt])[0].tolist()][-(sequence_length - 1) :]
        room = min(settings.sample_tokens, sequence_length - len(given))
        added = _continue(model, given, room, record, settings, generator, device)
        # Decoded together, for the space or the half of a character at the border.
        text = vocabulary.decode(given + added)[len(vocabulary.decode(given)) :]
        samples.append(Sample(prompt=prompt, text=text))
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
    """One token from logits [padded vocabulary]; ids that no text has are left out, but for the end of document."""
    logits = logits[: record.vocabulary_size].clone()
    never = {*record.control.values(), *(() if record.pad is None else (record.pad,))} - {record.end_of_document}
    logits[sorted(never)] = -torch.inf
    if settings.temperature == 0:
        return int(logits.argmax())
    if settings.top_k is not None and settings.top_k < len(logits):
        logits[logits < logits.topk(settings.top_k).values[-1]] = -torch.inf
    return int(torch.multinomial(torch.softmax(logits / settings.temperature, 0), 1, generator=generator))
