"""What the pretraining flow refuses in its first second."""

import pytest

from flows.pretraining import check_training
from infra.environment import Environment
from infra.errors import BadInput
from model.config import ModelSettings, TrainingSettings

ELSEWHERE = Environment.model_validate({"launcher": {"kind": "slurm"}})


@pytest.mark.parametrize("environment", [Environment(), ELSEWHERE])
def test_a_model_that_cannot_be_is_refused(environment: Environment):
    odd = TrainingSettings(model=ModelSettings(hidden_size=100, num_attention_heads=3, num_query_groups=3))
    with pytest.raises(BadInput, match="hidden_size"):
        check_training(odd, 512, environment)


def test_what_other_machines_have_installed_is_theirs_to_say():
    check_training(TrainingSettings(fp8="hybrid"), 512, ELSEWHERE)
    with pytest.raises(BadInput, match="fp8"):
        check_training(TrainingSettings(fp8="hybrid"), 512, Environment())
