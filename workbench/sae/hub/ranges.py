"""A file of the hub that is read in parts."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections import deque
from typing import Any

from workbench.sae.hub.source import Source

WINDOW = 4096
"""Least bytes of one range read: a zip's directory, or an array's two headers, in one request."""
WINDOWS = 64
LARGEST_READ = 2**26


class RangeFile(io.RawIOBase):
    """A file of the hub that is read in parts, without being downloaded. Seekable, thread-safe.

    Small reads are widened to a few kilobytes and kept, so that the next ones near by cost nothing.

    Args:
        repo: Repository.
        path: Path of the file in it.
        revision: Branch, tag or commit.

    Raises:
        HubError: The file cannot be had; on reading also where the server ignores ranges.
    """

    def __init__(self, repo: str, path: str, *, revision: str = "main") -> None:
        self._source = Source(repo, path, revision)
        self._position = 0
        self._windows: deque[tuple[int, bytes]] = deque(maxlen=WINDOWS)
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """The file's page on the hub."""
        return self._source.address

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self._source.size

    @property
    def bytes_read(self) -> int:
        """Bytes of the file that were received."""
        return self._source.received

    @property
    def requests(self) -> int:
        """Requests made, those that failed and those to the hub's own address included."""
        return self._source.requests

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte of the file; costs nothing."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, f"seek to {base + offset}: a file begins at 0")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer from the present position; short only at the end of the file."""
        content = self.at(self._position, len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def at(self, offset: int, length: int) -> bytes:
        """Bytes of the file, wherever its position is; fewer only at its end.

        Raises:
            ValueError: For more than 64 MB: `fetch` the file.
        """
        stop = min(offset + length, self.size)
        if stop - offset > LARGEST_READ:
            raise ValueError(f"{stop - offset:,} bytes of {self.address} at once: fetch the file")
        if stop <= offset:
            return b""
        with self._lock:
            for begin, content in self._windows:
                if begin <= offset and stop <= begin + len(content):
                    return content[offset - begin : stop - begin]
            begin = max(0, min(offset, self.size - WINDOW))
            end = min(max(stop, offset + WINDOW), self.size)
            content = b"".join(self._source.chunks(begin, end))
            self._windows.append((begin, content))
        return content[offset - begin : stop - begin]
