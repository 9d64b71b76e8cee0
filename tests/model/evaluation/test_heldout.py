"""The likelihood of held-out documents: each one's own, whatever windows, ranks and objectives hold its tokens."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from infra.launching.launch import JobSpec, LocalLauncher
from model.architectures.build import build_model
from model.data.documents import Documents
from model.evaluation.heldout import choose, document_nats
from model.parallel import parallel as arranged
from model.updates.loss import token_losses
from tests.model.evaluation.heldout_rank import CASES, nats_of
from tests.model.small_runs import layout, small_training


def test_every_document_has_the_losses_of_its_own_tokens(store, dataset, place) -> None:
    settings = small_training()
    chunks = build_model(settings, settings.parallel, place, 400)
    held_out = choose(Documents(store, dataset.split("heldout")), None, 2)
    found = document_nats(chunks, held_out, 64, 4, place)
    stream = np.concatenate([held_out.documents.read(number, 0, 1 << 30) for number in range(held_out.count)])
    read = torch.from_numpy(np.concatenate([[2], stream[:-1]]).astype(np.int64))
    asked = torch.from_numpy(stream.astype(np.int64))
    losses = []
    with torch.no_grad():
        for start in range(0, len(stream), 64):
            tokens, labels = read[None, start : start + 64], asked[None, start : start + 64]
            losses.append(token_losses(chunks[0](tokens, torch.arange(tokens.shape[1])[None], None), labels)[0])
    owners = np.repeat(np.arange(held_out.count), held_out.documents.lengths)
    expected = np.bincount(owners, torch.cat(losses).double().numpy())
    assert found.nats == pytest.approx(expected, rel=1e-6)
    assert found.tokens.tolist() == held_out.documents.lengths.tolist()
    assert found.loss == pytest.approx(expected.sum() / len(stream), rel=1e-7)


@pytest.fixture(scope="module")
def two_processes(store, dataset, tmp_path_factory) -> dict[str, list[list[list[float]]]]:
    """By case: for each layout nats and tokens of each document, of one start of two processes."""
    out = str(tmp_path_factory.mktemp("heldout") / "found.json")
    module = "tests.model.evaluation.heldout_rank"
    LocalLauncher().run(JobSpec(module=module, arguments=(store.root, out), processes=2), lambda line: None)
    return json.loads(Path(out).read_text())


def test_every_layout_gives_each_document_the_same(store, dataset, alone, two_processes) -> None:
    for name, (_, _, layouts) in CASES.items():
        with arranged(layout(), 1234) as place:
            expected = nats_of(store, dataset, name, layout(), place)
        assert expected.nats.min() > 0
        assert len(two_processes[name]) == len(layouts)
        for parallel, (nats, tokens) in zip(layouts, two_processes[name], strict=True):
            assert tokens == expected.tokens.tolist(), (name, parallel)
            assert nats == pytest.approx(expected.nats.tolist(), rel=1e-5), (name, parallel)
        assert name in ("bert", "t5") or expected.tokens.sum() > 10 * len(expected.tokens)


def test_what_documents_may_see_changes_all_but_the_first(store, dataset, place) -> None:
    together, apart = (nats_of(store, dataset, name, layout(), place) for name in ("together", "apart"))
    assert together.nats[0] == pytest.approx(apart.nats[0], rel=1e-6)
    assert all(abs(one / other - 1) > 1e-7 for one, other in zip(together.nats[1:], apart.nats[1:], strict=True))
