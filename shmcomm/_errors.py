"""The exceptions of shmcomm."""

import queue
import sys
from typing import Any


class Error(Exception):
    """Base of all exceptions of shmcomm. Failures of the system stay OSError.

    A call that did a part of its work says which, on whatever exception ends it: `send_batch` gives it `sent`, the
    number of messages that were sent, and `receive_batch`, if it had some already, `received`, the list of them.
    """

    sent: int
    received: list[Any]


class Full(Error, queue.Full):
    """No room within the time allowed."""


class Empty(Error, queue.Empty):
    """No message within the time allowed."""


if sys.version_info >= (3, 13):

    class ShutDown(Error, queue.ShutDown):
        """The channel was shut down: no more sends, and nothing is left to receive."""

else:

    class ShutDown(Error):
        """The channel was shut down: no more sends, and nothing is left to receive."""


class CorruptedError(Error):
    """Shared memory holds something that no correct process writes."""


class LayoutError(Error):
    """The object exists, but is of another kind, version, build or configuration."""


class MessageTooLargeError(Error, ValueError):
    """The message is larger than the channel can ever hold."""


class LaggedError(Error):
    """A slow receiver was overtaken. `lost` is the number of messages it missed."""

    def __init__(self, message: str = "", *, lost: int = 0) -> None:
        super().__init__(message)
        self.lost = lost

    def __reduce__(self) -> tuple[object, ...]:
        return (_lagged, (self.args[0] if self.args else "", self.lost))


def _lagged(message: str, lost: int) -> LaggedError:
    return LaggedError(message, lost=lost)


class BusyError(Error):
    """An end of a channel, or a name, is in the hands of another living process."""


class NotEncodableError(Error, TypeError):
    """The codec cannot represent the object."""


class DecryptionError(Error):
    """The message cannot be decrypted: another key, or it was changed."""
