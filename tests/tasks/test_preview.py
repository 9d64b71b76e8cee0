"""The preview: exactly what a rebuild gives, from numbers alone."""

from collections.abc import Mapping

import pytest

from infra.errors import BadInput
from tasks.filters import FilterInputs, FilterSettings
from tasks.pipeline import refine, remeasured
from tasks.preview import Change, compare, measured_signals, preview
from tasks.quality.language import LanguageSettings
from tests.tasks.small_corpus import Small


def looser(settings: FilterSettings) -> FilterSettings:
    """Shorter documents and German ones, but fewer English ones."""
    quality = settings.quality
    gopher = quality.gopher_quality.model_copy(update={"min_words": 100, "max_mean_word_length": 6.5})
    return settings.model_copy(
        update={
            "language": LanguageSettings(languages=("en", "de"), min_score=0.3),
            "quality": quality.model_copy(update={"gopher_quality": gopher}),
        }
    )


def inputs(small: Small, settings: FilterSettings) -> FilterInputs:
    return FilterInputs(filter=settings, signals=measured_signals(small.corpus.ledger))


def counts(changes: Mapping[str, Change], when: str) -> dict[str, int]:
    found = {name: getattr(change, when).documents for name, change in changes.items()}
    return {name: count for name, count in found.items() if count}


def test_the_same_settings_change_nothing(small: Small) -> None:
    found = preview(small.store, small.corpus.ledger, inputs(small, small.settings.filter))
    stage = small.stage("filter")
    assert found.moves == ()
    assert found.measured.documents == stage.rows_in
    assert found.kept.before == found.kept.after
    assert found.kept.after.documents == stage.kept
    assert counts(found.reasons, "before") == counts(found.reasons, "after") == stage.total("reasons")
    assert found.languages["en"].after == found.kept.after


def test_other_settings_give_what_a_rebuild_gives(small: Small) -> None:
    """Also the words: those of the documents that the rebuilt filter keeps."""
    changed = looser(small.settings.filter)
    found = preview(small.store, small.corpus.ledger, inputs(small, changed))
    settings = small.settings.model_copy(update={"filter": changed})
    build = remeasured(small.runner, settings, small.dataset)
    rebuilt = refine(small.runner, build, settings).build.stage("filter")
    assert found.kept.after.documents == rebuilt.kept != found.kept.before.documents
    assert counts(found.reasons, "after") == rebuilt.total("reasons")
    kept = [row for path in rebuilt.kept_paths for row in small.store.read_table(path).to_pylist()]
    words = {row["id"]: row["words"] for row in small.ledger().to_pylist()}
    assert found.kept.after.words == sum(words[row["id"]] for row in kept)
    assert counts(found.languages, "after") == {
        code: sum(row["language"] == code for row in kept) for code in sorted({row["language"] for row in kept})
    }
    assert counts(found.reasons, "before") == small.stage("filter").total("reasons")


def test_changed_verdicts_are_named(small: Small) -> None:
    found = preview(small.store, small.corpus.ledger, inputs(small, looser(small.settings.filter)))
    moves = {(each.before, each.after): each for each in found.moves}
    german = moves["language_unwanted", "too_few_words"]
    assert german.amount.documents == 1
    assert german.examples[0].url == "http://german.example/"
    assert german.examples[0].language == "de"
    lost = moves[None, "too_few_words"]
    assert len(lost.examples) == min(3, lost.amount.documents)
    gained = sum(each.amount.documents for each in found.moves if each.after is None)
    gone = sum(each.amount.documents for each in found.moves if each.before is None)
    assert found.kept.after.documents == found.kept.before.documents + gained - gone


def test_documents_that_were_never_measured_stay_dropped(small: Small) -> None:
    every = LanguageSettings(languages=None, min_score=0)
    settings = small.settings.filter.model_copy(update={"language": every})
    found = preview(small.store, small.corpus.ledger, inputs(small, settings))
    assert found.measured.documents == small.ledger().num_rows - 2


def test_shards_are_added_up(small: Small) -> None:
    settings = inputs(small, looser(small.settings.filter))
    ledger = small.ledger()
    one, two = compare([ledger], settings), compare([ledger.slice(0, 7), ledger.slice(7)], settings)
    assert one == two
    assert compare([ledger.slice(0, 0)], settings).measured.documents == 0


def test_a_signal_that_the_ledger_lacks_is_refused(small: Small) -> None:
    with pytest.raises(BadInput, match="oh_eli5"):
        preview(small.store, small.corpus.ledger, inputs(small, FilterSettings(min_score={"oh_eli5": 0.018112})))
    with pytest.raises(BadInput, match="absent"):
        preview(small.store, small.corpus.ledger, inputs(small, FilterSettings(score="absent")))
