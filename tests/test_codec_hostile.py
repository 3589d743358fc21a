"""Whatever bytes a segment holds, decoding gives an object or CorruptedError: no crash, no leak, no run of anybody's
code, and no more memory than the message is worth."""

import contextlib
import gc
import mmap
import multiprocessing
import random
import struct
import sys
import tracemalloc
import warnings

import pytest
from helpers import path_of

from shmcomm import CorruptedError, RingBufferChannel, _core

np = pytest.importorskip("numpy")

NONE, TRUE, INT64, FLOAT, BYTES, ASCII, VALUE, PICKLE, CUSTOM = 1, 3, 4, 5, 6, 7, 32, 33, 34
UTF8, INT8, BIGINT, BYTEARRAY = 8, 9, 11, 13
TUPLE, LIST, SET, FROZENSET, DICT = 14, 15, 16, 17, 18
MEMORYVIEW, ARRAY, SCALAR, NUMPY_STR, NUMPY_BYTES = 19, 20, 21, 22, 23
LONG = 255

SAMPLES = {
    "none": None,
    "int": 7,
    "float": 1.5,
    "ascii": "abc",
    "utf8": "é€😀\ud800",
    "bytes": b"0123",
    "bigint": -(2**100),
    "containers": [(1, 2), {"key": [None, True], 2: "x"}, {1, "a"}, frozenset({(1, b"x")}), 2.5, 1j, bytearray(b"yz")],
    "dict": {"id": 123456, "name": "worker", "value": 1.25, "ok": True, "tag": None},
    "long": ["x" * 300, list(range(260))],
    "view": memoryview(bytearray(24)).cast("i", [2, 3]),
    "array": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.ones((2, 2), ">i2")),
    "struct": np.zeros(2, [("a", "<i4"), ("t", "<M8[ns]", (2,)), ("in", [("u", "<U2")])]),
    "aligned": np.zeros(1, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "scalars": [np.float64(1), np.datetime64("2020-01-01", "ns"), np.str_("é"), np.bytes_(b"x"), np.void(b"abc")],
    "empty array": np.zeros((0, 3), "u1"),
}
MESSAGES = {name: _core._encode(value) for name, value in SAMPLES.items()}
MESSAGES["raw"] = _core._encode(b"raw bytes", "raw")


def decode(tag, payload):
    """Decodes in both ways; the object, or None if it is corrupted. Anything else is an error of the test."""
    result = None
    for copy in (True, False):
        try:
            result = _core._decode(tag, payload, "native", copy)
        except CorruptedError:
            continue
    return result


def touch(obj):
    """Looks at every item. NumPy says SystemError or ValueError when an item of an array of text is no character."""
    with contextlib.suppress(SystemError, ValueError):
        repr(obj)


@pytest.fixture(autouse=True)
def quiet_numpy():
    """NumPy may warn about a descriptor; that is no error, and no output either."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# ---- every message, damaged in every place ----


@pytest.mark.parametrize("name", MESSAGES)
def test_every_truncation(name):
    tag, payload = MESSAGES[name]
    for length in range(len(payload)):
        got = decode(tag, payload[:length])
        if tag == VALUE:
            assert got is None, f"{length} of {len(payload)} bytes were taken for a message"


@pytest.mark.parametrize("name", MESSAGES)
def test_bytes_behind_the_end(name):
    tag, payload = MESSAGES[name]
    if tag in (BYTES, ASCII):
        return
    with pytest.raises(CorruptedError, match=r"behind its end|wrong length"):
        _core._decode(tag, payload + b"\0")


@pytest.mark.parametrize("name", MESSAGES)
def test_every_byte_changed(name):
    tag, payload = MESSAGES[name]
    step = max(1, len(payload) // 200)
    for i in range(0, len(payload), step):
        old = payload[i]
        for value in {0, 1, 3, 7, 127, 128, 254, 255, *range(8, 25), old ^ 1, old ^ 0x80, (old + 1) & 255}:
            changed = bytearray(payload)
            changed[i] = value
            touch(decode(tag, bytes(changed)))


@pytest.mark.parametrize("name", MESSAGES)
def test_every_tag(name):
    for tag in range(256):
        touch(decode(tag, MESSAGES[name][1]))


def test_random_bytes():
    rng = random.Random(20240229)
    tags = [*range(1, 24), *range(128, 140), 255]
    for _ in range(30_000):
        size = rng.randrange(60)
        if rng.random() < 0.5:
            payload = rng.randbytes(size)
        else:
            payload = bytes(rng.choice(tags) if rng.random() < 0.4 else rng.randrange(8) for _ in range(size))
        touch(decode(VALUE, payload))


def test_spliced_messages():
    rng = random.Random(7)
    payloads = [payload for tag, payload in MESSAGES.values() if tag == VALUE]
    for _ in range(20_000):
        one, two = rng.choice(payloads), rng.choice(payloads)
        cut = rng.randrange(len(one) + 1)
        payload = bytearray(one[:cut] + two[rng.randrange(len(two)) :])
        for _ in range(rng.randrange(3)):
            if payload:
                payload[rng.randrange(len(payload))] = rng.randrange(256)
        touch(decode(VALUE, bytes(payload)))


# ---- particular lies ----


def u64(*numbers):
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def long(number):
    return bytes([LONG]) + u64(number)


def text(data):
    return bytes([len(data)]) + data


def array(descriptor, dims, data=b"", flags=0, tag=ARRAY):
    return bytes([tag, flags]) + text(descriptor) + bytes([len(dims)]) + u64(*dims) + b"\0" + data


def plain(name):
    return b"p" + text(name)


def struct_of(*fields, size=8, flags=0):
    head = b"s" + bytes([flags]) + u64(size) + bytes([len(fields)])
    return head + b"".join(text(name) + u64(offset) + node for name, offset, node in fields)


LIES = {
    "empty": b"",
    "unknown tag": b"\0",
    "tag of a message": bytes([VALUE, NONE]),
    "list of 2^32": bytes([LIST]) + long(2**32) + b"\1" * 20,
    "list of 2^63": bytes([LIST]) + long(2**63),
    "list of 2^64-1": bytes([LIST]) + long(2**64 - 1) + bytes([NONE]) * 20,
    "tuple of 2^61": bytes([TUPLE]) + long(2**61) + bytes([NONE]) * 20,
    "dict of 2^63 pairs": bytes([DICT]) + long(2**63) + bytes([NONE]) * 20,
    "set of 2^40": bytes([SET]) + long(2**40) + bytes([NONE]) * 20,
    "lists that count the same bytes": bytes([LIST, 100]) * 3 + bytes([NONE]) * 100,
    "text of 2^63": bytes([ASCII]) + long(2**63) + b"abc",
    "text of 2^64-1": bytes([UTF8]) + long(2**64 - 1) + b"abc",
    "bytes of 2^62": bytes([BYTES]) + long(2**62) + b"abc",
    "bytearray of 2^62": bytes([BYTEARRAY]) + long(2**62) + b"abc",
    "integer of 2^60 bytes": bytes([BIGINT]) + long(2**60) + b"abc",
    "not ASCII": bytes([0x80 | 3]) + b"a\xffb",
    "key that is not ASCII": bytes([DICT, 1, 0x80 | 3]) + b"a\xffb" + bytes([NONE]),
    "long text that is not ASCII": bytes([ASCII, 20]) + b"a" * 19 + b"\x80",
    "not UTF-8": bytes([UTF8, 2]) + b"\xc3\x28",
    "UTF-8 that is too long": bytes([UTF8, 2]) + b"\xc0\x80",
    "UTF-8 beyond the end": bytes([UTF8, 4]) + b"\xf7\xbf\xbf\xbf",
    "list as key": bytes([DICT, 1, LIST, 0, NONE]),
    "tuple with a list as key": bytes([DICT, 1, TUPLE, 1, LIST, 0, NONE]),
    "dict as member": bytes([SET, 1, DICT, 0]),
    "bytearray as member": bytes([FROZENSET, 1, BYTEARRAY, 0]),
    "writable view as key": bytes([DICT, 1, MEMORYVIEW, 1, ord("B"), 1]) + u64(1) + b"\0x" + bytes([NONE]),
    "array as key": bytes([DICT, 1]) + array(plain(b"|B"), [1], b"x") + bytes([NONE]),
    "65 lists": bytes([LIST, 1]) * 65 + bytes([NONE]),
    "a million lists": bytes([LIST, 1]) * 1_000_000,
    "a million texts of NumPy": bytes([NUMPY_STR]) * 1_000_000,
    "view of no format": bytes([MEMORYVIEW, 0, ord("O"), 1]) + u64(1) + b"\0" * 9,
    "view of pointers": bytes([MEMORYVIEW, 0, ord("P"), 1]) + u64(1) + b"\0" * 9,
    "view of unknown flags": bytes([MEMORYVIEW, 2, ord("B"), 1]) + u64(1) + b"\0x",
    "view too large": bytes([MEMORYVIEW, 0, ord("q"), 1]) + u64(2**61) + b"\0" * 9,
    "view whose size wraps": bytes([MEMORYVIEW, 0, ord("q"), 2]) + u64(2**32, 2**32) + b"\0" * 9,
    "view whose size wraps to little": bytes([MEMORYVIEW, 0, ord("q"), 2]) + u64(2**61 + 1, 8) + b"\0" * 65,
    "view of 65 dimensions": bytes([MEMORYVIEW, 0, ord("B"), 65]) + u64(*[1] * 65) + b"\0x",
    "view of no plane": bytes([MEMORYVIEW, 0, ord("B"), 2]) + u64(0, 2) + b"\0",
    "pad of 64": bytes([MEMORYVIEW, 0, ord("B"), 1]) + u64(1) + b"\x40" + b"\0" * 70,
    "pad beyond the end": bytes([MEMORYVIEW, 0, ord("B"), 1]) + u64(0) + b"\x08abc",
    "text of NumPy that is bytes": bytes([NUMPY_STR, BYTES, 1]) + b"x",
    "bytes of NumPy that are a list": bytes([NUMPY_BYTES, LIST, 0]),
}
ARRAY_LIES = {
    "objects": array(plain(b"|O"), [1], b"\0" * 8),
    "objects by size": array(plain(b"|O8"), [1], b"\0" * 8),
    "object character": array(plain(b"<O"), [1], b"\0" * 8),
    "StringDType": array(plain(b"|T16"), [1], b"\0" * 16),
    "no order": array(plain(b"f8"), [1], b"\0" * 8),
    "a list of types": array(plain(b"<f8,<i4"), [1], b"\0" * 12),
    "a list with objects": array(plain(b"<i4,O"), [1], b"\0" * 12),
    "a shape in the name": array(plain(b"(2,)<i4"), [1], b"\0" * 8),
    "a name": array(plain(b"float64"), [1], b"\0" * 8),
    "a dotted name": array(plain(b"<os.system"), [1], b"\0" * 8),
    "NUL in the name": array(plain(b"<i\x00"), [1], b"\0" * 8),
    "name without characters": array(plain(b""), [1], b"\0" * 8),
    "name that is too long": array(plain(b"<S" + b"1" * 40), [1], b"\0" * 8),
    "digits that are none": array(plain(b"|S-1"), [1], b"\0" * 8),
    "huge text": array(plain(b"|S999999999"), [0]),
    "huge void": array(plain(b"|V999999999"), [0, 5]),
    "text larger than an int": array(plain(b"<U999999999"), [0]),
    "items of no size": array(plain(b"|S0"), [2**40]),
    "void of no size": array(plain(b"|V0"), [2**62]),
    "bad unit": array(plain(b"<M8[foo]"), [1], b"\0" * 8),
    "unit with code": array(plain(b"<M8[ns];"), [1], b"\0" * 8),
    "unit without end": array(plain(b"<M8[ns"), [1], b"\0" * 8),
    "unit of zero": array(plain(b"<M8[0s]"), [1], b"\0" * 8),
    "time of 4 bytes": array(plain(b"<M4[s]"), [1], b"\0" * 4),
    "too many items": array(plain(b"<d"), [2], b"\0" * 8),
    "2^61 items": array(plain(b"<d"), [2**61], b"\0" * 8),
    "2^64-1 items": array(plain(b"|B"), [2**64 - 1], b"\0" * 8),
    "size that wraps": array(plain(b"|B"), [2**32, 2**32], b"\0" * 8),
    "empty and absurd": array(plain(b"<d"), [0, 2**62, 2**62]),
    "empty and just too large": array(plain(b"<d"), [0, 2**62]),
    "65 dimensions": array(plain(b"|B"), [1] * 65, b"x"),
    "unknown flags": array(plain(b"|B"), [1], b"x", flags=2),
    "unknown node": array(b"q\1x", [1], b"x"),
    "bytes behind the descriptor": array(plain(b"|B") + b"x", [1], b"x"),
    "empty descriptor": array(b"", [1], b"x"),
    "long descriptor": bytes([ARRAY, 0]) + long(5000) + b"p" * 5000,
    "sub-array alone": array(b"a\1" + u64(2) + plain(b"|B"), [1], b"xy"),
    "struct of nothing": array(struct_of(), [1], b"\0" * 8),
    "struct with objects": array(struct_of((b"a", 0, plain(b"|O"))), [1], b"\0" * 8),
    "field behind the end": array(struct_of((b"a", 4, plain(b"<d"))), [1], b"\0" * 8),
    "field far behind the end": array(struct_of((b"a", 2**63, plain(b"<d"))), [1], b"\0" * 8),
    "field that wraps": array(struct_of((b"a", 2**32 - 4, plain(b"<d"))), [1], b"\0" * 8),
    "field twice": array(struct_of((b"a", 0, plain(b"<i")), (b"a", 4, plain(b"<i"))), [1], b"\0" * 8),
    "field not UTF-8": array(struct_of((b"\xff", 0, plain(b"<i"))), [1], b"\0" * 8),
    "huge struct": array(struct_of((b"a", 0, plain(b"<i")), size=2**31), [1], b"\0" * 8),
    "struct of 2^31-1": array(struct_of((b"a", 0, plain(b"<i")), size=2**31 - 1), [0]),
    "aligned and not": array(struct_of((b"a", 1, plain(b"<i")), flags=1), [1], b"\0" * 8),
    "struct flags": array(struct_of((b"a", 0, plain(b"<i")), flags=2), [1], b"\0" * 8),
    "more fields than bytes": array(b"s\0" + u64(8) + long(2**40), [1], b"\0" * 8),
    "huge sub-array": array(struct_of((b"a", 0, b"a\2" + u64(2**20, 2**20) + plain(b"<i"))), [1], b"\0" * 8),
    "sub-array of no dimension": array(struct_of((b"a", 0, b"a\0" + plain(b"<i"))), [1], b"\0" * 8),
    "structs 100 deep": array((b"s\0" + u64(8) + b"\1\1a" + u64(0)) * 9 + plain(b"<i"), [1], b"\0" * 8),
    "scalar cut short": bytes([SCALAR]) + text(plain(b"<d")) + b"\0" * 7,
    "scalar object": bytes([SCALAR]) + text(plain(b"|O")) + b"\0" * 8,
    "scalar of no size": bytes([SCALAR]) + text(plain(b"|V0")),
}


@pytest.mark.parametrize("name", [*LIES, *ARRAY_LIES])
def test_lies(name):
    payload = {**LIES, **ARRAY_LIES}[name]
    tracemalloc.start()
    try:
        for copy in (True, False):
            with pytest.raises(CorruptedError, match="message damaged at byte"):
                _core._decode(VALUE, payload, "native", copy)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_the_makers_of_lies_can_tell_the_truth():
    """Or the lies might be refused for a slip of the pen."""
    assert _core._decode(VALUE, array(plain(b"<d"), [1], struct.pack("d", 2.5))).tolist() == [2.5]
    fields = struct_of((b"a", 0, plain(b"<i")), (b"b", 4, b"a\1" + u64(2) + plain(b"<H")))
    assert _core._decode(VALUE, array(fields, [1], struct.pack("<iHH", 1, 2, 3)))["b"].tolist() == [[2, 3]]
    assert _core._decode(VALUE, array(plain(b"<M8[ns]"), [1], u64(0))).dtype == "M8[ns]"
    assert _core._decode(VALUE, array(plain(b"|B"), [2, 0])).shape == (2, 0)
    view = bytes([MEMORYVIEW, 0, ord("h"), 2]) + u64(1, 2) + b"\3\0\0\0abcd"
    assert _core._decode(VALUE, view).tolist() == [[0x6261, 0x6463]]
    assert _core._decode(VALUE, bytes([SCALAR]) + text(plain(b"<d")) + u64(0)) == 0.0
    assert _core._decode(VALUE, bytes([LIST, 3]) * 2 + bytes([NONE]) * 5) == [[None] * 3, None, None]
    assert _core._decode(VALUE, bytes([DICT, 1, TUPLE, 1, INT8, 5, NONE])) == {(5,): None}
    assert _core._decode(VALUE, bytes([LIST, 1]) * 64 + bytes([NONE])) is not None


def test_containers_together_claim_no_more_than_there_is():
    """Each list asks for all that is left: without the sum that would be 64 times the message in pointers."""
    rest = 1 << 16
    payload = b"".join(bytes([LIST]) + long(rest) for _ in range(60)) + bytes([NONE]) * rest
    tracemalloc.start()
    try:
        assert decode(VALUE, payload) is None
        assert tracemalloc.get_traced_memory()[1] < 3 * 8 * rest
    finally:
        tracemalloc.stop()


def test_plain_messages_of_the_wrong_length():
    wrong = [(NONE, b"x"), (TRUE, b"x"), (INT64, b"1234567"), (INT64, b"123456789"), (FLOAT, b""), (ASCII, b"a\x80")]
    for tag, payload in wrong:
        with pytest.raises(CorruptedError, match="message damaged"):
            _core._decode(tag, payload)


@pytest.mark.parametrize("tag", [0, 8, 31, 35, 63, 64, 96, 111, 128, 255])
@pytest.mark.parametrize("codec", ["auto", "native", "pickle", "raw"])
def test_unknown_tags(tag, codec):
    with pytest.raises(CorruptedError, match=f"unknown tag {tag}$"):
        _core._decode(tag, b"abc", codec)


def test_damaged_pickled_messages():
    tag, payload = _core._encode([np.ma.arange(3), slice(1)])
    assert tag == PICKLE
    end = 1 + 8 + struct.unpack_from("<Q", payload, 1)[0]
    for damaged in (
        b"", b"\1", payload[:8], payload[:20], b"\5" + payload[1:], long(2**60) + payload[1:], payload[:1] + u64(2**63),
        b"\1" + payload[1:end], b"\1" + payload[1:end] + u64(5) + b"\0abcd",
        b"\1" + payload[1:end] + u64(2**64 - 1) + b"\0",
        b"\1" + payload[1:end] + u64(1) + b"\x40" + b"\0" * 70,
    ):  # fmt: skip
        for copy in (True, False):
            with pytest.raises(CorruptedError, match="pickled message"):
                _core._decode(tag, damaged, "auto", copy)


def test_an_array_of_strange_characters_is_harmless():
    got = _core._decode(VALUE, array(plain(b"<U1"), [1], b"\xff" * 4))
    with pytest.raises((ValueError, SystemError)):
        str(got[0])


# ---- through a channel ----


def test_a_damaged_message_does_not_block_those_behind_it():
    with RingBufferChannel(8, codec="native", name="damaged") as channel:
        channel.send(["spoil me", 1])
        channel.send("next")
        spoil(channel)
        with pytest.raises(CorruptedError, match="message damaged"):
            channel.receive()
        assert channel.receive() == "next"


def spoil(channel):
    with open(path_of(channel), "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        at = memory.find(b"spoil me")
        memory[at] = 0xFF


def scribble(path, marker, stop):
    """Rewrites the bytes of messages while they are read."""
    rng = random.Random(3)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        at = memory.find(marker)
        while not stop.is_set():
            for _ in range(200):
                memory[at - rng.randrange(1, 40)] = rng.choice([0, 1, 14, 15, 18, 20, 100, 127, 200, 255])


def test_bytes_that_change_while_they_are_read():
    context = multiprocessing.get_context("spawn")
    marker = b"the end of it all"
    message = [(1, 2.5), {"key": "é", 2: b"x"}, np.arange(2, dtype="u1"), marker.decode()]
    with RingBufferChannel(4, codec="native", name="scribbled") as channel:
        channel.send(message)
        stop = context.Event()
        worker = context.Process(target=scribble, args=(path_of(channel), marker, stop))
        worker.start()
        good = bad = 0
        try:
            for _ in range(20_000):
                try:
                    touch(channel.peek())
                    good += 1
                except CorruptedError:
                    bad += 1
        finally:
            stop.set()
            worker.join()
        assert worker.exitcode == 0
        assert good + bad == 20_000


# ---- no leaks ----


ROUNDS = 200
NOISE = 9000  # bytes; an object that leaks once a round takes more


def growth(function):
    """Bytes that ROUNDS calls leave behind."""
    for _ in range(ROUNDS):
        function()
    gc.collect()
    start = tracemalloc.get_traced_memory()[0]
    for _ in range(ROUNDS):
        function()
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - start


def leaks(function):
    """Caches of the interpreter may grow once and again; what leaks does so every time."""
    tracemalloc.start()
    try:
        return all(growth(function) > NOISE for _ in range(5))
    finally:
        tracemalloc.stop()


def test_decoding_leaks_nothing():
    """Neither memory nor references to objects that everybody shares."""
    cases = [(VALUE, p) for p in [*LIES.values(), *ARRAY_LIES.values()] if len(p) < 10_000]
    cases += [(tag, payload[: len(payload) // 2]) for tag, payload in MESSAGES.values()]
    cases += list(MESSAGES.values())
    shared = [np.ndarray, np.dtype, np.dtype("f8"), np.dtype("u1"), CorruptedError, memoryview, ()]

    def round_trip():
        for tag, payload in cases:
            decode(tag, payload)

    round_trip()
    before = [sys.getrefcount(obj) for obj in shared]
    assert not leaks(round_trip)
    assert all(abs(b - a) < ROUNDS for a, b in zip(before, [sys.getrefcount(obj) for obj in shared], strict=True))


def test_encoding_leaks_nothing():
    values = [*SAMPLES.values(), [[]] * 2, slice(1), {"a": slice(1)}, [[[]] * 30]]

    def round_trip():
        for value in values:
            for codec in ("auto", "native", "raw"):  # pickling arrays fills the interpreter's caches, whoever does it
                with contextlib.suppress(TypeError):
                    _core._encode(value, codec)

    round_trip()
    assert not leaks(round_trip)
