"""One file of a benchmark as a converter sees it, and what a converter makes of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from infra.errors import BadInput
from tasks.benchmarks.files import READERS, read

Row = dict[str, Any]


class NoAnswers(Exception):
    """A file without right answers: it was published to be submitted, not to be scored."""


@dataclass(frozen=True)
class Source:
    """A file that was unpacked."""

    name: str
    """Path from the folder that is converted, through archives, without endings of packing."""
    data: bytes
    split: str | None
    """train, validation or test (for MMLU dev too), as names on the path tell; none where they do not."""
    beside: Callable[[str], bytes | None]
    """The content of another file of the same folder, by name."""

    @property
    def ending(self) -> str:
        """What kind of file it is."""
        return self.name.rpartition(".")[2].lower()

    @property
    def stem(self) -> str:
        """Name without folders and ending."""
        return self.name.rpartition("/")[2].rpartition(".")[0]

    def records(self) -> list[Any]:
        """Its items."""
        if self.ending not in READERS:
            raise BadInput(
                f"{self.name} is no file of items",
                f"items of this benchmark stand in {', '.join(sorted(READERS))} files",
                "Give the file as it was published",
            )
        return read(self.name, self.data, READERS[self.ending])

    def rows(self, make: Callable[[Any], Row], records: Iterable[Any] | None = None) -> list[Row]:
        """A row of each record; BadInput names the record that cannot make one."""
        found: list[Row] = []
        for number, record in enumerate(self.records() if records is None else records):
            try:
                found.append(make(record))
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                columns = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
                raise BadInput(
                    f"{self.name}, item {number} has the columns {columns[:500]} ({type(error).__name__}: {error})",
                    "it must have the columns or the form in which this benchmark is published",
                    "Give the file as it was published, or remove it",
                ) from error
        return found


@dataclass(frozen=True)
class Converted:
    """Items of one split of a task."""

    yaml: str
    """The harness's YAML of the task, seen from its folder of tasks."""
    rows: list[Row]
    """In the columns of the hub's data set, which that YAML expects."""
    split: str | None = None
    """Split, where the file itself tells; otherwise that of the source."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Keys of the YAML that must differ, as the published file has less than the hub's data set."""
    note: str = ""
    """What is less."""


def index_below(number: int, value: Any) -> int:
    """An index of a choice."""
    if not 0 <= int(value) < number:
        raise ValueError(f"the right choice is {value} of {number}, counted from 0")
    return int(value)


def published_labels(source: Source, records: list[Any], column: str) -> list[Any]:
    """Right answers from the items or the file beside them; NoAnswers where there are none."""
    if records and column in records[0]:
        return [record.get(column) if isinstance(record, dict) else None for record in records]
    beside = source.beside(f"{source.stem}-labels.lst")
    if beside is None:
        raise NoAnswers
    labels = beside.decode("ascii", "replace").split()
    if len(labels) != len(records):
        raise BadInput(
            f"{source.name} has {len(records)} items and {source.stem}-labels.lst {len(labels)} labels",
            "each item must have its label",
            "Give both files as they were published",
        )
    return labels
