"""Names: whatever sets entities in a spaCy pipeline that is given finds them, and nothing else is taken for one."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import spacy

from infra.errors import BadInput
from infra.schema import DOCUMENTS
from tasks.inputs import UserFile
from tasks.privacy.redact import RedactSettings, pinned_names, redact, redact_text

SETTINGS = RedactSettings()


@pytest.fixture
def name_model(tmp_path: Path) -> Path:
    """A pipeline that knows one name by a rule."""
    nlp = spacy.blank("en")
    ruler: Any = nlp.add_pipe("entity_ruler")
    ruler.add_patterns(
        [{"label": "PERSON", "pattern": "Ada Lovelace"}, {"label": "ORG", "pattern": "Analytical Society"}]
    )
    nlp.to_disk(tmp_path / "names")
    return tmp_path / "names"


def test_names_are_found_by_a_model_that_is_given(name_model: Path) -> None:
    text = "Ada Lovelace (ada@example.com) of the Analytical Society met Ada Lovelace."
    settings = pinned_names(RedactSettings(name_model=UserFile(path=str(name_model))))
    assert redact_text(text, SETTINGS)[1] == {"email": 1}
    clean, found = redact_text(text, settings)
    assert clean == "<NAME> (<EMAIL>) of the Analytical Society met <NAME>."
    assert found == {"email": 1, "name": 2}
    rows = [{"id": each, "source": "c", "file": "w", "offset": 0, "text": each} for each in (text, "no one")]
    assert redact(pa.Table.from_pylist(rows, schema=DOCUMENTS), settings).kept["text"].to_pylist() == [clean, "no one"]
    organisations = settings.model_copy(update={"name_labels": ("ORG",)})
    assert "Ada Lovelace" in redact_text(text, organisations)[0]
    assert settings.identity()["name_model"]["sha256"]
    assert "path" not in settings.identity()["name_model"]


def test_long_texts_are_read_in_pieces(name_model: Path) -> None:
    settings = RedactSettings(kinds=("name",), name_model=UserFile(path=str(name_model)))
    text = "Ada Lovelace wrote.\n" * 6000
    assert redact_text(text, settings)[1] == {"name": 6000}
    assert redact_text("x" * 120_000, settings)[1] == {}


def test_a_folder_that_is_no_name_model_is_refused(name_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="must be there"):
        pinned_names(RedactSettings(name_model=UserFile(path=str(tmp_path / "absent"))))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="spaCy pipeline"):
        pinned_names(RedactSettings(name_model=UserFile(path=str(tmp_path / "empty"))))
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(BadInput, match="sets entities"):
        pinned_names(RedactSettings(name_model=UserFile(path=str(tmp_path / "blank"))))
    with pytest.raises(BadInput, match="sha256"):
        pinned_names(RedactSettings(name_model=UserFile(path=str(name_model), sha256="0" * 64)))
