"""The choice of where jobs of ranks run."""

from infra.launch import Launcher, LocalLauncher
from infra.launcher_settings import KubernetesSettings, LauncherSettings, SlurmSettings


def open_launcher(settings: LauncherSettings) -> Launcher:
    """The launcher that the settings ask for; libraries of the others are not imported."""
    if isinstance(settings, SlurmSettings):
        from infra.slurm import SlurmLauncher

        return SlurmLauncher(settings)
    if isinstance(settings, KubernetesSettings):
        from infra.kubernetes import KubernetesLauncher

        return KubernetesLauncher(settings)
    return LocalLauncher()
