"""What travels: codecs auto, native, pickle, raw and the user's own; equality, exact types, what is refused and how."""

import collections
import enum
import gc
import json
import marshal
import math
import pickle
import struct
import subprocess
import sys
import threading
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmcomm import CorruptedError, NotEncodableError, RingBufferChannel, _core

np = pytest.importorskip("numpy")

BYTES, VALUE, PICKLE, CUSTOM = 6, 32, 33, 34


def native(obj, copy=True):
    tag, payload = _core._encode(obj, "native")
    return _core._decode(tag, payload, "native", copy)


def same(a, b):
    """Equal, and of the same types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return same_arrays(a, b)
    if isinstance(a, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, memoryview):
        return (a.format, a.shape, a.readonly, a.tobytes()) == (b.format, b.shape, b.readonly, b.tobytes())
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, (set, frozenset)):
        return sorted(map(unordered, a)) == sorted(map(unordered, b))
    return a == b


def unordered(member):
    """A text for a member of a set, whatever order sets within it have."""
    if isinstance(member, (tuple, frozenset)):
        parts = list(map(unordered, member))
        return f"{type(member).__name__}{sorted(parts) if isinstance(member, frozenset) else parts}"
    return repr(member)


def same_arrays(a, b):
    return (
        (a.dtype, a.dtype.char, a.shape, a.tobytes()) == (b.dtype, b.dtype.char, b.shape, b.tobytes())
        and a.dtype.fields == b.dtype.fields
        and a.flags.f_contiguous == b.flags.f_contiguous
    )


def nested(depth, make=lambda inner: [inner]):
    value = 1
    for _ in range(depth):
        value = make(value)
    return value


PLAIN = [
    None, True, False, 0, 1, -1, 255, 2**30, -(2**30), 2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63),
    0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 5e-324,
    "", "a", "hello", "x" * 127, "x" * 128, "x" * 300, "nul\0inside", b"", b"a", b"\0\xff" * 400,
]  # fmt: skip
OTHERS = [
    2**63, -(2**63) - 1, 2**64, 2**127, -(2**200), 2**2047, -(2**2048), 3**7000, 0j, complex(-0.0, math.nan),
    "é", "ÿ" * 300, "€uro", "😀" * 100, "\ud800", "a\udfffz", "mixed é € 😀",
    bytearray(), bytearray(b"abc"), (), (1,), (None, True, "x"), [], [[], [[]]], {}, {"a": 1}, set(), {1, "a"},
    frozenset(), frozenset({(1, 2), b"x"}), {1: "int", "1": "str", (1, ("x", 2)): [], b"1": 1.0, None: 0, 1.5: {}},
    {True: "bool"}, {1.0: "float"}, {"k" * n: n for n in range(1, 200)}, list(range(300)), tuple("abc" * 200),
    {frozenset({1}): {2}}, {"z": 1, "a": 2, "m": 3}, [1, 1.0, True, "1", b"1", None],
]  # fmt: skip
VIEWS = [
    memoryview(b""), memoryview(b"read only"), memoryview(bytearray(b"writable")), memoryview(bytes(16)).cast("i"),
    memoryview(bytearray(48)).cast("d", [2, 3]), memoryview(bytes(4)).cast("i", []), memoryview(b"").cast("q"),
    memoryview(bytes(range(24))).cast("B", [2, 3, 4]), *(memoryview(bytes(16)).cast(f) for f in "cbBhHiIlLqQnNfd?"),
    memoryview(b"0123456789")[2:5],
]  # fmt: skip
POINT = np.dtype([("x", "<f4"), ("y", ">i2"), ("when", "<M8[us]"), ("name", "<U3")])
DTYPES = [
    "?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d", "g", "F", "D", "G",
    ">i4", ">f8", ">q", ">c16", "S5", "U3", ">U3", "V7", "M8[ns]", "m8[s]", ">M8[D]", "M8[25us]", "m8",
    POINT, [("a", "i1"), ("inner", POINT, (2, 3))], [("é", "f8")], [("deep", [("deeper", [("deepest", "u2")])])],
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype({"names": ["late", "early"], "formats": ["u2", "u1"], "offsets": [8, 2], "itemsize": 32}),
    np.dtype({"names": ["word", "low"], "formats": ["<u4", "<u2"], "offsets": [0, 0]}),
]  # fmt: skip


def filled(dtype, shape):
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    if dtype.kind == "U" or dtype.names:
        return np.zeros(shape, dtype)
    return np.frombuffer(bytes(i % 2 for i in range(count * dtype.itemsize)), dtype).reshape(shape).copy()


@pytest.mark.parametrize("value", PLAIN + OTHERS + VIEWS, ids=lambda v: f"{type(v).__name__}-{repr(v)[:20]}")
@pytest.mark.parametrize(
    "wrap", [lambda v: v, lambda v: [v], lambda v: (0, {"k": v}, "end")], ids=["alone", "list", "deep"]
)
def test_native_keeps_value_and_type(value, wrap):
    assert same(native(wrap(value)), wrap(value))


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_cost_their_bytes(value):
    tag, payload = _core._encode(value)
    size = {int: 8, float: 8, bool: 0, type(None): 0}.get(type(value))
    assert len(payload) == (len(value) if size is None else size)
    assert tag < 8


def test_nan_payload_and_sign_survive():
    odd = struct.unpack("d", bytes([1, 2, 3, 0, 0, 0, 0xF8, 0xFF]))[0]
    assert same(native(odd), odd)
    assert same(native([odd, -0.0]), [odd, -0.0])


def test_writable_view_arrives_writable():
    got = native(memoryview(bytearray(b"abc")))
    got[0] = 120
    assert bytes(got) == b"xbc"
    assert type(got.obj) is bytearray
    assert type(native(memoryview(b"abc")).obj) is bytes


# ---- NumPy ----


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (2, 3), (0, 3), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays(dtype, shape):
    array = filled(dtype, shape)
    for copy in (True, False):
        got = native({"a": array}, copy)["a"]
        assert same(got, array)
        assert got.flags.writeable == (copy or array.size == 0)
        assert got.dtype.isalignedstruct == array.dtype.isalignedstruct


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scalars(dtype):
    scalar = filled(dtype, (3,))[1]
    assert same(native(scalar), scalar)
    assert same(native([scalar, 1])[0], scalar)


@pytest.mark.parametrize(
    "value",
    [np.str_(""), np.str_("a\0"), np.str_("é😀"), np.bytes_(b""), np.bytes_(b"a\0"), np.float64(-0.0)],
    ids=repr,
)
def test_scalars_that_subclass_plain_types(value):
    got = native(value)
    assert (type(got), repr(got), len(repr(got))) == (type(value), repr(value), len(repr(value)))
    if not isinstance(value, float):
        assert len(got) == len(value)


def test_long_and_long_long_stay_apart():
    assert type(native(np.longlong(1))) is np.longlong
    assert type(native(np.int64(1))) is np.int64
    assert native(np.zeros(1, "q")).dtype.char == "q"


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a[::2], lambda a: a[:, ::2], lambda a: a[::-1, ::-1], lambda a: a.T, lambda a: a[1:, 1:],
        lambda a: np.broadcast_to(a[0], (5, 6)), lambda a: a[:, 2], lambda a: a.transpose(1, 0)[::2],
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "c16", "S3"])
def test_strided_arrays_arrive_in_order(make, dtype):
    array = make(np.arange(24).reshape(4, 6).astype(dtype))
    got = native(array)
    assert np.array_equal(got, array)
    assert got.dtype == array.dtype
    assert got.flags.c_contiguous or got.flags.f_contiguous


def test_strided_arrays_of_more_dimensions():
    array = np.arange(4 * 5 * 6 * 7).reshape(4, 5, 6, 7)
    for view in (array[::2, :, ::3], array.transpose(2, 0, 3, 1), array[:, 1:4, :, :], array[..., ::-1]):
        assert np.array_equal(native(view), view)


def test_fortran_order_is_kept():
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    for copy in (True, False):
        got = native(array, copy)
        assert np.array_equal(got, array)
        assert got.flags.f_contiguous
        assert not got.flags.c_contiguous


def test_names_changed_in_place_are_seen():
    """A structured dtype is mutable, and the codec remembers dtypes."""
    array = np.zeros(2, [("a", "i4"), ("b", "i4")])
    first = native(array)
    array.dtype.names = ("x", "y")
    assert native(array).dtype.names == ("x", "y")
    first.dtype.names = ("p", "q")
    assert native(np.zeros(2, [("a", "i4"), ("b", "i4")])).dtype.names == ("a", "b")


def test_names_changed_inside_are_seen():
    array = np.zeros(2, [("a", [("b", "i4")])])
    native(array)
    array.dtype["a"].names = ("changed",)
    assert b"changed" in _core._encode(array)[1]
    assert native(array).dtype["a"].names == ("changed",)


def test_more_dtypes_than_are_remembered():
    arrays = [np.zeros(1, f"S{n}") for n in range(1, 60)]
    for _ in range(2):
        assert [native(a).dtype for a in arrays] == [a.dtype for a in arrays]


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked_array([1, 2], [True, False]),
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([object()]),
        np.zeros(1, [("o", object)]),
        np.zeros(1, np.dtype([(("title", "name"), "i4")])),
        np.zeros(1, np.dtype("i4", metadata={"unit": "m"})),
        np.dtype("i4"),
        np.zeros(0, "V100000"),
        np.zeros(1, np.dtype((np.record, [("a", "i4")]))),
    ],
    ids=lambda v: type(v).__name__,
)
def test_other_numpy_objects_are_not_native(value):
    with pytest.raises(NotEncodableError, match="native"):
        native(value)
    if not (isinstance(value, np.ndarray) and value.dtype == object):
        tag, payload = _core._encode([value])
        assert tag == PICKLE
        assert type(_core._decode(tag, payload)[0]) is type(value)


def test_views_stay_valid_and_keep_the_payload():
    tag, payload = _core._encode({"a": np.arange(1000), "b": b"bytes", "m": memoryview(b"12345678").cast("i")})
    got = _core._decode(tag, payload, "auto", False)
    assert type(got["b"]) is memoryview
    assert got["b"] == b"bytes"
    assert got["b"].obj is payload
    assert got["m"].format == "i"
    del payload
    gc.collect()
    assert got["a"].sum() == 499500
    assert not got["a"].flags.writeable
    with pytest.raises(TypeError):
        got["m"][0] = 1


def test_keys_and_members_are_never_views():
    value = ({b"key": b"value"}, {b"member"}, frozenset({(b"inner",)}))
    tag, payload = _core._encode(value)
    (mapping, members, frozen) = _core._decode(tag, payload, "auto", False)
    assert type(next(iter(mapping))) is bytes
    assert type(mapping[b"key"]) is memoryview
    assert (members, frozen) == (value[1], value[2])


# ---- through a channel: memory that is not ours ----


def test_arrays_are_aligned_in_the_channel():
    with RingBufferChannel(64, buffer_size=1 << 20) as channel:
        for offset in range(20):
            channel.send(b"x" * offset * 8)
            channel.receive()
            channel.send((b"y" * offset, np.arange(100.0), np.ones((3, 3), "u1")))
            head, big, small = channel.receive(copy=False)
            assert (big.ctypes.data % 64, small.ctypes.data % 64) == (0, 0)
            assert (bytes(head), big.sum(), small.sum()) == (b"y" * offset, 4950, 9)
            del head, big, small


@pytest.mark.parametrize("value", PLAIN + OTHERS[:30], ids=lambda v: repr(v)[:20])
def test_values_through_a_channel(value):
    with RingBufferChannel(8) as channel:
        for message in (value, [value, 1]):
            channel.send(message)
            assert same(channel.receive(), message)


def test_out_of_band_buffers_through_a_channel():
    message = Pair(np.arange(1000.0), np.ones(3, "u1"))
    with RingBufferChannel(8, buffer_size=1 << 20) as channel:
        channel.send(message)
        got = channel.receive()
        assert [got.a.sum(), got.b.sum()] == [499500, 3]
        got.a[0] = 5  # as with pickle: writable
        channel.send(message)
        held = channel.receive(copy=False)
        assert type(held) is Pair
        assert [held.a.flags.writeable, held.a.ctypes.data % 64, held.b.ctypes.data % 64] == [False, 0, 0]
        assert [held.a.sum(), held.b.sum()] == [499500, 3]
        del held


# ---- not native ----


class Colour(enum.IntEnum):
    RED = 1


class Words(str):
    pass


Pair = collections.namedtuple("Pair", "a b")
SUBCLASSES = [
    Colour.RED, Pair(1, 2), Words("x"), collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]),
    collections.Counter("aab"), range(3), slice(1, 2), Ellipsis, object, types.SimpleNamespace(a=1),
]  # fmt: skip


@pytest.mark.parametrize("value", SUBCLASSES, ids=lambda v: type(v).__name__)
def test_other_types_are_pickled_or_refused(value):
    for message in (value, [1, {"k": value}]):
        tag, payload = _core._encode(message)
        assert tag == PICKLE
        got = _core._decode(tag, payload)
        assert got == message
        assert type(got) is type(message)
        with pytest.raises(NotEncodableError, match=rf"codec='native' cannot send .*{type(value).__name__}"):
            _core._encode(message, "native")


@pytest.mark.parametrize("make", [list, dict, set, bytearray, lambda: np.zeros(2), lambda: memoryview(bytearray(3))])
def test_a_mutable_object_that_occurs_twice_is_not_native(make):
    twice = make()
    for message in ([twice, twice], {"a": twice, "b": (1, [twice])}):
        with pytest.raises(NotEncodableError, match="occurs twice"):
            _core._encode(message, "native")
    if not isinstance(twice, memoryview):
        first, second = _core._decode(*_core._encode([twice, twice]))
        assert first is second
    equal = [make(), make()]
    assert _core._encode(equal, "native")[0] == VALUE


def test_many_shared_objects():
    """Beyond the few that the encoder keeps at hand, up to where its table grows several times."""
    for count in (5, 12, 13, 40, 500, 5000):
        lists = [[] for _ in range(count)]
        assert native(list(lists)) == lists
        for again in (lists[0], lists[-1], lists[count // 2]):
            with pytest.raises(NotEncodableError, match="occurs twice"):
                _core._encode([*lists, again], "native")


def test_immutable_objects_may_occur_often():
    shared = ("a", (1, 2), frozenset({3}), b"x", 2**100)
    assert native([shared, shared, {"k": shared}]) == [shared, shared, {"k": shared}]


def test_cycles():
    loop = [1]
    loop.append(loop)
    got = _core._decode(*_core._encode(loop))
    assert got[1] is got
    with pytest.raises(NotEncodableError, match="contains itself"):
        _core._encode(loop, "native")


@pytest.mark.parametrize(
    "make",
    [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: frozenset({v})],
    ids=["list", "tuple", "dict", "set"],
)
def test_depth(make):
    assert native(nested(64, make)) == nested(64, make)
    with pytest.raises(NotEncodableError, match="nested deeper than 64"):
        native(nested(65, make))
    tag, payload = _core._encode(nested(65, make))
    assert tag == PICKLE
    assert _core._decode(tag, payload) == nested(65, make)


def test_views_that_cannot_be_rebuilt():
    for view in (
        memoryview(b"012345")[::2], memoryview(np.zeros((2, 2), order="F")), memoryview(np.zeros(2, ">i4")),
        memoryview(np.zeros((0, 2), "B")), memoryview(np.zeros(2, "f2")),
    ):  # fmt: skip
        with pytest.raises(NotEncodableError, match="C-contiguous"):
            native(view)
        with pytest.raises(NotEncodableError, match=r"cannot send memoryview: only C-contiguous .*; and pickle says: "):
            _core._encode(view)


def test_released_view():
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(ValueError, match="released"):
        _core._encode([view])


def test_exponential_tuples_end_at_the_limit():
    bomb = ("x" * 1000,)
    for _ in range(60):
        bomb = (bomb, bomb)
    with RingBufferChannel(4, buffer_size=4096) as channel:
        with pytest.raises(ValueError, match="message is larger than"):
            channel.send(bomb)
        channel.send(1)
        assert channel.receive() == 1


# ---- pickle ----


class Refuses:
    def __reduce__(self):
        raise ZeroDivisionError("on its own account")


class CannotPickle:
    def __reduce__(self):
        raise pickle.PicklingError("not me")


def test_what_pickle_refuses():
    for value in (lambda: 1, threading.Lock(), CannotPickle(), (i for i in ())):
        for codec in ("auto", "pickle"):
            with pytest.raises(NotEncodableError) as caught:
                _core._encode([value], codec)
            assert isinstance(caught.value.__cause__, (pickle.PicklingError, TypeError, AttributeError))
            assert isinstance(caught.value, TypeError)
            assert str(caught.value.__cause__) in str(caught.value)


def test_errors_of_users_code_pass():
    with pytest.raises(ZeroDivisionError, match="on its own account"):
        _core._encode(Refuses())
    with pytest.raises(RecursionError):
        _core._encode(nested(100_000))


def test_pickle_codec_always_pickles():
    for value in (1, "x", b"b", [1, 2], np.arange(3)):
        tag, payload = _core._encode(value, "pickle")
        assert tag == PICKLE
        assert same(_core._decode(tag, payload, "pickle"), value)


def test_pickled_arrays_travel_beside_the_stream():
    array = np.arange(10_000.0)
    tag, payload = _core._encode({"a": array, "b": Colour.RED})
    assert tag == PICKLE
    assert array.nbytes < len(payload) < array.nbytes + 500
    got = _core._decode(tag, payload)["a"]
    got[0] = 7
    assert np.array_equal(got[1:], array[1:])
    view = _core._decode(tag, payload, "auto", False)["a"]
    assert not view.flags.writeable
    assert np.array_equal(view, array)


def test_read_only_buffers_stay_read_only():
    array = np.arange(10.0)
    array.flags.writeable = False
    got = _core._decode(*_core._encode([array, Colour.RED]))[0]
    assert not got.flags.writeable


class Handover:
    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Handover, (pickle.PickleBuffer(self.data),)


def test_buffers_of_any_kind():
    for data in (b"", b"x", bytearray(b"abc"), np.zeros((3, 4), order="F")):
        got = _core._decode(*_core._encode([Handover(data) for _ in range(3)]))
        flat = data.tobytes(order="A") if isinstance(data, np.ndarray) else bytes(data)
        assert [bytes(handover.data) for handover in got] == [flat] * 3
    with pytest.raises(NotEncodableError, match="contiguous"):
        _core._encode(Handover(memoryview(b"abcdef")[::2]))


# ---- raw ----


@pytest.mark.parametrize(
    "value",
    [b"", b"abc", bytearray(b"abc"), memoryview(b"abc"), np.arange(3, dtype="u2")],
    ids=lambda v: type(v).__name__,
)
def test_raw(value):
    tag, payload = _core._encode(value, "raw")
    assert (tag, payload) == (BYTES, bytes(value))
    assert type(_core._decode(tag, payload, "raw")) is bytes
    view = _core._decode(tag, payload, "raw", False)
    assert type(view) is memoryview
    assert view.readonly
    assert view == payload


@pytest.mark.parametrize("value", [1, "text", None, [b"x"], memoryview(b"abcd")[::2]], ids=repr)
def test_raw_refuses(value):
    with pytest.raises(NotEncodableError, match="codec='raw' sends contiguous bytes-like objects only, not") as caught:
        _core._encode(value, "raw")
    assert caught.value.__cause__ is not None


# ---- the user's own ----


class Upper:
    """json with bytes around it."""

    seen = None

    def dumps(self, obj):
        return json.dumps(obj).encode()

    def loads(self, data):
        self.seen = data
        return json.loads(bytes(data))


def test_modules_fit_as_they_are():
    for module in (marshal, pickle):
        value = {"a": [1, 2.5, "x", None], "b": (b"bytes",)}
        tag, payload = _core._encode(value, module)
        assert (tag, payload) == (CUSTOM, module.dumps(value))
        assert _core._decode(tag, payload, module) == value


@pytest.mark.parametrize("name", ["msgpack", "orjson", "cloudpickle"])
def test_other_modules_fit_too(name):
    module = pytest.importorskip(name)
    value = {"a": [1, 2.5, "x", None]}
    assert _core._decode(*_core._encode(value, module), module) == value


def test_an_object_with_dumps_and_loads():
    codec = Upper()
    tag, payload = _core._encode([1, "a"], codec)
    for copy in (True, False):
        assert _core._decode(tag, payload, codec, copy) == [1, "a"]
        assert type(codec.seen) is memoryview
        assert codec.seen.readonly
        assert codec.seen.obj is not payload  # private: it cannot change under a parser


def test_dumps_must_return_bytes():
    with pytest.raises(TypeError, match=r"dumps\(\) must return a contiguous bytes-like object, and returned str"):
        _core._encode([1], json)


def test_errors_of_a_custom_codec_pass_and_leave_the_channel_usable():
    class Moody:
        def dumps(self, obj):
            return b"" if obj is None else 1 / 0

        def loads(self, data):
            raise KeyError("moody")

    with RingBufferChannel(4, codec=Moody()) as channel:
        with pytest.raises(ZeroDivisionError):
            channel.send(1)
        channel.send(None)
        with pytest.raises(KeyError, match="moody"):
            channel.receive()
        assert channel.try_receive("nothing") == "nothing"


def test_a_pickled_handle_keeps_its_codec():
    for codec in ("native", "pickle", "raw", marshal, Upper()):
        with RingBufferChannel(4, codec=codec) as channel, pickle.loads(pickle.dumps(channel)) as twin:
            channel.send(b"x" if codec == "raw" else [1])
            assert twin.receive() == (b"x" if codec == "raw" else [1])


def test_an_attached_handle_takes_its_creators_codec():
    with RingBufferChannel(4, codec="native") as channel, RingBufferChannel.attach(channel.name) as twin:
        with pytest.raises(NotEncodableError, match="codec='native'"):
            twin.send(range(3))
    with RingBufferChannel(4, codec=marshal) as channel:
        with pytest.raises(ValueError, match=r"codec is an object of its own.*pass codec="):
            RingBufferChannel.attach(channel.name)
        with RingBufferChannel.attach(channel.name, codec=marshal) as twin:
            twin.send((1, 2))
            assert channel.receive() == (1, 2)


@pytest.mark.parametrize(
    ("codec", "error", "words"),
    [
        ("jason", ValueError, "'native', 'pickle', 'raw' or an object with dumps and loads, not 'jason'"),
        (3, TypeError, "3 has no method dumps"),
        (None, TypeError, "None has no method dumps"),
        (types.SimpleNamespace(dumps=bytes), TypeError, "has no method loads"),
        (types.SimpleNamespace(dumps=1, loads=2), TypeError, "has no method dumps"),
    ],
    ids=repr,
)
def test_bad_codecs(codec, error, words):
    with pytest.raises(error) as caught:
        _core._encode(1, codec)
    assert words in str(caught.value)


# ---- what runs code and what does not ----


class Trap:
    sprung = 0

    def __reduce__(self):
        return Trap._spring, ()

    @staticmethod
    def _spring():
        Trap.sprung += 1
        return Trap()


@pytest.mark.parametrize(
    ("codec", "named"), [("native", "codec='native'"), ("raw", "codec='raw'"), (Upper(), "object of its own")]
)
def test_those_who_never_unpickle(codec, named):
    Trap.sprung = 0
    message = _core._encode(Trap())
    with pytest.raises(CorruptedError, match="never unpickles") as caught:
        _core._decode(*message, codec)
    assert named in str(caught.value)
    assert Trap.sprung == 0
    _core._decode(*message, "auto")
    assert Trap.sprung == 1


@pytest.mark.parametrize("codec", ["auto", "native", "pickle", "raw"])
def test_a_message_of_a_codec_object_needs_it(codec):
    with pytest.raises(CorruptedError, match=f"written by a codec object of its sender.*codec='{codec}'"):
        _core._decode(*_core._encode(1, marshal), codec)


def test_raw_takes_bytes_only():
    for value in (1, "x", None, [1]):
        with pytest.raises(CorruptedError, match="codec='raw', which takes nothing else"):
            _core._decode(*_core._encode(value), "raw")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from 3.12 on the collector runs between bytecodes only")
@pytest.mark.parametrize("work", ["encode", "decode"])
def test_no_collection_while_an_end_is_held(work):
    """An allocation may run the collector, and so anybody's finalisers."""

    class Tattle:
        ran = 0

        def __del__(self):
            Tattle.ran += 1

    value = [{i} for i in range(5000)]
    tag, payload = _core._encode(value)
    call, args = (_core._encode, (value,)) if work == "encode" else (_core._decode, (tag, payload))
    thresholds = gc.get_threshold()
    gc.collect()
    tattle = Tattle()
    tattle.me = tattle
    del tattle
    gc.set_threshold(1000, 1, 1)
    try:
        result = call(*args)
        ran = Tattle.ran
    finally:
        gc.set_threshold(*thresholds)
    assert len(result) in (2, 5000)
    assert ran == 0


def test_the_collector_is_left_as_it_was():
    message = _core._encode([[1]])
    _core._decode(*message)
    assert gc.isenabled()
    gc.disable()
    try:
        _core._decode(*_core._encode([[1]]))
        assert not gc.isenabled()
    finally:
        gc.enable()


# ---- NumPy only when needed ----


def run(code, *args):
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False, timeout=60)


def test_numpy_is_not_imported_before_an_array_comes():
    tag, payload = _core._encode(np.arange(3.0))
    result = run(
        "import sys; from shmcomm import _core\n"
        "_core._decode(*_core._encode([1, 'a', {'b': (2.5, b'c')}, memoryview(b'x')]))\n"
        "numpy = type('numpy.ndarray', (), {})()\n"
        "try: _core._encode(numpy, 'native')\n"
        "except TypeError as error: assert 'native' in str(error)\n"
        "assert 'numpy' not in sys.modules and 'pickle' not in sys.modules, 'imported too early'\n"
        "got = _core._decode(int(sys.argv[1]), bytes.fromhex(sys.argv[2]))\n"
        "print(type(got).__module__, got.tolist())",
        str(tag),
        payload.hex(),
    )
    assert (result.stderr, result.stdout) == ("", "numpy [0.0, 1.0, 2.0]\n")


def test_without_numpy_the_extra_is_named():
    tag, payload = _core._encode([np.arange(3.0)])
    result = run(
        "import sys; sys.modules['numpy'] = None\n"
        "from shmcomm import _core\n"
        "try: _core._decode(int(sys.argv[1]), bytes.fromhex(sys.argv[2]))\n"
        "except ImportError as error: print(error, '|', type(error.__cause__).__name__)",
        str(tag),
        payload.hex(),
    )
    assert result.stderr == ""
    assert "shmcomm[numpy]" in result.stdout
    assert "ModuleNotFoundError" in result.stdout


def test_something_else_called_numpy():
    tag, payload = _core._encode(np.arange(3.0))
    result = run(
        "import sys, types; sys.modules['numpy'] = types.ModuleType('numpy')\n"
        "from shmcomm import _core\n"
        "try: _core._decode(int(sys.argv[1]), bytes.fromhex(sys.argv[2]))\n"
        "except ImportError as error: print(error)",
        str(tag),
        payload.hex(),
    )
    assert result.stderr == ""
    assert "is not NumPy" in result.stdout


# ---- properties ----

scalars = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.complex_numbers()
    | st.text() | st.text(st.characters()) | st.binary() | st.binary().map(bytearray)
)  # fmt: skip
keys = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
arrays = st.builds(
    lambda dtype, shape: filled(dtype, tuple(shape)),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 4), max_size=3),
)
values = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner)
        | st.sets(keys) | st.frozensets(keys)
    ),
    max_leaves=30,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(values)
def test_any_value_comes_back(value):
    assert same(native(value), value)
    got = _core._decode(*_core._encode(value, "pickle"), "pickle")
    assert same(got, pickle.loads(pickle.dumps(value, 5)))


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=[])), st.integers(0, 40))
def test_any_text_comes_back_even_halves_of_pairs(text, pad):
    text = "x" * pad + text
    assert native([text, {text: text}]) == [text, {text: text}]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4000), st.integers(-1, 1), st.booleans())
def test_integers_around_powers_of_two(bits, delta, negative):
    number = (-1 if negative else 1) * 2**bits + delta
    for wrap in (lambda n: n, lambda n: (n,)):
        assert same(native(wrap(number)), wrap(number))
