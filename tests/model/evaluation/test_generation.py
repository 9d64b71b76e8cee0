"""Continuations: those of a model without memory, alone or among others, under every layout, and never with a token
that no text has."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.launching.launch import JobSpec, LocalLauncher
from infra.manifest import DatasetManifest, TokenizerRecord
from infra.store import Store
from infra.vocabulary import load_vocabulary
from model.architectures.build import build_model
from model.config import EvaluationSettings
from model.evaluation.generation import GenerationRequest, Generator, continue_prompts
from model.interchange.imported import import_model
from model.parallel import Place
from tasks.tokens.tokenizer_import import ExistingSettings, import_tokenizer
from tests.model.evaluation.generation_rank import CASES, LAYOUTS, RECORD, Letters, answers, prompts, settings_of
from tests.model.interchange.test_tensors import loaded, theirs
from tests.model.small_runs import VOCABULARY, small_training
from tests.tasks.tokenizer_files import huggingface_file, sentencepiece_file, tiktoken_file

FILES = {"sentencepiece": sentencepiece_file, "huggingface": huggingface_file, "tiktoken": tiktoken_file}
EXISTING = ExistingSettings(end_of_document="</s>", pattern="gpt2", special_tokens={"</s>": 700, "<pad>": 701})


def generator_of(case: str, place: Place, tokens_at_once: int = 16_384, **changes: Any) -> tuple[Any, Generator]:
    training = settings_of(case, **changes)
    chunks = build_model(training, training.parallel, place, VOCABULARY)
    return chunks[0], Generator(chunks, place, 64, RECORD, Letters(), tokens_at_once)


@torch.no_grad()
def without_memory(model: Any, prompt: tuple[int, ...], count: int) -> list[int]:
    """The likeliest tokens, each from all before it."""
    read = list(prompt)
    while len(read) < min(len(prompt) + count, 64):
        positions = torch.arange(len(read))[None]
        logits = model.eval()(torch.tensor([read]), positions, None)[0, -1, :VOCABULARY].float()
        logits[RECORD.pad] = -torch.inf
        if int(logits.argmax()) == RECORD.end_of_document:
            break
        read.append(int(logits.argmax()))
    return read[len(prompt) :]


@pytest.mark.parametrize("case", CASES)
def test_memory_and_neighbours_change_nothing(case: str, place: Place) -> None:
    model, generator = generator_of(case, place)
    requests = [GenerationRequest(prompt, 6 + 5 * (number % 3)) for number, prompt in enumerate(prompts())]
    found = generator.generate(requests)
    assert found == [without_memory(model, prompt, count) for prompt, count, *_ in requests]
    assert found == [generator.generate([request])[0] for request in requests]
    assert len({token for added in found for token in added}) > 20, "or the test shows little"
    assert [len(added) for added in found][-1] == 6, "the sequence is full"


def test_in_bfloat16_the_greatest_logits_are_found(place: Place) -> None:
    model, generator = generator_of("gpt", place, dtype="bfloat16")
    requests = [GenerationRequest(prompt, 8) for prompt in prompts(5)]
    for (prompt, *_), added in zip(requests, generator.generate(requests), strict=True):
        read = torch.tensor([[*prompt, *added]])
        logits = model.eval()(read, torch.arange(read.shape[1])[None], None)[0, :, :VOCABULARY].float().detach()
        for place_of, token in enumerate(added, start=len(prompt) - 1):
            assert logits[place_of].max() - logits[place_of, token] < 0.15  # a few of bfloat16's steps


@pytest.mark.parametrize("kind", ["qwen3-windows", "llama-scaled"])
def test_transformers_says_the_same(kind: str, place: Place, store: Store, dataset: DatasetManifest, tmp_path) -> None:
    model: Any = theirs(kind, tmp_path, store, dataset)
    imported = import_model(store, tmp_path, f"generated-{kind}")
    _, chunks = loaded(store, imported, place)
    generator = Generator(chunks, place, 64, RECORD, Letters())
    found = generator.generate([GenerationRequest(prompt, 16) for prompt in prompts(8)])
    for prompt, added in zip(prompts(8), found, strict=True):
        ids = torch.tensor([prompt])
        options = {"do_sample": False, "eos_token_id": 2, "pad_token_id": 2, "suppress_tokens": [3]}
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, **options)[0].tolist()
        assert added == [token for token in whole[len(prompt) :] if token != 2]


def test_layouts_say_the_same(place: Place, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    job = JobSpec(module="tests.model.evaluation.generation_rank", arguments=(str(results),), processes=2)
    LocalLauncher().run(job, lambda line: None)
    alone = {case: answers(settings_of(case), settings_of(case).parallel, place) for case, _ in LAYOUTS}
    assert json.loads(results.read_text()) == [alone[case] for case, _ in LAYOUTS]


def test_where_an_answer_ends(place: Place) -> None:
    _, generator = generator_of("gpt", place)
    prompt = prompts()[4]
    whole = generator.generate([GenerationRequest(prompt, 20)])[0]
    text = Letters().decode(whole)
    stops = (text[8:11], "", "never")
    first = text.index(text[8:11]) + 3
    requests = [GenerationRequest(prompt, 20, stops), GenerationRequest(prompt, 0), GenerationRequest(prompt, 5)]
    assert generator.generate(requests) == [whole[:first], [], whole[:5]]
    assert generator.generate([]) == []


def test_sampling_follows_its_settings(place: Place) -> None:
    model, generator = generator_of("gpt", place)
    prompt = prompts()[2]
    options = [{"top_k": 3}, {"top_p": 0.3}, {}]
    with torch.no_grad():
        positions = torch.arange(len(prompt))[None]
        logits = model.eval()(torch.tensor([prompt]), positions, None)[0, -1, :VOCABULARY].double()
    logits[RECORD.pad] = -torch.inf
    chances = torch.softmax(logits / 0.7, 0)
    ranked = chances.argsort(descending=True)
    nucleus = int((chances[ranked].cumsum(0) < 0.3).sum()) + 1
    for each, allowed in zip(options, (3, nucleus, VOCABULARY), strict=True):
        requests = [GenerationRequest(prompt, 1, temperature=0.7, seed=seed, **each) for seed in range(400)]
        drawn = [added[0] if added else RECORD.end_of_document for added in generator.generate(requests)]
        kept = chances[ranked[:allowed]] / chances[ranked[:allowed]].sum()
        assert set(drawn) <= set(ranked[:allowed].tolist())
        share = drawn.count(int(ranked[0])) / len(drawn)
        assert share == pytest.approx(float(kept[0]), abs=4 * (0.25 / 400) ** 0.5)
        assert drawn == [added[0] if added else 2 for added in generator.generate(requests)]


def test_a_training_goes_on_as_before(place: Place) -> None:
    model, generator = generator_of("gpt", place)
    model.train()
    model.config.fused_single_qkv_rope = True
    generator.generate([GenerationRequest((5, 6), 2)])
    assert model.training
    assert model.config.fused_single_qkv_rope


def test_nothing_is_compiled_for_single_tokens(place: Place) -> None:
    model, generator = generator_of("gpt", place)
    request = GenerationRequest(prompts()[2], 5)
    plain = generator.generate([request])
    for layer in model.decoder.layers:
        layer.compile(dynamic=False)
    torch._dynamo.utils.counters.clear()
    assert generator.generate([request]) == plain
    assert not torch._dynamo.utils.counters["frames"]


@pytest.fixture(params=FILES)
def tokenizer(request: pytest.FixtureRequest, store: Store) -> TokenizerRecord:
    data = FILES[request.param]()
    path = f"tokenizers/{hashlib.sha256(data).hexdigest()}"
    store.write_bytes(path, data)
    return import_tokenizer(store.full_path(path), EXISTING).record.model_copy(update={"path": path})


def test_prompts_are_continued_with_text(place: Place, store: Store, tokenizer: TokenizerRecord) -> None:
    training = small_training(seed=5)
    chunks = build_model(training, training.parallel, place, tokenizer.vocabulary_size)
    vocabulary = load_vocabulary(store, tokenizer)
    settings = EvaluationSettings(prompts=("The mill </s>", "def "), sample_tokens=16, temperature=1.0, seed=1)
    length = training.model.sequence_length
    generator = Generator(chunks, place, length, tokenizer, vocabulary)
    samples = continue_prompts(generator, vocabulary, tokenizer, settings, length)
    assert [sample.prompt for sample in samples] == list(settings.prompts)
    assert all(sample.text for sample in samples), samples
    assert samples == continue_prompts(generator, vocabulary, tokenizer, settings, length)
    for sample in samples:
        assert not [token for token in tokenizer.control if token in sample.text]
