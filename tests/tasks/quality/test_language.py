"""Language: recognised languages, two opinions, thresholds, and where the models may be unsure."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from infra.errors import BadInput
from infra.schema import DOCUMENTS
from tasks.inputs import UserFile
from tasks.quality.language import (
    LANGUAGE_SIGNALS,
    LanguageSettings,
    LanguageSignalSettings,
    judge_language,
    label,
    language_code,
    packaged_model,
    pinned_model,
)

SAMPLES = {
    "en": "The mill stands at the river, and the miller has worked there since he was a boy of twelve years.",
    "de": "Die Mühle steht am Fluss, und der Müller arbeitet dort, seit er ein Junge von zwölf Jahren war.",
    "fr": "Le moulin se trouve au bord de la rivière, et le meunier y travaille depuis l'âge de douze ans.",
    "ru": "Мельница стоит у реки, и мельник работает там с тех пор, как ему исполнилось двенадцать лет.",  # noqa: RUF001
    "ja": "水車小屋は川のそばに立っていて、粉屋は十二歳の頃からそこで働いている。",
    "el": "Ο μύλος βρίσκεται δίπλα στο ποτάμι και ο μυλωνάς δουλεύει εκεί από δώδεκα χρονών.",  # noqa: RUF001
}
ALONE = LanguageSignalSettings(second_opinion=False)
ANY = LanguageSettings(languages=None)


def labels(*texts: str, settings: LanguageSignalSettings | None = None) -> list[str]:
    return label(texts, settings or LanguageSignalSettings())["language"].to_pylist()


def signals(*rows: dict[str, object]) -> pa.Table:
    usual = {"model_language": "no", "model_language_score": 0.9, "language_characters": 100, "languages_agree": True}
    return pa.Table.from_pylist([{**usual, "opinion_language": "da", **row} for row in rows], schema=LANGUAGE_SIGNALS)


@pytest.mark.parametrize("settings", [LanguageSignalSettings(), ALONE])
@pytest.mark.parametrize("code", SAMPLES)
def test_a_sentence_is_recognised(code: str, settings: LanguageSignalSettings) -> None:
    [row] = label([SAMPLES[code]], settings).to_pylist()
    assert row["language"] == row["model_language"] == code
    assert 0.65 < row["language_score"] <= 1
    assert row["second_language"] != code
    assert row["second_language_score"] < row["language_score"]
    assert row["languages_agree"] is (True if settings.second_opinion else None)


def test_signals_have_one_schema_whatever_the_batch() -> None:
    texts = [*SAMPLES.values(), "", "12345 67890", "?!", "\0", "\n\n", "https://example.org/a-page-in-english"]
    whole = label(texts, LanguageSignalSettings())
    assert whole.schema == LANGUAGE_SIGNALS
    assert label([], LanguageSignalSettings()).schema == LANGUAGE_SIGNALS
    assert pa.concat_tables([label([text], LanguageSignalSettings()) for text in texts]).equals(whole)


@pytest.mark.parametrize("text", ["", "\n\n", "12345 67890", "\0\0", "https://example.org/a-page-in-english"])
def test_text_without_words_has_no_language_and_is_never_kept(text: str) -> None:
    found = label([text], LanguageSignalSettings())
    assert found.select(["language", "language_score", "second_language"]).to_pylist() == [
        {"language": "und", "language_score": 0.0, "second_language": None}
    ]
    assert judge_language(found, LanguageSettings(languages=None, min_score=0)).reasons == ["language_uncertain"]


def test_a_script_that_the_second_opinion_does_not_know_stays_with_the_model() -> None:
    [row] = label(["བོད་སྐད་ཡིག་གི་ཚིག་གྲུབ་ཅིག་ཡིན།"], LanguageSignalSettings()).to_pylist()
    assert (row["language"], row["language_score"]) == ("bo", row["model_language_score"])
    assert row["languages_agree"] is False


def test_a_language_that_the_model_does_not_know_comes_from_the_second_opinion() -> None:
    zulu = "Umfundisi utshele abafundi ukuthi kufanele bafunde ngaphambi kokuhlolwa kwabo okuzayo."
    assert labels(zulu) == ["zu"]
    assert labels(zulu, settings=ALONE) != ["zu"]


def test_capitals_addresses_and_lines_do_not_change_the_label() -> None:
    plain = SAMPLES["de"]
    assert (
        labels(plain.upper(), f"https://example.com/read-all-about-it-here {plain} a.person@example.com") == ["de"] * 2
    )
    assert label([plain.replace(" ", "\n")], ALONE).equals(label([plain], ALONE))


def test_the_second_opinion_is_asked_about_short_and_doubtful_texts_only() -> None:
    long = " ".join([SAMPLES["en"]] * 20)
    asked = label([SAMPLES["en"], long], LanguageSignalSettings())["opinion_language"].to_pylist()
    assert asked == ["en", None]
    settings = LanguageSignalSettings(second_opinion_characters=0, second_opinion_score=0)
    assert label([SAMPLES["en"]], settings)["opinion_language"].to_pylist() == [None]


def test_head_and_middle_of_a_long_text_are_read() -> None:
    head = label([SAMPLES["en"] * 3 + SAMPLES["de"] * 400], ALONE)
    assert head["language"].to_pylist() == ["de"]
    assert head["language_characters"].to_pylist()[0] <= 1001


def test_a_score_must_lie_above_the_threshold_of_its_language() -> None:
    found = label([SAMPLES["en"], SAMPLES["de"]], LanguageSignalSettings())
    english, german = (float(score) for score in found["language_score"].to_pylist())
    assert judge_language(found, LanguageSettings(languages=None, min_score=0.5)).reasons == [None, None]
    settings = LanguageSettings(languages=None, min_score=0.5, min_score_by_language={"de": german})
    verdicts = judge_language(found, settings)
    assert verdicts.reasons == [None, "language_uncertain"]
    assert (verdicts.values, verdicts.details) == ([None, german], [None, "de"])
    assert judge_language(found, LanguageSettings(languages=None, min_score=english)).reasons[0] == "language_uncertain"


def test_unwanted_languages_say_what_they_are() -> None:
    found = label(list(SAMPLES.values()), LanguageSignalSettings())
    verdicts = judge_language(found, LanguageSettings(languages=("en", "de")))
    assert verdicts.reasons == [None, None, *["language_unwanted"] * 4]
    assert verdicts.details == [None, None, "fr", "ru", "ja", "el"]
    assert judge_language(found, ANY).reasons == [None] * len(SAMPLES)


def test_short_texts_on_which_opinions_differ_are_dropped_where_agreement_is_asked_for() -> None:
    table = signals(
        {"language": "no", "language_score": 0.8, "languages_agree": False},
        {"language": "no", "language_score": 0.8, "languages_agree": False, "language_characters": 200},
        {"language": "no", "language_score": 0.8, "languages_agree": None, "opinion_language": None},
        {"language": "no", "language_score": 0.1, "languages_agree": False},
    )
    verdicts = judge_language(table, LanguageSettings(languages=None, agreement_characters=200))
    assert verdicts.reasons == ["languages_disagree", None, None, "language_uncertain"]
    assert verdicts.details == ["no/da", None, None, "no"]
    assert judge_language(table, ANY).reasons == [None, None, None, "language_uncertain"]


def test_a_model_is_known_by_its_content_not_by_its_place(tmp_path: Path) -> None:
    for name in ("one.ftz", "other.ftz"):
        shutil.copy(packaged_model(), tmp_path / name)
    one, other = (
        pinned_model(LanguageSignalSettings(model=UserFile(path=str(tmp_path / name))))
        for name in ("one.ftz", "other.ftz")
    )
    assert one.identity() == other.identity() != LanguageSignalSettings().identity()
    assert label(list(SAMPLES.values()), one).equals(label(list(SAMPLES.values()), LanguageSignalSettings()))
    (tmp_path / "one.ftz").write_bytes(b"changed")
    with pytest.raises(BadInput, match="sha256"):
        pinned_model(one)
    with pytest.raises(BadInput, match="fastText"):
        pinned_model(LanguageSignalSettings(model=UserFile(path=str(tmp_path / "one.ftz"))))
    with pytest.raises(BadInput, match="must be there"):
        pinned_model(LanguageSignalSettings(model=UserFile(path=str(tmp_path / "absent.ftz"))))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("__label__en", "en"),
        ("__label__als", "als"),
        ("__label__eng_Latn", "en"),
        ("__label__srp_Cyrl", "sr"),
        ("__label__cmn_Hani", "zh"),
        ("__label__tgl_Latn", "tl"),
        ("__label__ceb_Latn", "ceb"),
        ("__label__bcl_Latn", "bcl"),
    ],
)
def test_labels_of_other_models_become_iso_codes(name: str, code: str) -> None:
    assert language_code(name) == code


def test_short_text_is_labelled_better_than_by_the_model_alone(shared_data: Path) -> None:
    # lid.176 has no labels for these.
    unknown = {"lg", "mi", "sn", "st", "tn", "ts", "xh", "zu"}
    alone, both = [], []
    for file in sorted((shared_data / "langid/sentences").glob("*.txt.gz")):
        code = file.name.removesuffix(".txt.gz").replace("nb", "no")
        if code in unknown:
            continue
        sentences = gzip.decompress(file.read_bytes()).decode().splitlines()[:60]
        found = label(sentences, LanguageSignalSettings())
        for column, shares in (("model_language", alone), ("language", both)):
            shares.append(np.mean(np.array(found[column].to_pylist()) == code))
    assert len(both) == 67
    assert np.mean(both) > 0.94
    assert np.mean(both) > np.mean(alone) + 0.04


def test_the_signals_name_columns_of_documents() -> None:
    assert {"language", "language_score"} <= set(DOCUMENTS.names) & set(LANGUAGE_SIGNALS.names)
