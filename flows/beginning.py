"""What every flow begins with."""

import os

from flows import progress
from infra.address import is_relative
from infra.environment import Environment
from infra.errors import BadInput
from infra.store import Store


def begin(environment: Environment) -> Store:
    """Let progress lines through, and open the root.

    BadInput for a relative one in a run that a worker of Prefect has started: it would lie in the run's working folder,
    which is a temporary one, and be deleted when the run ends.
    """
    progress.let_through()
    if "PREFECT__FLOW_RUN_ID" in os.environ and is_relative(environment.root):
        raise BadInput(
            f"environment.root={environment.root}",
            "a run that Prefect's worker starts needs an absolute folder or a URL: its working folder is temporary",
            "Fill in Environment / Root, or for every form: gristmill register --root /FOLDER",
        )
    return Store(environment.root)
