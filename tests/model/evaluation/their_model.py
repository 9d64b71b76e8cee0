"""lm-evaluation-harness's own backend for transformers, over an exported model: what our answers are compared with."""

import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers
    from lm_eval.models.huggingface import HFLM

_HFLM: Any = HFLM  # its registry's decorator hides its type


class BegunHFLM(_HFLM):
    """Every context begins after an end-of-document token, as in training; rolling windows have it by themselves."""

    rolling = False

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        ids = super().tok_encode(string, add_special_tokens=False)
        begins = add_special_tokens is not False and not self.rolling
        return [self.prefix_token_id, *ids] if begins else ids

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        self.rolling = True
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm)
        finally:
            self.rolling = False


def their_model(folder: Path, sequence_length: int, batch_size: int = 8, device: str = "cpu") -> BegunHFLM:
    """The model that was exported to a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        return BegunHFLM(
            pretrained=model.eval().to(device),
            tokenizer=tokenizer,
            batch_size=batch_size,
            max_length=sequence_length,
            device=device,
        )
