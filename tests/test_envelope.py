"""Compression and encryption of messages: shmcomm/_envelope.py, csrc/py/pyshc_envelope.c."""

import contextlib
import json
import mmap
import multiprocessing
import os
import pickle
import struct
import subprocess
import sys

import pytest
from helpers import RESERVES_IN_PIECES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shmcomm import (
    CorruptedError,
    DecryptionError,
    LayoutError,
    MessageTooLargeError,
    RingBufferChannel,
    _envelope,
)

KEY = bytes(range(100, 132))
OTHER_KEY = bytes(32)
COMPRESSIONS = [None, "lz4", "zstd", "zlib"]
SECRET = b"the plain text of this message must be nowhere else. "
#: more than fits into the ring, where there is memory beside it
LARGE = SECRET * (20000 if RESERVES_IN_PIECES else 500)

np = pytest.importorskip("numpy")


class Reversed:
    """A codec of a user."""

    @staticmethod
    def dumps(obj):
        return obj[::-1]

    @staticmethod
    def loads(view):
        return bytes(view)[::-1]


@contextlib.contextmanager
def segment(channel):
    """The bytes of a channel's file, writable, as another process would map them."""
    directory = os.environ.get("SHMCOMM_DIR", "/dev/shm")
    (file,) = [name for name in os.listdir(directory) if name.endswith(channel.name)]
    with open(os.path.join(directory, file), "r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        yield mapped


# ---- what comes through ----


@pytest.mark.parametrize("codec", ["auto", "native", "pickle", "raw", Reversed])
@pytest.mark.parametrize("key", [None, KEY], ids=["open", "sealed"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_small_and_large_messages_arrive_in_order(compression, key, codec):
    messages = [b"", b"x", SECRET * 50, os.urandom(3000), LARGE, b"end"]
    with (
        RingBufferChannel(64, compression=compression, encryption_key=key, codec=codec) as sender,
        RingBufferChannel.attach(sender.name, encryption_key=key, codec=codec) as receiver,
    ):
        for message in messages:
            sender.send(message)
            assert receiver.peek() == message
            assert receiver.receive() == message
        assert sender.send_batch(messages) == len(messages)
        assert receiver.receive_batch(10) == messages
        assert receiver.try_receive("nothing") == "nothing"
        assert sender.send_batch(messages) == len(messages)
        sender.shutdown()
        assert list(receiver) == messages


def test_a_library_that_cannot_write_where_it_is_told(monkeypatch):
    """Versions of the library that have no encrypt_into, beside those that do."""

    class Older:
        def __init__(self, aead):
            self.encrypt, self.decrypt = aead.encrypt, aead.decrypt

    newer = _envelope._aead
    messages = [b"", b"x", SECRET * 50, LARGE]
    with RingBufferChannel(64, encryption_key=KEY) as sender:
        with monkeypatch.context() as older:
            older.setattr(_envelope, "_aead", lambda key: Older(newer(key)))
            sender.send_batch(messages)  # the first one makes the library's object, which stays
            with RingBufferChannel.attach(sender.name, encryption_key=KEY) as receiver:
                assert receiver.receive_batch(10) == messages
        sender.send_batch(messages)
        with RingBufferChannel.attach(sender.name, encryption_key=KEY) as receiver:
            assert receiver.receive_batch(10) == messages


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "sealed"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    message=st.recursive(
        st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=3000),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=10,
    )
)
def test_every_value_comes_back(compression, key, message):
    with RingBufferChannel(4, compression=compression, compression_threshold=None, encryption_key=key) as channel:
        channel.send(message)
        assert channel.receive() == message


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_views_of_an_encrypted_message_are_private_memory(compression):
    with RingBufferChannel(4, compression=compression, encryption_key=KEY) as channel:
        views = []
        for i in range(200):  # many more than may be held in the ring
            channel.send(np.full(1000, i))
            views.append(channel.receive(copy=False))
        assert [int(view.sum()) for view in views] == [1000 * i for i in range(200)]
        assert not views[0].flags.writeable


def test_a_compressed_message_takes_less_room():
    with RingBufferChannel(8, compression="zlib", buffer_size=1 << 16) as channel:
        channel.send(bytes(20000))
        assert channel.stats().bytes_used < 500
        channel.send(b"small")
        channel.send(os.urandom(20000))  # which grows when it is compressed, and so is not
        assert channel.stats().bytes_used < 20700
        assert channel.receive() == bytes(20000)
        assert channel.receive() == b"small"


def test_the_threshold_is_kept():
    with RingBufferChannel(8, compression="zlib", compression_threshold=5000) as channel:
        channel.send(bytes(4999))
        assert channel.stats().bytes_used >= 4999
        channel.clear()
        channel.send(bytes(5000))
        assert channel.stats().bytes_used < 500


@pytest.mark.parametrize("size", [0, 10, 5000, len(LARGE)])
@pytest.mark.parametrize("key", [None, KEY], ids=["open", "sealed"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_what_is_written_in_place_arrives(compression, key, size):
    with RingBufferChannel(8, compression=compression, encryption_key=key) as channel:
        with channel.reserve(size) as room:
            room[:] = b"r" * size
        assert channel.receive() == b"r" * size
        with pytest.raises(KeyError), channel.reserve(size) as room:
            raise KeyError
        with channel.reserve(size) as room:
            room[: size // 2] = b"h" * (size // 2)
            room.release()
        reservation = channel.reserve(size)
        reservation.commit(size // 2)
        assert len(channel.receive()) == size
        assert len(channel.receive()) == size // 2
        with channel.reserve_array((3, 5), "f8") as array:
            array[:] = 1.5
        assert channel.receive().tolist() == [[1.5] * 5] * 3
        assert len(channel) == 0


# ---- what is in shared memory ----


def test_neither_key_nor_plain_text_is_ever_in_shared_memory():
    with RingBufferChannel(64, encryption_key=KEY) as channel, segment(channel) as mapped:
        channel.send(SECRET)
        channel.send([SECRET] * 2)
        with channel.reserve(len(SECRET)) as room:
            room[:] = SECRET
            assert mapped[: 1 << 20].find(SECRET) < 0
        reservation = channel.reserve(len(SECRET))
        memoryview(reservation)[:] = SECRET
        reservation.abort()
        channel.send(LARGE)
        with channel.reserve(len(LARGE) // 2) as room:
            room[: len(SECRET)] = SECRET
        text = mapped[: 64 << 20]
        assert text.find(SECRET) < 0
        assert text.find(KEY) < 0
        assert [channel.receive() for _ in range(3)] == [SECRET, [SECRET] * 2, SECRET]


def test_nothing_that_is_shown_has_the_key():
    with RingBufferChannel(64, encryption_key=KEY) as channel:
        shown = repr(channel) + str(channel.stats())
        assert repr(KEY) not in shown
        assert channel.stats().encrypted
        with pytest.raises(TypeError, match="pickled only while multiprocessing starts a process"):
            pickle.dumps(channel)
        channel.send(1)
        assert channel.receive() == 1


def _echo(channel, back):
    back.send(channel.receive(timeout=30))


def test_a_child_process_gets_the_key():
    context = multiprocessing.get_context("spawn")
    with (
        RingBufferChannel(8, encryption_key=KEY, compression="zlib") as there,
        RingBufferChannel(8, encryption_key=OTHER_KEY) as back,
    ):
        child = context.Process(target=_echo, args=(there, back))
        child.start()
        there.send(SECRET * 100)
        assert back.receive(timeout=30) == SECRET * 100
        child.join()


# ---- messages that were tampered with ----


def refused(channel, words="cannot be decrypted"):
    with pytest.raises(DecryptionError, match=words):
        channel.receive()


def test_of_another_key_the_next_message_is_readable():
    with RingBufferChannel(8, encryption_key=KEY) as channel:
        channel.send(b"one")
        channel.send(b"two")
        with RingBufferChannel.attach(channel.name, encryption_key=OTHER_KEY) as stranger:
            with pytest.raises(DecryptionError):
                stranger.peek()
            refused(stranger, "sealed with another key, changed, or brought here from another place")
        assert channel.receive() == b"two"


def test_every_changed_byte_is_noticed():
    head = struct.pack("<BBBBQ", 1, 6, 0, 0, 5)
    for i in range(12 + 16 + 12 + 5 + 16):
        with RingBufferChannel(8, encryption_key=KEY, buffer_size=4096) as channel, segment(channel) as mapped:
            channel.send(b"first")
            channel.send(b"next")
            mapped[mapped.find(head) + i] ^= 1 << i % 8
            refused(channel)
            assert channel.receive() == b"next"


def test_replayed_and_moved_messages_are_refused():
    size = 8 + 12 + 16 + 12 + 8 + 16  # of a record, its own head included
    with RingBufferChannel(8, encryption_key=KEY) as channel, segment(channel) as mapped:
        for number in range(3):
            channel.send(b"number %d" % number)
        head = struct.pack("<BBBBQ", 1, 6, 0, 0, 8)
        first = mapped.find(head)
        assert mapped[first + size : first + size + 12] == head
        # The second says what the first said, and the third what the second did.
        mapped[first + size : first + 2 * size - 8] = mapped[first : first + size - 8]
        assert channel.receive() == b"number 0"
        refused(channel)
        assert channel.receive() == b"number 2"


def test_no_message_opens_on_another_channel():
    head = struct.pack("<BBBBQ", 1, 6, 0, 0, 3)
    with RingBufferChannel(8, encryption_key=KEY) as one, RingBufferChannel(8, encryption_key=KEY) as two:
        one.send(b"one")
        two.send(b"two")
        two.send(b"end")
        with segment(one) as source, segment(two) as target:
            at = source.find(head)
            target[target.find(head) : target.find(head) + 59] = source[at : at + 59]
        refused(two)
        assert two.receive() == b"end"


def test_plain_messages_are_refused_by_who_has_a_key():
    with RingBufferChannel(8, encryption_key=KEY) as channel, segment(channel) as mapped:
        channel.send(b"x" * 30)
        channel.send(b"next")
        at = mapped.find(struct.pack("<BBBBQ", 1, 6, 0, 0, 30)) - 8
        assert mapped[at + 4] == _envelope.SEALED
        mapped[at + 4] = 6
        refused(channel, "the message is not encrypted, and this channel takes no others")
        assert channel.receive() == b"next"


def test_large_messages_are_guarded_like_small_ones():
    with RingBufferChannel(8, encryption_key=KEY) as channel, segment(channel) as mapped:
        channel.send(LARGE)
        channel.send(b"next")
        at = mapped.find(struct.pack("<BBBBQ", 1, 6, 0, 0, len(LARGE)))
        mapped[at + len(LARGE) // 2] ^= 1
        refused(channel)
        assert channel.receive() == b"next"
        assert channel.stats().large_messages == 0


@pytest.mark.parametrize("compression", ["lz4", "zstd", "zlib"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_hostile_envelopes_give_an_exception_at_most(compression, data):
    envelope = _envelope.adopt(_envelope.options(compression, None, None), None, b"i")
    tag, head, body, *_ = envelope.wrap(6, SECRET * 100)
    assert tag == _envelope.PACKED
    message = bytearray(head + body)
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    message = bytes(message[: data.draw(st.integers(0, len(message)))])
    with contextlib.suppress(CorruptedError):
        _, plain = envelope.unwrap(tag, message, b"", 1 << 20)
        assert len(plain) <= 1 << 20


@pytest.mark.parametrize("compression", ["lz4", "zstd", "zlib"])
def test_bombs_are_refused_before_they_go_off(compression):
    number = COMPRESSIONS.index(compression)
    envelope = _envelope.adopt(number | 1 << 16, None, b"i")
    pack, _ = _envelope._compressor(number)
    bomb = pack(bytes(1 << 22))

    def open_as(length, limit):
        return envelope.unwrap(_envelope.PACKED, _envelope.HEAD.pack(1, 6, number, 0, length) + bomb, b"", limit)

    assert open_as(1 << 22, 1 << 22) == (6, bytes(1 << 22))
    with pytest.raises(CorruptedError, match="more than it can have"):
        open_as(1 << 22, 1 << 20)
    with pytest.raises(CorruptedError, match="more than it can have"):
        open_as(1 << 50, 1 << 60)
    for lie in (1, 1000, (1 << 22) - 1, (1 << 22) + 1):
        with pytest.raises(CorruptedError, match="cannot be decompressed|more than it can have"):
            open_as(lie, 1 << 30)


# ---- options ----


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"compression": "brotli"}, ValueError, "compression must be None, 'lz4', 'zstd' or 'zlib', not 'brotli'"),
        ({"compression": 3}, TypeError, "compression must be None, 'lz4', 'zstd' or 'zlib', not int"),
        ({"compression_threshold": 5}, ValueError, "pass compression=, too"),
        ({"compression": "zlib", "compression_threshold": -1}, ValueError, "must be 0 to 281474976710655, not -1"),
        ({"compression": "zlib", "compression_threshold": "1"}, TypeError, "must be an integer, not str"),
        ({"encryption_key": "k" * 32}, TypeError, "must be a bytes-like object of 32 bytes, not str"),
        ({"encryption_key": 32}, TypeError, "must be a bytes-like object of 32 bytes, not int"),
        ({"encryption_key": b"k" * 31}, ValueError, "must have exactly 32 bytes, not 31"),
        ({"encryption_key": b""}, ValueError, "must have exactly 32 bytes, not 0"),
    ],
)
def test_bad_options_are_refused_in_words(options, error, words):
    with pytest.raises(error, match=words):
        RingBufferChannel(8, **options)


def test_keys_are_any_bytes_like_object():
    for key in (bytearray(KEY), memoryview(KEY)):
        with RingBufferChannel(8, encryption_key=key) as channel:
            channel.send(1)
            with RingBufferChannel.attach(channel.name, encryption_key=KEY) as same:
                channel.close()
                assert same.receive() == 1


def test_who_attaches_needs_the_key_and_no_other():
    with RingBufferChannel(8, encryption_key=KEY) as channel:
        with pytest.raises(ValueError, match="the channel is encrypted: pass encryption_key="):
            RingBufferChannel.attach(channel.name)
        with pytest.raises(ValueError, match="the channel is encrypted"):
            RingBufferChannel.open(channel.name)
        with pytest.raises(ValueError, match="exactly 32 bytes"):
            RingBufferChannel.attach(channel.name, encryption_key=b"short")
        channel.send(1)
        assert channel.receive() == 1
    with RingBufferChannel(8) as channel, pytest.raises(ValueError, match="is not encrypted, and encryption_key was"):
        RingBufferChannel.attach(channel.name, encryption_key=KEY)


def test_open_compares_what_it_is_told():
    with RingBufferChannel(8, compression="lz4", compression_threshold=7) as channel:
        with pytest.raises(LayoutError, match="exists with compression 'lz4', not 'zstd'"):
            RingBufferChannel.open(channel.name, compression="zstd")
        with pytest.raises(LayoutError, match="exists with compression_threshold 7, not 8"):
            RingBufferChannel.open(channel.name, compression="lz4", compression_threshold=8)
        with RingBufferChannel.open(channel.name, compression="lz4", compression_threshold=7) as same:
            same.send(bytes(5000))
        assert channel.receive() == bytes(5000)


@pytest.mark.parametrize(
    ("module", "options", "extra"),
    [
        ("lz4.block", {"compression": "lz4"}, "lz4"),
        ("zstandard", {"compression": "zstd"}, "zstd"),
        ("cryptography.hazmat.primitives.ciphers.aead", {"encryption_key": KEY}, "crypto"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, module, options, extra):
    with RingBufferChannel(8, **options) as channel:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=rf"pip install 'shmcomm\[{extra}\]'"):
            RingBufferChannel(8, **options)
        with pytest.raises(ImportError, match=rf"pip install 'shmcomm\[{extra}\]'"):
            RingBufferChannel.attach(channel.name, encryption_key=options.get("encryption_key"))


def test_what_is_too_long_before_compression_is_refused():
    with RingBufferChannel(8, compression="zlib", buffer_size=4096) as channel:
        with pytest.raises(MessageTooLargeError, match="message of 100000 bytes is larger than .* compressed or not"):
            channel.send(bytes(100_000))
        channel.send(b"fits")
        assert channel.receive() == b"fits"


def test_stat_shows_an_encrypted_channel_and_cannot_use_it():
    with RingBufferChannel(8, encryption_key=KEY, compression="zstd") as channel:
        name = next(
            segment["name"]
            for segment in json.loads(_shmcomm("ls", "--json"))
            if segment["name"].endswith(channel.name)
        )
        stats = json.loads(_shmcomm("stat", name, "--json"))
        assert (stats["compression"], stats["encrypted"]) == ("zstd", True)
        with RingBufferChannel.attach(channel.name, encryption_key=False) as onlooker:
            with pytest.raises(ValueError, match="opened to be looked at only"):
                onlooker.send(1)
            with pytest.raises(ValueError, match="opened to be looked at only"):
                onlooker.try_receive()
            with pytest.raises(ValueError, match="opened to be looked at only"):
                onlooker.reserve(1)


def _shmcomm(*arguments):
    command = [sys.executable, "-m", "shmcomm", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_handle_changes_its_salt(monkeypatch):
    monkeypatch.setattr(_envelope, "MESSAGES_PER_SALT", 3)
    with RingBufferChannel(64, encryption_key=KEY) as channel:
        channel.send_batch(range(50))
        assert channel.receive_batch(50) == list(range(50))
        worker_salts = {_envelope.adopt(256, KEY, b"i").wrap(6, b"")[1][12:28] for _ in range(5)}
        assert len(worker_salts) == 5
