"""The demo's input: a folder of text, cut into messages, and the index of its words."""

import collections
import os
import re
import stat
import sysconfig
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

#: Characters per message. Four bytes each at worst: 128 KiB, well under half of a ring of the demo.
PIECE = 32 * 1024

#: A longer run of letters counts as several words, so that no word is ever too long for a message.
_LONGEST = 100
_WORD = re.compile(rf"\w{{1,{_LONGEST}}}")

#: What is looked at to tell a binary file before all of it is read.
_HEAD = 8192

_NOT_STDLIB = {"site-packages", "dist-packages"}

#: ``{word: how often}`` in one message: a worker's answer.
Counts = dict[str, int]


class Corpus(NamedTuple):
    root: str
    texts: list[str]  # of the files in order of name
    nbytes: int
    left_out: dict[str, int]  # {why: how many files}

    @property
    def messages(self) -> list[tuple[int, str]]:
        """``(file number, text)`` of every message to be sent."""
        return [(file, piece) for file, text in enumerate(self.texts) for piece in pieces(text)]


def standard_library(limit: float) -> Corpus:
    """Read the Python sources of the running interpreter's own standard library."""
    return read(sysconfig.get_path("stdlib"), limit, suffix=".py", skip=_NOT_STDLIB)


def read(root: str, limit: float, *, suffix: str = "", skip: Collection[str] = ()) -> Corpus:
    """Read every text file under ``root`` (or ``root`` itself, a file), in order of name, up to ``limit`` bytes."""
    corpus = Corpus(root, [], 0, {"binary": 0, "unreadable": 0, "beyond_limit": 0})
    for path in _walk(root, suffix, skip):
        try:
            content = _content(path, limit - corpus.nbytes)
        except OSError:
            corpus.left_out["unreadable"] += 1
            continue
        if content is None:
            corpus.left_out["beyond_limit"] += 1
        elif b"\0" in content:
            corpus.left_out["binary"] += 1
        else:
            corpus.texts.append(content.decode("utf-8", "replace"))
            corpus = corpus._replace(nbytes=corpus.nbytes + len(content))
    return corpus


def _walk(root: str, suffix: str, skip: Collection[str]) -> list[str]:
    if not os.path.isdir(root):
        return [root]
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in skip]
        found += [os.path.join(folder, name) for name in files if name.endswith(suffix)]
    return sorted(found)


def _content(path: str, limit: float) -> bytes | None:
    """Return a file's bytes, of a binary one only the beginning; None if it is larger than ``limit``."""
    # O_NONBLOCK: opening somebody's FIFO must not wait for a writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a regular file")
        if found.st_size > limit:
            return None
        head = file.read(_HEAD)
        return head if b"\0" in head else head + file.read()


def pieces(text: str, limit: int = PIECE) -> Iterator[str]:
    """Cut a text into pieces of at most ``limit`` characters such that no word is cut."""
    start = 0
    while len(text) - start > limit:
        end = start + limit
        while end > start and _in_word(text[end - 1]):
            end -= 1
        if end == start:  # one run of letters: cut where the words within it meet
            end += limit - limit % _LONGEST
        yield text[start:end]
        start = end
    yield text[start:]


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"  # what \w means


def count_words(text: str) -> Counts:
    """Return ``{word: how often}``: what a worker computes for one message."""
    return dict(collections.Counter(_WORD.findall(text)))


class Index(dict[str, dict[int, int]]):
    """``{word: {file number: how often}}``."""

    def add(self, file: int, counts: Counts) -> None:
        for word, number in counts.items():
            files = self.setdefault(word, {})
            files[file] = files.get(file, 0) + number

    @property
    def entries(self) -> int:
        return sum(map(len, self.values()))


def index_here(texts: Iterable[str], on_file: Callable[[int], None]) -> Index:
    """Index whole texts in this process: the answer that every run must give."""
    index = Index()
    for file, text in enumerate(texts):
        index.add(file, count_words(text))
        on_file(file + 1)
    return index
