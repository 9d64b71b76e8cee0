"""Continuing prompts with tokenizers of every format, and never with a token that no text has."""

import hashlib

import pytest
import torch

from infra.manifest import TokenizerRecord
from infra.store import Store
from infra.vocabulary import load_vocabulary
from model.architectures.build import build_model
from model.config import EvaluationSettings
from model.generate import continue_prompts
from model.parallel import Place
from tasks.tokens.tokenizer_import import ExistingSettings, import_tokenizer
from tests.model.small_runs import small_training
from tests.tasks.tokenizer_files import huggingface_file, sentencepiece_file, tiktoken_file

FILES = {"sentencepiece": sentencepiece_file, "huggingface": huggingface_file, "tiktoken": tiktoken_file}
EXISTING = ExistingSettings(end_of_document="</s>", pattern="gpt2", special_tokens={"</s>": 700, "<pad>": 701})


@pytest.fixture(params=FILES)
def tokenizer(request: pytest.FixtureRequest, store: Store) -> TokenizerRecord:
    data = FILES[request.param]()
    path = f"tokenizers/{hashlib.sha256(data).hexdigest()}"
    store.write_bytes(path, data)
    return import_tokenizer(store.full_path(path), EXISTING).record.model_copy(update={"path": path})


def test_prompts_are_continued_with_text(place: Place, store: Store, tokenizer: TokenizerRecord) -> None:
    training = small_training(seed=5)
    model = build_model(training, training.parallel, place, tokenizer.vocabulary_size)[0].eval()
    vocabulary = load_vocabulary(store, tokenizer)
    settings = EvaluationSettings(prompts=("The mill </s>", "def "), sample_tokens=16, temperature=1.0)
    length = training.model.sequence_length
    device = torch.device("cpu")
    samples = continue_prompts(model, vocabulary, tokenizer, settings, length, device)
    assert [sample.prompt for sample in samples] == list(settings.prompts)
    assert all(sample.text for sample in samples)
    assert samples == continue_prompts(model, vocabulary, tokenizer, settings, length, device)
    for sample in samples:
        assert not [token for token in tokenizer.control if token in sample.text]
