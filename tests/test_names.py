"""Names, namespaces, directories, modes; creating, attaching, opening, unlinking; who removes a name and when."""

import errno
import marshal
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import PATIENCE_S, Peer, path_of, run_python, until

from shmcomm import LayoutError, RingBufferChannel, SharedMemoryBuffer, _core

KINDS = {"ring": lambda **k: RingBufferChannel(4, **k), "buffer": lambda **k: SharedMemoryBuffer(100, **k)}
TYPES = {"ring": RingBufferChannel, "buffer": SharedMemoryBuffer}
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def kept():
    """The name of something persistent, which goes even if the test fails."""
    yield "persistent"
    path_of("persistent").unlink(missing_ok=True)


# ---- names ----


@pytest.mark.parametrize("name", ["a", "A-z.0_9", "x" * 200, ".", "..", "-", "0"])
def test_good_names(kind, name):
    with KINDS[kind](name=name) as made:
        assert made.name == name
        assert path_of(name).exists()
        with TYPES[kind].attach(name) as again:
            assert again.name == name
    assert not path_of(name).exists()


BAD = [
    "",
    "a/b",
    "/",
    "../x",
    "x" * 201,
    "x" * 300,
    "a b",
    "a\0b",
    "\udc80",
    "\ud800x",
    "\u00e9",
    "n\n",
    "a:b",
    "~a",
    "\uff21",
]


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_bad_names(kind, name):
    before = set(os.listdir("/dev/shm"))
    for make in (lambda: KINDS[kind](name=name), lambda: TYPES[kind].attach(name), lambda: TYPES[kind].open(name, 4)):
        with pytest.raises(ValueError, match="a name is 1 to 200 of the characters A-Z a-z 0-9 . _ -, not"):
            make()
    assert {n for n in set(os.listdir("/dev/shm")) - before if os.environ["SHMCOMM_NAMESPACE"] in n} == set()


@pytest.mark.parametrize("name", [3, b"name", 1.5, ["name"], Path("name")], ids=repr)
def test_names_of_the_wrong_type(kind, name):
    for make in (lambda: KINDS[kind](name=name), lambda: TYPES[kind].attach(name), lambda: TYPES[kind].open(name, 4)):
        with pytest.raises(TypeError, match="a name must be a str, not"):
            make()


def test_a_subclass_of_str_will_do():
    class Name(str):
        pass

    with RingBufferChannel(4, name=Name("named")) as channel:
        assert channel.name == "named"


def test_random_names_differ():
    channels = [RingBufferChannel(1) for _ in range(20)]
    assert len({channel.name for channel in channels}) == 20
    for channel in channels:
        channel.close()


# ---- where ----


def test_namespace(monkeypatch):
    namespace = os.environ["SHMCOMM_NAMESPACE"]
    with RingBufferChannel(4, name="same") as here:
        monkeypatch.setenv("SHMCOMM_NAMESPACE", namespace + "b")
        with pytest.raises(FileNotFoundError):
            RingBufferChannel.attach("same")
        with RingBufferChannel(4, name="same") as there:
            there.send("there")
            assert here.is_empty()
            assert path_of("same").name == f"shmcomm.{namespace}b+same"
            here.send("here")
            assert pickle.loads(pickle.dumps(here)).receive() == "here"  # goes where the original is
            here.send("here")
            monkeypatch.setenv("SHMCOMM_NAMESPACE", namespace)
            assert pickle.loads(pickle.dumps(there)).receive() == "there"
            with RingBufferChannel.attach("same") as again:
                assert again.receive() == "here"


def test_namespaces_do_not_overlap(monkeypatch):
    """A file belongs to one namespace and one name: dots mean nothing, and no namespace is none of the others."""
    base = os.environ["SHMCOMM_NAMESPACE"]
    pairs = [("", f"{base}.a.b"), (base, "a.b"), (f"{base}.a", "b"), (f"{base}.", "a.b"), (f"{base}.a.", "b")]
    made = []
    for i, (namespace, name) in enumerate(pairs):
        monkeypatch.setenv("SHMCOMM_NAMESPACE", namespace)
        made.append(RingBufferChannel(4, name=name))
        made[-1].send(i)
        assert path_of(name).exists()
    for i, (namespace, name) in enumerate(pairs):
        monkeypatch.setenv("SHMCOMM_NAMESPACE", namespace)
        with RingBufferChannel.attach(name) as same:
            made[i].close()
            assert same.receive() == i
        assert not path_of(name).exists()


def test_what_is_listed_swept_and_removed_is_of_the_namespace(monkeypatch, folder):
    monkeypatch.setenv("SHMCOMM_DIR", str(folder))
    pairs = [("", "x"), ("ns", "x"), ("ns", "y.x"), ("ns.y", "x"), ("n", "s.x")]
    for namespace, name in pairs:
        monkeypatch.setenv("SHMCOMM_NAMESPACE", namespace)
        run_python(KILLED.format(f"RingBufferChannel(4, name={name!r})"), check=False)
    # Each creation clears what the killed left, in all namespaces: only the last one is there.
    assert [path.name for path in folder.iterdir()] == ["shmcomm.n+s.x"]
    for namespace, name in pairs:
        monkeypatch.setenv("SHMCOMM_NAMESPACE", namespace)
        RingBufferChannel(4, name=name, persist=True).close()

    def listed():
        return {(row["namespace"], row["name"]) for row in _core.list_segments()}

    for namespace in ("ns", "ns.y", "n", "other"):
        monkeypatch.setenv("SHMCOMM_NAMESPACE", namespace)
        assert listed() == {pair for pair in pairs if pair[0] == namespace}
    monkeypatch.setenv("SHMCOMM_NAMESPACE", "")
    assert listed() == set(pairs)
    with pytest.raises(FileNotFoundError):
        _core.remove_segment("s.x")
    with pytest.raises(ValueError, match=re.escape("not 'n+s.x' ('+' is none of them)")):
        _core.remove_segment("n+s.x")
    _core.remove_segment("s.x", namespace="n")
    assert listed() == set(pairs[:-1])
    monkeypatch.setenv("SHMCOMM_NAMESPACE", "ns")
    _core.remove_segment("x")
    monkeypatch.setenv("SHMCOMM_NAMESPACE", "")
    assert listed() == {pairs[0], *pairs[2:4]}
    for namespace, name in listed():
        _core.remove_segment(name, namespace=namespace)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("namespace", ["ns", "ns.y", ""])
def test_garbage_is_collected_in_the_namespace(monkeypatch, folder, namespace):
    monkeypatch.setenv("SHMCOMM_DIR", str(folder))
    source = """
import os, signal
from shmcomm import *
kept = []
for namespace in ("", "ns", "ns.y"):
    os.environ["SHMCOMM_NAMESPACE"] = namespace
    kept.append(RingBufferChannel(4, name="x"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    run_python(source, check=False)
    monkeypatch.setenv("SHMCOMM_NAMESPACE", namespace)
    removed = _core.collect_garbage()
    if namespace:
        assert removed == ["x"]
        assert len(list(folder.iterdir())) == 2
        monkeypatch.setenv("SHMCOMM_NAMESPACE", "")
        removed = [f"{namespace}+x", *_core.collect_garbage()]
    assert sorted(removed) == ["ns+x", "ns.y+x", "x"]
    assert list(folder.iterdir()) == []


def test_the_standard_library_opens_what_is_in_a_namespace():
    with SharedMemoryBuffer(100, name="by-the-stdlib") as buffer:
        buffer.write(b"hello")
        source = """
import sys
from multiprocessing import resource_tracker, shared_memory
name, offset = sys.argv[1], int(sys.argv[2])
shm = shared_memory.SharedMemory(name)
print(bytes(shm.buf[offset : offset + 5]))
resource_tracker.unregister(shm._name, "shared_memory")
shm.close()
"""
        done = run_python(source, path_of(buffer).name, buffer.data_offset)
        assert (done.stdout, done.stderr) == ("b'hello'\n", "")
        assert path_of(buffer).exists()


def test_without_a_namespace(monkeypatch):
    name = os.environ["SHMCOMM_NAMESPACE"] + "-plain"
    monkeypatch.delenv("SHMCOMM_NAMESPACE")
    with RingBufferChannel(4, name=name):
        assert Path("/dev/shm", "shmcomm." + name).exists()
    monkeypatch.setenv("SHMCOMM_NAMESPACE", "")
    with RingBufferChannel(4, name=name):
        assert Path("/dev/shm", "shmcomm." + name).exists()


@pytest.mark.parametrize("namespace", ["a/b", "x" * 41, "a b", "\u00e9", "a+b", "+"])
def test_bad_namespace(monkeypatch, namespace):
    monkeypatch.setenv("SHMCOMM_NAMESPACE", namespace)
    with pytest.raises(ValueError, match="SHMCOMM_NAMESPACE is 0 to 40 of the characters"):
        RingBufferChannel(4)
    with pytest.raises(ValueError, match="SHMCOMM_NAMESPACE"):
        RingBufferChannel.attach("x")


def test_directory(kind, tmp_path):
    with KINDS[kind](name="elsewhere", directory=tmp_path) as made:
        assert path_of("elsewhere", tmp_path).exists()
        assert not path_of("elsewhere").exists()
        with pytest.raises(FileNotFoundError):
            TYPES[kind].attach("elsewhere")
        for spelling in (tmp_path, str(tmp_path), os.fsencode(tmp_path), tmp_path / "." / ".." / tmp_path.name):
            TYPES[kind].attach("elsewhere", directory=spelling).close()
            TYPES[kind].open("elsewhere", directory=spelling).close()
        with pickle.loads(pickle.dumps(made)) as same:
            assert same.name == "elsewhere"
        with Peer() as peer:
            assert peer("with_there.name", with_there=made) == "elsewhere"
            peer("with_there.close()")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("inner").mkdir()
    with RingBufferChannel(4, directory="inner") as channel:
        monkeypatch.chdir("/")
        with pickle.loads(pickle.dumps(channel)) as same:
            same.send(1)
        assert channel.receive() == 1
    assert list((tmp_path / "inner").iterdir()) == []


def test_shmcomm_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("SHMCOMM_DIR", str(tmp_path))
    with RingBufferChannel(4, name="moved") as channel:
        assert path_of("moved", tmp_path).exists()
        monkeypatch.delenv("SHMCOMM_DIR")
        with pickle.loads(pickle.dumps(channel)) as same:
            same.send(1)
        assert channel.receive() == 1


DIRECTORIES = {
    "missing": ("/no/such/place", FileNotFoundError, "(the directory for shared memory): '/no/such/place'"),
    "a file": (__file__, NotADirectoryError, f"'x' in {__file__}: Not a directory; choose another directory with dir"),
    "below a file": (__file__ + "/x", NotADirectoryError, f"(the directory for shared memory): '{__file__}/x'"),
    "no path": (5, TypeError, "directory must be a str, bytes or os.PathLike object, not int"),
    "a null byte": ("a\0b", ValueError, "null byte"),
    "empty": ("", FileNotFoundError, "(the directory for shared memory): ''"),
}


@pytest.mark.parametrize(("directory", "error", "words"), DIRECTORIES.values(), ids=DIRECTORIES)
def test_bad_directories(kind, directory, error, words):
    for call in (
        lambda: KINDS[kind](name="x", directory=directory),
        lambda: TYPES[kind].attach("x", directory=directory),
        lambda: TYPES[kind].open("x", 4, directory=directory),
    ):
        with pytest.raises(error, match=re.escape(words)):
            call()


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("relative", ValueError, "SHMCOMM_DIR must be an absolute path, not 'relative'"),
        (".", ValueError, "SHMCOMM_DIR must be an absolute path, not '.'"),
        (
            "/no/such/place",
            FileNotFoundError,
            "No such file or directory (the directory for shared memory, from SHMCOMM_DIR): '/no/such/place'",
        ),
        (__file__, NotADirectoryError, f"{__file__}: Not a directory; choose another directory with directory= or"),
    ],
)
def test_a_bad_shmcomm_dir(kind, monkeypatch, tmp_path, value, error, words):
    monkeypatch.setenv("SHMCOMM_DIR", value)
    for call in (lambda: KINDS[kind](), lambda: TYPES[kind].attach("x"), lambda: TYPES[kind].open("x", 4)):
        with pytest.raises(error, match=re.escape(words)):
            call()
    with pytest.raises((error, OSError), match="SHMCOMM_DIR|directory"):
        _core.list_segments()
    with KINDS[kind](directory=tmp_path):  # what is said in the program comes first
        pass
    monkeypatch.setenv("SHMCOMM_DIR", "")
    with KINDS[kind]() as made:
        assert path_of(made, "/dev/shm").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write there")
def test_a_directory_without_permission(folder):
    source = """
import os, sys, shmcomm, shmcomm._stats
os.setgid(65534); os.setuid(65534)
for call in (
    lambda: shmcomm.RingBufferChannel(4, name="x", directory=sys.argv[1]),
    lambda: shmcomm.SharedMemoryBuffer.open("x", 4, directory=sys.argv[1]),
    lambda: shmcomm.RingBufferChannel.attach("x", directory=sys.argv[1]),
):
    try:
        call()
    except (PermissionError, FileNotFoundError) as error:
        print(error)
"""
    folder.chmod(0o755)
    create, open_, attach = run_python(source, folder).stdout.splitlines()
    words = f"'x' in {folder}: Permission denied; choose another directory with directory= or SHMCOMM_DIR"
    assert create == f"[Errno 13] cannot create RingBufferChannel {words}"
    assert open_ == f"[Errno 13] cannot create SharedMemoryBuffer {words}"
    assert "there is no RingBufferChannel named 'x'" in attach
    folder.chmod(0o700)
    assert [line.partition(": ")[2] for line in run_python(source, folder).stdout.splitlines()] == [
        "Permission denied; choose another directory with directory= or SHMCOMM_DIR"
    ] * 3
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o666, 0o777])
def test_mode(kind, mode):
    umask = os.umask(0o077)
    try:
        with KINDS[kind](mode=mode) as made:
            assert path_of(made).stat().st_mode & 0o7777 == mode
    finally:
        os.umask(umask)


TWO_USERS = """
import os, signal, sys
import shmcomm, shmcomm._stats
from shmcomm import *
mode, groups, shares = int(sys.argv[1], 8), (int(sys.argv[2]), int(sys.argv[3])), sys.argv[4] == "True"
folder = os.environ["SHMCOMM_DIR"]
to_other, to_owner = os.pipe(), os.pipe()

def become(user, group):
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)

def say(pipe): os.write(pipe[1], b"x")
def hear(pipe): assert os.read(pipe[0], 1)

def refused(call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except OSError as error:
        print(type(error).__name__, error, flush=True)

def owner():
    channel = RingBufferChannel(4, name="shared", mode=mode)
    say(to_other)
    hear(to_owner)
    if shares:
        assert channel.receive() == "from the other"
        assert len([p for p in channel.stats().participants if p.alive]) == 2
    channel.close()
    say(to_other)
    hear(to_owner)
    RingBufferChannel(4).close()  # clears what the other one could not
    assert os.listdir(folder) == []

def other():
    hear(to_other)
    refused(RingBufferChannel.attach, "shared")
    refused(RingBufferChannel.open, "shared")
    refused(RingBufferChannel.attach, "shared", foreign=True)
    if shares:
        channel = RingBufferChannel.attach("shared", foreign=True)
        channel.send("from the other")
        refused(channel.unlink)
    say(to_owner)
    hear(to_other)
    if shares:
        assert len(os.listdir(folder)) == 1
        channel.close()
        assert len(os.listdir(folder)) == 1  # nobody but its owner can remove it
    say(to_owner)

if os.fork() == 0:
    become(54321, groups[0])
    owner()
else:
    become(54322, groups[1])
    other()
    pid, status = os.wait()
    sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two other users")
@pytest.mark.parametrize(("mode", "other_group"), [(0o660, 54321), (0o660, 54322), (0o600, 54321)])
def test_two_users(folder, mode, other_group):
    groups = (54321, other_group)
    folder.chmod(0o1777)
    shares = mode == 0o660 and groups[0] == groups[1]
    done = run_python(TWO_USERS, f"{mode:o}", *groups, shares, env={"SHMCOMM_DIR": str(folder)})
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    place = f"PermissionError [Errno 13] 'shared' in {folder} belongs to another user (uid 54321)"
    if shares:
        assert lines[:2] == [f"{place}; pass foreign=True to RingBufferChannel.attach() to trust it"] * 2
        words = f"cannot unlink RingBufferChannel 'shared': only its owner may remove its name from {folder}"
        assert lines[2:] == [f"PermissionError [Errno 1] {words}"]
    else:
        keeps = f"{place}, and its mode 0o{mode:o} keeps this process out: it has to be created with mode=0o660 by a "
        assert lines == [f"{keeps}process of a common group, or with mode=0o666"] * 3


def test_mode_by_default(kind):
    with KINDS[kind]() as made:
        assert path_of(made).stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("mode", [0, 0o400, 0o200, 0o077, -1, 0o10600, 2**70])
def test_bad_modes(kind, mode):
    with pytest.raises(ValueError, match="mode must") as caught:
        KINDS[kind](mode=mode)
    assert "%" not in str(caught.value)


def test_the_words_for_a_bad_mode(kind):
    with pytest.raises(ValueError, match=r"mode must let its owner read and write \(0o600\), and 0o077 does not"):
        KINDS[kind](mode=0o77)


def test_max_participants():
    with RingBufferChannel(4, max_participants=2) as channel, Peer() as first, Peer() as second:
        first("x = RingBufferChannel.attach(name)", name=channel.name)
        RingBufferChannel.attach(channel.name).close()  # this process is counted once
        with pytest.raises(
            OSError, match="all participant slots .* are taken by living processes.*max_participants"
        ) as caught:
            second("x = RingBufferChannel.attach(name)", name=channel.name)
        assert caught.value.errno == errno.EUSERS
        first.kill()
        second("x = RingBufferChannel.attach(name)", name=channel.name)
        second("x.close()")


# ---- create, attach, open ----


def test_a_taken_name(kind):
    with KINDS[kind](name="taken"):
        with pytest.raises(
            FileExistsError, match="attach to it .*, choose another name, or, if nobody needs it, remove it"
        ) as caught:
            KINDS[kind](name="taken")
        assert caught.value.errno == errno.EEXIST
        with pytest.raises(FileExistsError):
            RingBufferChannel(9, name="taken")
        with Peer() as peer, pytest.raises(FileExistsError):
            peer("RingBufferChannel(4, name='taken')")
        with pytest.raises(FileExistsError):
            KINDS[kind](name="taken", persist=True)
    KINDS[kind](name="taken").close()


def test_attach_to_nothing(kind):
    with pytest.raises(
        FileNotFoundError,
        match="no .* named 'nothing' in /dev/shm: create it first.* the last one that had it open has closed it$",
    ) as caught:
        TYPES[kind].attach("nothing")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(FileNotFoundError, match="named 'nothing' in /dev/shm: nobody has created it in time"):
        TYPES[kind].attach("nothing", timeout=0.01)


def test_attach_waits_for_creation(kind):
    made = []
    timer = threading.Timer(0.05, lambda: made.append(KINDS[kind](name="later")))
    timer.start()
    with TYPES[kind].attach("later", timeout=None) as attached:
        assert attached.name == "later"
    timer.join()
    made[0].close()


def test_attach_waits_for_another_process():
    with Peer() as peer:
        peer.begin("x = RingBufferChannel.attach('by-the-other', timeout=20)")
        with RingBufferChannel(4, name="by-the-other") as channel:
            peer.result()
            channel.send(1)
            assert peer("x.receive()") == 1
            peer("x.close()")


def test_attach_to_another_kind():
    with RingBufferChannel(4, name="is-a-ring"), SharedMemoryBuffer(10, name="is-a-buffer"):
        for call in (SharedMemoryBuffer.attach, SharedMemoryBuffer.open):
            with pytest.raises(LayoutError, match="cannot attach to SharedMemoryBuffer 'is-a-ring'.*another kind"):
                call("is-a-ring")
        for call in (RingBufferChannel.attach, lambda name: RingBufferChannel.open(name, 4)):
            with pytest.raises(LayoutError, match="another kind"):
                call("is-a-buffer")
        with Peer() as peer, pytest.raises(LayoutError, match="another kind"):
            peer("RingBufferChannel.attach('is-a-buffer')")


def test_open():
    with RingBufferChannel.open("opened", 10, buffer_size=5000) as made, RingBufferChannel.open("opened") as same:
        assert (same.capacity, same.buffer_size) == (10, 8192)
        made.send(1)
        assert same.receive() == 1
        RingBufferChannel.open("opened", 10).close()
        RingBufferChannel.open("opened", capacity=None, buffer_size=8192).close()
        RingBufferChannel.open("opened", 10, buffer_size=4097).close()
        with pytest.raises(LayoutError, match="exists with capacity 10, not 11"):
            RingBufferChannel.open("opened", 11)
        with pytest.raises(LayoutError, match="exists with buffer_size 8192, not 16384"):
            RingBufferChannel.open("opened", 10, buffer_size=16384)
        with Peer() as peer, pytest.raises(LayoutError, match="capacity"):
            peer("RingBufferChannel.open('opened', 11)")
        made.send(2)
        assert same.receive() == 2
    with pytest.raises(ValueError, match="there is no channel named 'opened', and creating it needs a capacity"):
        RingBufferChannel.open("opened")
    with pytest.raises(ValueError, match="capacity"):
        RingBufferChannel.open("opened", 0)


# option, what the creator chose, what open() may say, what it may not say, and how the error shows both
CONFLICTS = [
    ("mode", {"mode": 0o640}, {"mode": 0o640}, {"mode": 0o600}, "mode 0o640, not 0o600"),
    ("mode", {}, {"mode": 0o600}, {"mode": 0o660}, "mode 0o600, not 0o660"),
    ("persist", {"persist": True}, {"persist": True}, {"persist": False}, "persist True, not False"),
    ("persist", {}, {"persist": False}, {"persist": True}, "persist False, not True"),
    (
        "max_participants", {"max_participants": 3}, {"max_participants": 3}, {"max_participants": 128},
        "max_participants 3, not 128"
    ),
    ("max_participants", {}, {"max_participants": 128}, {"max_participants": 5}, "max_participants 128, not 5"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "made", "same", "other", "words"), CONFLICTS)
def test_open_with_another_configuration(kind, kept, option, made, same, other, words):
    with KINDS[kind](name=kept, **made) as first:
        try:
            for keywords in ({}, same):
                with TYPES[kind].open(kept, **keywords) as again:
                    assert again.name == kept
            advice = f"exists with {words}; to take it as it is, leave {option}= out or use attach()"
            with pytest.raises(LayoutError, match=f"<{TYPES[kind].__name__} {kept!r}.*> {re.escape(advice)}"):
                TYPES[kind].open(kept, **other)
            with Peer() as peer:
                with pytest.raises(LayoutError, match=re.escape(advice)):
                    peer("kind.open(name, **other)", kind=TYPES[kind], name=kept, other=other)
                assert peer("kind.open(name).name", kind=TYPES[kind], name=kept) == kept
            assert [p.pid for p in first.stats().participants] == [os.getpid()]
            TYPES[kind].attach(kept).close()
        finally:
            first.unlink()


def test_open_compares_the_mode_that_the_file_has_now(kind):
    with KINDS[kind](name="changed") as made:
        path_of(made).chmod(0o660)
        TYPES[kind].open("changed", mode=0o660).close()
        with pytest.raises(LayoutError, match="exists with mode 0o660, not 0o600"):
            TYPES[kind].open("changed", mode=0o600)


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"mode": 0o77}, ValueError),
        ({"mode": "600"}, TypeError),
        ({"max_participants": 0}, ValueError),
        ({"max_participants": None}, TypeError),
    ],
    ids=str,
)
def test_open_refuses_bad_values_of_something_that_exists(kind, keywords, error):
    with KINDS[kind](name="there"):
        with pytest.raises(error, match=next(iter(keywords))):
            TYPES[kind].open("there", **keywords)
        TYPES[kind].open("there").close()


CODECS = {"auto": "auto", "native": "native", "pickle": "pickle", "raw": "raw", "a module": pickle, "another": marshal}


@pytest.mark.parametrize("there", CODECS)
@pytest.mark.parametrize("asked", CODECS)
def test_open_with_another_codec(there, asked):
    """Of two codecs that are objects nobody can say whether they are the same."""
    chosen = CODECS[asked]
    with RingBufferChannel(4, name="coded", codec=CODECS[there]) as channel:
        if there == asked or not (isinstance(chosen, str) or isinstance(CODECS[there], str)):
            RingBufferChannel.open("coded", codec=chosen).close()
        else:
            is_, not_ = (
                repr(codec) if isinstance(codec, str) else "an object with dumps and loads"
                for codec in (CODECS[there], chosen)
            )
            with pytest.raises(LayoutError, match=re.escape(f"exists with codec {is_}, not {not_}; to take it as")):
                RingBufferChannel.open("coded", codec=chosen)
        with RingBufferChannel.attach("coded", codec=chosen) as attached:  # whoever knows what he does
            assert attached.capacity == 4
        assert channel.is_empty()


def test_open_creates_what_it_was_told(kind, kept):
    keywords = {"mode": 0o640, "persist": True, "max_participants": 5}
    with TYPES[kind].open(kept, 100, **keywords) as made:
        assert path_of(kept).stat().st_mode & 0o777 == 0o640
    assert path_of(kept).exists()
    with TYPES[kind].open(kept, 100, **keywords) as made:
        made.unlink()


def test_open_of_a_buffer_with_other_options():
    with SharedMemoryBuffer(100, name="summed", checksum=True, flags=7) as made:
        SharedMemoryBuffer.open("summed", 100, checksum=True).close()
        with pytest.raises(LayoutError, match="exists with checksum True, not False; to take it as it is"):
            SharedMemoryBuffer.open("summed", checksum=False)
        with pytest.raises(LayoutError, match="exists with size 100, not 101; to take it as it is"):
            SharedMemoryBuffer.open("summed", 101)
        with SharedMemoryBuffer.open("summed", flags=1) as same:  # what the head begins with, if it is made
            assert same.header.flags == 7
        assert made.validate_header()


def test_codec_of_the_creator_is_adopted():
    with RingBufferChannel(4, name="raw", codec="raw") as channel:
        for make in (RingBufferChannel.attach, RingBufferChannel.open):
            for keywords in ({}, {"codec": None}):
                with make("raw", **keywords) as other, pytest.raises(TypeError):
                    other.send([1])
        with RingBufferChannel.attach("raw", codec="native") as other:
            other.send(1)
        channel.clear()


RACE = """
import sys
from shmcomm import RingBufferChannel
sys.stdin.readline()
results = []
for i in range(30):
    name = f"{sys.argv[1]}-{i}"
    try:
        channel = RingBufferChannel(8, name=name) if sys.argv[2] == "create" else RingBufferChannel.open(name, 8)
        results.append("made")
    except FileExistsError:
        results.append("exists")
        channel = RingBufferChannel.attach(name, timeout=20)
    globals()[f"kept{i}"] = channel
print(*results, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["create", "open"])
def test_races_of_eight(how):
    """Exactly one creates; all see the same object; the last one out removes it."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, f"race-{how}", how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    try:
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        lines = [racer.stdout.readline().split() for racer in racers]
        assert [len(line) for line in lines] == [30] * 8
        if how == "create":
            assert all(sorted(column) == ["exists"] * 7 + ["made"] for column in zip(*lines, strict=True))
        with RingBufferChannel.attach(f"race-{how}-7") as channel:
            assert len(channel.stats().participants) == 9
    finally:
        for racer in racers:
            racer.communicate("\n", timeout=PATIENCE_S)
    assert [racer.returncode for racer in racers] == [0] * 8
    assert not [p for p in Path("/dev/shm").glob("*race-*") if os.environ["SHMCOMM_NAMESPACE"] in p.name]


CHURN = """
import sys, os
from shmcomm import *
for i in range(150):
    try:
        with RingBufferChannel.open("churn", 4) as channel:
            if i % 7 == 0:
                channel.unlink()
    except FileNotFoundError:
        pass
    try:
        with RingBufferChannel(4, name="churn"):
            pass
    except FileExistsError:
        pass
    try:
        RingBufferChannel.attach("churn").close()
    except FileNotFoundError:
        pass
"""


def test_create_attach_open_unlink_in_a_mess():
    """Only the documented exceptions, and nothing is left."""
    racers = [subprocess.Popen([sys.executable, "-c", CHURN], stderr=subprocess.PIPE, text=True) for _ in range(6)]
    errors = [racer.communicate(timeout=PATIENCE_S)[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 6, errors
    assert not path_of("churn").exists()


# ---- unlink, persist, the last one out ----


def test_unlink(kind):
    made = KINDS[kind](name="unlinked")
    other = TYPES[kind].attach("unlinked")
    assert made.unlink() is None
    assert not path_of("unlinked").exists()
    with pytest.raises(FileNotFoundError):
        TYPES[kind].attach("unlinked")
    for again in (made, other):
        with pytest.raises(FileNotFoundError, match="cannot unlink"):
            again.unlink()
    with KINDS[kind](name="unlinked") as new:
        assert new.stats().participants
        assert pickle.dumps(made)
        made.close()
        other.close()
        assert path_of("unlinked").exists()  # the name is the new one's


def test_whoever_has_it_goes_on_after_unlink():
    with RingBufferChannel(4) as channel, Peer() as peer:
        peer("x = RingBufferChannel.attach(name)", name=channel.name)
        channel.unlink()
        channel.send(1)
        assert peer("x.receive()") == 1
        with pytest.raises(FileNotFoundError):
            peer("x.unlink()")


def test_pickle_of_something_unlinked():
    with RingBufferChannel(4) as channel:
        text = pickle.dumps(channel)
        channel.unlink()
        with pytest.raises(FileNotFoundError, match="there is no RingBufferChannel named"):
            pickle.loads(text)


def test_the_last_one_out_removes(kind):
    made = KINDS[kind](name="last")
    with Peer() as peer:
        peer("x = kind.attach('last')", kind=TYPES[kind])
        made.close()
        assert path_of("last").exists()
        again = TYPES[kind].attach("last")
        peer("x.close()")
        assert path_of("last").exists()
        again.close()
        assert not path_of("last").exists()


def test_the_last_one_out_by_ending(kind):
    made = KINDS[kind](name="ended")
    with Peer() as peer:
        peer("x = kind.attach('ended')", kind=TYPES[kind])
        made.close()
        assert path_of("ended").exists()
    assert not path_of("ended").exists()


def test_garbage_collection_is_close(kind):
    made = KINDS[kind](name="dropped")
    assert path_of("dropped").exists()
    del made
    assert not path_of("dropped").exists()


def test_persist(kind, kept):
    with KINDS[kind](name=kept, persist=True) as made:
        text = pickle.dumps(made)
    assert path_of(kept).exists()
    with pickle.loads(text) as again:
        assert again.name == kept
    with Peer() as peer:
        peer("x = kind.attach('persistent')", kind=TYPES[kind])
        peer.kill()
    TYPES[kind].attach(kept).close()
    with pytest.raises(FileExistsError):
        KINDS[kind](name=kept)
    with TYPES[kind].attach(kept) as again:
        again.unlink()
    assert not path_of(kept).exists()


def test_persistent_content_stays(kept):
    with RingBufferChannel(4, name=kept, persist=True) as channel:
        channel.send_batch([1, [2]])
    with RingBufferChannel.attach(kept) as channel:
        assert channel.receive_batch(9) == [1, [2]]
        channel.unlink()


KILLED = "import os, signal\nfrom shmcomm import *\nx = {}\nos.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize("how", ["create", "attach", "open", "another create", "list", "collect"])
def test_what_the_killed_left_is_cleared(how, folder, monkeypatch):
    monkeypatch.setenv("SHMCOMM_DIR", str(folder))  # where no other program clears it away first
    done = run_python(KILLED.format("RingBufferChannel(4, name='orphan')"), check=False)
    assert done.returncode == -9, done.stderr
    assert path_of("orphan").exists()
    if how == "create":
        RingBufferChannel(9, name="orphan").close()
    elif how == "attach":
        with pytest.raises(FileNotFoundError):
            RingBufferChannel.attach("orphan")
    elif how == "open":
        with RingBufferChannel.open("orphan", 9) as channel:
            assert channel.capacity == 9
    elif how == "another create":
        until(lambda: (RingBufferChannel(4).close(), not path_of("orphan").exists())[1])
    elif how == "list":
        assert [row["state"] for row in _core.list_segments() if row["name"] == "orphan"] in ([], ["dead"])
        _core.collect_garbage()
    else:
        assert "orphan" in _core.collect_garbage()
    assert not path_of("orphan").exists()


def test_the_living_keep_what_a_killed_creator_made():
    with Peer() as peer:
        peer("x = RingBufferChannel(4, name='survivor'); x.send(5)")
        with RingBufferChannel.attach("survivor") as channel:
            peer.kill()
            assert "survivor" not in _core.collect_garbage()
            RingBufferChannel(4).close()
            assert channel.receive() == 5
            with pytest.raises(FileExistsError):
                RingBufferChannel(4, name="survivor")
    assert not path_of("survivor").exists()


# ---- what the command line uses ----


def test_list_segments():
    with (
        RingBufferChannel(4, name="listed-1") as channel,
        SharedMemoryBuffer(10, name="listed-2", mode=0o640, persist=True) as buffer,
    ):
        rows = {row["name"]: row for row in _core.list_segments()}
        ring, kept = rows["listed-1"], rows["listed-2"]
        assert (ring["kind"], ring["state"], ring["persist"], ring["error"]) == ("ring", "live", False, None)
        assert (kept["kind"], kept["persist"], kept["mode"], kept["uid"]) == ("buffer", True, 0o640, os.getuid())
        assert ring["participants"][0]["pid"] == os.getpid()
        assert ring["size"] == path_of(channel).stat().st_size
        channel.unlink()
        buffer.unlink()
    assert not {"listed-1", "listed-2"} & {row["name"] for row in _core.list_segments()}


def test_remove_segment():
    with pytest.raises(FileNotFoundError, match="cannot remove 'gone'"):
        _core.remove_segment("gone")
    with RingBufferChannel(4, name="used") as channel:
        from shmcomm import BusyError

        with pytest.raises(BusyError):
            _core.remove_segment("used")
        _core.remove_segment("used", force=True)
        assert not path_of("used").exists()
        channel.send(1)
        assert channel.receive() == 1
    RingBufferChannel(4, name="idle", persist=True).close()
    assert [row["state"] for row in _core.list_segments() if row["name"] == "idle"] == ["idle"]
    assert "idle" not in _core.collect_garbage()
    _core.remove_segment("idle")
    assert not path_of("idle").exists()
