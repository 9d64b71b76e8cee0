"""A stream that is read forward and can be read again from a little way back, for readers that lose their way."""

import io
from collections import deque
from typing import Any

from tasks.sources.transport import SourceUnavailableError

BLOCK_BYTES = 1 << 16
KEPT_BYTES = 16 << 20
"""How far back reading can go when it has lost its way."""


class Tape(io.RawIOBase):
    """A stream that is read forward and remembers its last bytes, so that reading can go back by so much."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._blocks: deque[tuple[int, bytes]] = deque()
        self._position = self.end = 0

    @property
    def start(self) -> int:
        """The first byte that is still held."""
        return self._blocks[0][0] if self._blocks else self.end

    def readable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a byte that is held, or forward to any."""
        if whence != io.SEEK_SET or offset < self.start:
            raise io.UnsupportedOperation(f"byte {offset:,} is no longer held")
        while offset > self.end and self._load():
            pass
        self._position = min(offset, self.end)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Some bytes, at most `size`; none at the end only."""
        if self._position == self.end and not self._load():
            return b""
        for start, block in reversed(self._blocks):
            if start <= self._position:
                first = self._position - start
                data = block[first : first + size] if size >= 0 else block[first:]
                self._position += len(data)
                return data
        raise io.UnsupportedOperation("the position is no longer held")

    def _load(self) -> bool:
        try:
            block = self._stream.read(BLOCK_BYTES)
        except OSError as error:  # not to be taken for an error of the archive
            raise SourceUnavailableError(str(error)) from error
        if block:
            self._blocks.append((self.end, block))
            self.end += len(block)
            self.keep(self.end - KEPT_BYTES)
        return bool(block)

    def keep(self, offset: int) -> None:
        """Forget what stands before an offset."""
        while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) <= offset:
            self._blocks.popleft()

    def find(self, needle: bytes, offset: int) -> int | None:
        """Where a needle stands first at or after an offset. Moves the tape there, or to the end without one."""
        self.seek(max(offset, self.start))
        tail = b""
        while block := self.read(BLOCK_BYTES):
            place = (tail + block).find(needle)
            if place >= 0:
                return self.seek(self._position - len(block) - len(tail) + place)
            tail = (tail + block)[1 - len(needle) :]
            self.keep(self._position - len(block) - len(tail))
        return None
