"""How many nodes a number of ranks takes."""

import pytest
from pydantic import TypeAdapter

from infra.errors import BadInput
from infra.launching.launch import LocalLauncher
from infra.launching.launcher_settings import LauncherSettings, LocalSettings, NodeShape, SlurmSettings
from infra.launching.launchers import open_launcher
from infra.launching.slurm import SlurmLauncher


@pytest.mark.parametrize(("processes", "nodes", "each"), [(1, 1, 1), (3, 1, 3), (8, 1, 8), (16, 2, 8), (32, 4, 8)])
def test_a_part_of_one_node_or_full_nodes(processes: int, nodes: int, each: int) -> None:
    shape = SlurmSettings(processes_per_node=8, max_nodes=4).shape(processes)
    assert shape == NodeShape(nodes=nodes, processes_per_node=each)


@pytest.mark.parametrize(("processes", "nearest"), [(9, "8 or 16"), (31, "24 or 32"), (33, "32,"), (1000, "32,")])
def test_others_are_refused_with_the_nearest_that_works(processes: int, nearest: str) -> None:
    with pytest.raises(BadInput) as refused:
        SlurmSettings(processes_per_node=8, max_nodes=4).shape(processes)
    assert f"Set parallel.processes to {nearest}" in refused.value.remedy


def test_this_machine_takes_any_number() -> None:
    assert LocalSettings().shape(12) == NodeShape(nodes=1, processes_per_node=12)


def test_the_kind_chooses_the_launcher() -> None:
    adapter: TypeAdapter[LauncherSettings] = TypeAdapter(LauncherSettings)
    assert isinstance(open_launcher(adapter.validate_python({"kind": "local"})), LocalLauncher)
    assert isinstance(open_launcher(adapter.validate_python({"kind": "slurm"})), SlurmLauncher)
