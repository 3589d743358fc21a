"""Compression and encryption: a send and a receive in one process, beside a plain channel and the library alone."""

import os
import time

import alone
import pytest

from shmcomm import RingBufferChannel, _envelope

KEY = bytes(range(32))
SIZES = {"64B": 64, "1KiB": 1024, "1MiB": 1 << 20}
OPTIONS = {
    "plain": {},
    "lz4": {"compression": "lz4", "compression_threshold": 0},
    "zstd": {"compression": "zstd", "compression_threshold": 0},
    "zlib": {"compression": "zlib", "compression_threshold": 0},
    "aes": {"encryption_key": KEY},
}
by_size = pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))


def text(size):
    """Like a log: about a third of it is what is new in each line."""
    lines = b"".join(b"%08x GET /item/%d 200\n" % (i * 2654435761 % (1 << 32), i * i) for i in range(size // 24 + 1))
    return lines[:size]


def laps(size, quick):
    return 3 if quick else max(20, 4_000_000 // (size + 400))


@by_size
@pytest.mark.parametrize("how", list(OPTIONS))
def test_channel(how, size, sample, quick):
    with RingBufferChannel(8, **OPTIONS[how]) as channel:
        sample(f"send and receive {size}", how, lambda: alone.put_get(channel, [text(size)], laps(size, quick)))


def library(how, data):
    """A call that does with the library alone what a channel does with one message."""
    if how == "aes":
        aead, nonce, more = _envelope._aead(KEY), os.urandom(12), bytes(48)
        return lambda: aead.decrypt(nonce, aead.encrypt(nonce, data, more), more)
    pack, unpack = _envelope._compressor(_envelope.NAMES.index(how))
    return lambda: unpack(pack(data), len(data))


@by_size
@pytest.mark.parametrize("how", [how for how in OPTIONS if how != "plain"])
def test_library(how, size, sample, quick):
    data, n = text(size), laps(size, quick)
    call = library(how, data)
    assert call() == data

    def measure():
        start = time.perf_counter_ns()
        for _ in range(n):
            call()
        return (time.perf_counter_ns() - start) / n

    sample(f"send and receive {size}", f"{how}, the library alone", measure)
