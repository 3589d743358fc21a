"""What `import shmcomm` offers and costs, and that its types are right."""

import doctest
import importlib.util
import inspect
import os
import pickle
import queue
import subprocess
import sys

import pytest
from helpers import HERE, run_python

import shmcomm
from shmcomm import _core

ROOT = HERE.parent


def test_everything_named_is_there():
    for name in shmcomm.__all__:
        assert getattr(shmcomm, name) is not None
    assert sorted(shmcomm.__all__) == shmcomm.__all__
    assert set(shmcomm.__all__) <= set(dir(shmcomm))
    namespace = {}
    exec("from shmcomm import *", namespace)
    assert set(shmcomm.__all__) <= set(namespace)


def test_nothing_else_is_public():
    public = {name for name in vars(shmcomm) if not name.startswith("_")}
    assert public - set(shmcomm.__all__) == set()


def test_what_does_not_exist():
    with pytest.raises(AttributeError, match="module 'shmcomm' has no attribute 'nonsense'"):
        _ = shmcomm.nonsense
    with pytest.raises(ImportError):
        exec("from shmcomm import nonsense")


def test_version():
    assert shmcomm.__version__ == "0.1.0"
    assert len(_core._source_hash) == 16


def test_the_extension_says_which_body_it_has():
    assert _core._os_body in ("linux", "posix")


ERRORS = {
    "Full": queue.Full,
    "Empty": queue.Empty,
    "ShutDown": getattr(queue, "ShutDown", Exception),
    "CorruptedError": Exception,
    "LayoutError": Exception,
    "MessageTooLargeError": ValueError,
    "LaggedError": Exception,
    "BusyError": Exception,
    "NotEncodableError": TypeError,
    "DecryptionError": Exception,
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    error = getattr(shmcomm, name)
    assert issubclass(error, shmcomm.Error)
    assert issubclass(error, ERRORS[name])
    assert not issubclass(error, OSError)
    assert error.__doc__
    made = error("text")
    assert str(made) == "text"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(made, protocol))
        assert type(again) is error
        assert again.args == made.args


@pytest.mark.parametrize("name", [n for n in shmcomm.__all__ if isinstance(getattr(shmcomm, n), type)])
def test_types_say_where_users_find_them(name):
    kind = getattr(shmcomm, name)
    assert (kind.__module__, kind.__qualname__) == ("shmcomm", name)
    assert pickle.loads(pickle.dumps(kind)) is kind


def test_a_traceback_names_the_public_type():
    source = "import shmcomm\nwith shmcomm.RingBufferChannel(1) as ch: ch.receive(0)"
    done = run_python(source, check=False)
    assert done.stderr.splitlines()[-1].startswith("shmcomm.Empty: "), done.stderr


def test_what_is_lost_survives_pickling():
    made = shmcomm.LaggedError("late", lost=3)
    again = pickle.loads(pickle.dumps(made))
    assert (type(again), str(again), again.lost) == (shmcomm.LaggedError, "late", 3)


@pytest.mark.parametrize(
    "kind",
    [
        shmcomm.SharedObject,
        shmcomm.RingBufferChannel,
        shmcomm.SharedMemoryBuffer,
        shmcomm.MemoryPool,
        shmcomm.BufferPool,
        shmcomm.Block,
        shmcomm.ObjectPool,
        _core.Lease,
        _core.Reservation,
    ],
    ids=lambda k: k.__name__,
)
def test_types_are_said_to_be_public(kind):
    assert kind.__module__ == "shmcomm"
    assert kind.__doc__
    for name, value in vars(kind).items():
        if not name.startswith("_"):
            assert inspect.getdoc(value), f"{kind.__name__}.{name} has no docstring"
            if callable(value) and not isinstance(value, type):
                assert inspect.signature(value)


def examples():
    for kind in (shmcomm.SharedObject, shmcomm.RingBufferChannel, shmcomm.SharedMemoryBuffer, shmcomm.Reservation):
        for name, text in [("", kind.__doc__), *((name, value.__doc__) for name, value in vars(kind).items())]:
            names = vars(shmcomm).copy()
            test = doctest.DocTestParser().get_doctest(text or "", names, kind.__name__ + name, None, None)
            if test.examples:
                yield pytest.param(test, id=f"{kind.__name__}.{name}")


@pytest.mark.parametrize("example", list(examples()))
def test_examples_in_docstrings(example):
    said = []
    assert doctest.DocTestRunner().run(example, out=said.append).failed == 0, "".join(said)


def test_types_cannot_be_changed_by_accident():
    for kind in (shmcomm.RingBufferChannel, shmcomm.SharedMemoryBuffer):
        with kind(4) as made, pytest.raises(AttributeError):
            made.nonsense = 5
        with kind(4) as made, pytest.raises(AttributeError):
            made.name = "other"
    with shmcomm.ObjectPool(list) as pool, pytest.raises(AttributeError):
        pool.max_size = 5


def test_import_is_cheap():
    source = """
import sys
import queue
before = set(sys.modules)
import shmcomm
added = set(sys.modules) - before
assert added <= {"atexit", "shmcomm", "shmcomm._core", "shmcomm._errors"}, added
unwanted = {"numpy", "asyncio", "multiprocessing", "dataclasses", "pickle", "lz4", "zstandard", "cryptography",
"ctypes", "inspect", "typing", "re", "enum"}
with shmcomm.RingBufferChannel(4) as channel, shmcomm.SharedMemoryBuffer(4) as buffer:
    channel.send({"a": [1]})
    channel.receive()
    buffer.write(b"abc")
assert not set(sys.modules) - before & unwanted
print(sorted(m for m in added if "." not in m and m not in sys.stdlib_module_names))
"""
    assert run_python(source).stdout.split() == ["['shmcomm']"]


def test_without_numpy():
    source = """
import sys
sys.modules["numpy"] = None
import shmcomm
with shmcomm.RingBufferChannel(4) as channel, shmcomm.SharedMemoryBuffer(4) as buffer:
    channel.send([1, b"bytes"])
    assert channel.receive(copy=False) == [1, b"bytes"]
    for call in (lambda: channel.reserve_array(3, "u1"), lambda: buffer.as_array(3, "u1")):
        try:
            call()
        except ImportError as error:
            assert str(error).startswith("this makes a NumPy array, and NumPy is not installed: "), error
            assert "shmcomm[numpy]" in str(error), error
        else:
            raise SystemExit("it did not raise")
    channel.send(1)
    assert channel.receive() == 1
"""
    run_python(source)


def test_an_array_arrives_where_there_is_no_numpy():
    import numpy as np

    with shmcomm.RingBufferChannel(4) as channel:
        channel.send_batch([np.arange(3), "next"])
        source = """
import sys
sys.modules["numpy"] = None
import shmcomm
channel = shmcomm.RingBufferChannel.attach(sys.argv[1])
for _ in range(2):
    try:
        channel.receive()
    except ImportError as error:
        assert "shmcomm[numpy]" in str(error), error
channel.clear()
"""
        run_python(source, channel.name)
        channel.send("still works")
        assert channel.receive() == "still works"


def test_import_in_a_program_without_shared_memory():
    run_python("import shmcomm", env={"SHMCOMM_DIR": "/no/such/place"})


def test_stats_are_pickled():
    with shmcomm.RingBufferChannel(4) as channel, shmcomm.SharedMemoryBuffer(4) as buffer:
        for made in (channel.stats(), buffer.stats(), buffer.header, channel.stats().participants[0]):
            assert pickle.loads(pickle.dumps(made)) == made
            assert repr(made).startswith(type(made).__name__ + "(")


def test_stats_classes():
    for kind in (
        shmcomm.RingStats,
        shmcomm.BufferStats,
        shmcomm.PoolStats,
        shmcomm.SizeClassInfo,
        shmcomm.ObjectPoolStats,
        shmcomm.Participant,
    ):
        assert kind.__doc__
        with pytest.raises(TypeError):
            kind()
    assert shmcomm.BufferHeader._fields == ("magic", "version", "size", "flags", "checksum", "user")


# ---- types ----

needs_mypy = pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")


def mypy(*arguments, cwd=ROOT):
    environment = {**os.environ, "MYPYPATH": str(HERE)}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=cwd,
        env=environment,
    )


@needs_mypy
@pytest.mark.time_limit(300)
def test_the_sample_is_typed(tmp_path):
    done = mypy(
        "mypy",
        "--strict",
        "--warn-unused-ignores",
        "--cache-dir",
        tmp_path,
        "--config-file",
        "",
        HERE / "typing_sample.py",
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_mypy
@pytest.mark.time_limit(300)
def test_the_stub_is_the_module(tmp_path):
    allowed = HERE / "stubtest_allowlist.txt"
    done = mypy("mypy.stubtest", "shmcomm._core", "--allowlist", allowed, "--ignore-unused-allowlist", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
