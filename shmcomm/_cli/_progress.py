"""A progress bar on a terminal, and nothing at all anywhere else."""

import shutil
import sys
import time
from types import TracebackType
from typing import Self, TextIO

_BAR = 24
_BAR_MIN = 6
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
            self._draw(self._line(done, shutil.get_terminal_size().columns - 1))

    def _line(self, done: int, width: int) -> str:
        """What fits: first the bar becomes shorter, then the label goes, whole."""
        figures = f"{done:,}/{self._total:,}"
        words = f"{figures}  {self._label}"
        if len(words) + _BAR_MIN + 4 > width:
            words = figures
        length = max(0, min(_BAR, width - len(words) - 4))
        full = length * done // self._total
        return f"  {self._marks[0] * full}{self._marks[1] * (length - full)}  {words}"[:width]

    def _draw(self, line: str) -> None:
        self._stream.write(f"\r\x1b[2K{line}")
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
