"""The mark that retention leaves in a stage's folder: what was deleted there, when and why.

    stages/<stage>/<fingerprint>/retained.json

It is written before anything is deleted. A stage that bears it counts as not made, while its manifest still tells what
it did. Making the stage anew takes the mark away.
"""

from infra.manifest import Manifest
from infra.store import Store

MARK = "retained.json"
STAGES_LOCK = "locks/stages.lock"
"""What a build holds while it works, and retention alone (`infra.lock`)."""


class Retained(Manifest):
    """What retention deleted of a stage."""

    deleted_at: str
    """When, as UTC."""
    older_than_days: int
    """The rule by which it was."""
    made_at: str
    """When the texts were made."""
    files: int
    bytes: int

    @property
    def text(self) -> str:
        """In a few words."""
        kept = f"made {self.made_at[:10]}, kept {self.older_than_days} days"
        return f"deleted by retention on {self.deleted_at[:10]} ({kept})"


def find_retained(store: Store, folder: str) -> Retained | None:
    """The mark of a stage's folder, if it has one."""
    path = f"{folder}/{MARK}"
    return Retained.load(store, path) if store.exists(path) else None
