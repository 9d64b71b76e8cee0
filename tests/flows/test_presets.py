"""Every preset is a valid configuration that can be written to a file and read back."""

import pytest

from flows.config import PipelineSettings
from flows.presets import PRESETS, preset
from infra.configuration import load_settings
from infra.errors import BadInput
from model.config import validate_layout


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_file(name: str, tmp_path):
    settings = preset(name)
    file = tmp_path / "settings.json"
    file.write_text(settings.model_dump_json())
    assert load_settings(PipelineSettings, PipelineSettings(), file, []) == settings


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_trained(name: str):
    settings = preset(name)
    validate_layout(settings.training, settings.corpus.tokenizer.vocabulary_size)


def test_an_unknown_preset_lists_those_that_are():
    with pytest.raises(BadInput, match="demo"):
        preset("demoo")
