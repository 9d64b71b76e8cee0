"""The lines of a job whose nodes write each a file of their own, on a file system that this machine sees too."""

from pathlib import Path

from infra.launching.ranks import RankOutput


class JobLines:
    """The log files of a job's nodes, of which new lines are passed on."""

    def __init__(self, folder: Path, job: str, nodes: int, output: RankOutput, last_bytes: int | None = None) -> None:
        """`last_bytes` leaves out what stands before the end of the files as they are now."""
        self.paths = [folder / f"{job}_{node}_log.out" for node in range(nodes)]
        self._output = output
        self._read = dict.fromkeys(self.paths, 0)
        self._rest = dict.fromkeys(self.paths, b"")
        if last_bytes is not None:
            sizes = {path: path.stat().st_size for path in self.paths if path.exists()}
            self._read |= {path: max(0, size - last_bytes) for path, size in sizes.items()}

    def pass_on(self, last: bool = False) -> None:
        """Hand over the lines written since the last call; what is no whole line yet waits, unless it is the last."""
        for path in self.paths:
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._read[path])
                new = file.read()
            self._read[path] += len(new)
            *whole, self._rest[path] = (self._rest[path] + new).split(b"\n")
            if last and self._rest[path]:
                whole.append(self._rest[path])
                self._rest[path] = b""
            for line in whole:
                self._output.take(line.decode(errors="replace"))

    def begin_again(self) -> None:
        """Forget what an earlier start of the job said of its end."""
        self._output.forget()
