"""The choice of where jobs of ranks run."""

from infra.launching.launch import Launcher, LocalLauncher
from infra.launching.launcher_settings import KubernetesSettings, LauncherSettings, SlurmSettings


def open_launcher(settings: LauncherSettings) -> Launcher:
    """The launcher that the settings ask for; libraries of the others are not imported."""
    if isinstance(settings, SlurmSettings):
        from infra.launching.slurm import SlurmLauncher

        return SlurmLauncher(settings)
    if isinstance(settings, KubernetesSettings):
        from infra.launching.kubernetes import KubernetesLauncher

        return KubernetesLauncher(settings)
    return LocalLauncher()
