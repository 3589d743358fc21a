"""A progress bar on a terminal, and nothing at all anywhere else."""

import shutil
import sys
import time
from types import TracebackType
from typing import Self, TextIO

_BAR = 24
_INTERVAL = 0.1


class Progress:
    """Draws ``  ######------  done/total  label`` on one line of standard error, if that is a terminal."""

    def __init__(self, label: str, total: int, *, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._label = label
        self._total = max(1, total)
        self._marks = _marks(self._stream)
        self._shown = self._stream.isatty()
        self._next = 0.0
        #: seconds between two drawings; None where nothing is drawn, so that nobody wakes up for it
        self.interval = _INTERVAL if self._shown else None

    def update(self, done: int) -> None:
        """Show how much is done; cheap enough to be called for every bit of it."""
        if self._shown and (now := time.monotonic()) >= self._next:
            self._next = now + _INTERVAL
            full = _BAR * done // self._total
            bar = self._marks[0] * full + self._marks[1] * (_BAR - full)
            self._draw(f"  {bar}  {done:,}/{self._total:,}  {self._label}")

    def _draw(self, line: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[2K{line[:width]}")
        self._stream.flush()

    def __enter__(self) -> Self:
        self.update(0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._shown:
            self._draw("")


def _marks(stream: TextIO) -> str:
    try:
        "█░".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return "#-"
    return "█░"
