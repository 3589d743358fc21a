"""The command line: ls, rm, gc, --version and usage; the demo has a file of its own."""

import io
import json
import mmap
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from helpers import Peer, path_of

from shmcomm import BufferPool, MemoryPool, ObjectPool, RingBufferChannel, SharedMemoryBuffer, _core
from shmcomm._cli import _progress, _table, main

LEAVES_A_SEGMENT = """
import os, signal, sys
from shmcomm import SharedMemoryBuffer
buffer = SharedMemoryBuffer(4096, name=sys.argv[1])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def own_directory(monkeypatch):
    """A place where nobody else lists, creates and clears away; it has to be empty in the end."""
    directory = tempfile.mkdtemp(dir="/dev/shm", prefix="shmcomm-test.")
    monkeypatch.setenv("SHMCOMM_DIR", directory)
    yield directory
    os.rmdir(directory)


def shmcomm(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "shmcomm", *arguments], check=False, capture_output=True, text=True, timeout=60
    )


def listed(capsys):
    assert main(["ls", "--json"]) == 0
    return {segment["name"]: segment for segment in json.loads(capsys.readouterr().out)}


def kill_an_owner(name):
    victim = subprocess.run([sys.executable, "-c", LEAVES_A_SEGMENT, name], check=False, timeout=60)
    assert victim.returncode == -9


def test_ls_says_so_when_there_is_nothing(capsys):
    assert main(["ls"]) == 0
    assert capsys.readouterr().out == "no segments\n"


def test_ls_lists_every_kind_with_its_participants(capsys):
    with RingBufferChannel(8, name="a-ring"), SharedMemoryBuffer(4096, name="a-buffer", persist=True) as buffer:
        found = listed(capsys)
        main(["ls"])
        table = capsys.readouterr().out.splitlines()
        buffer.unlink()
    assert set(found) == {"a-ring", "a-buffer"}
    assert (found["a-ring"]["kind"], found["a-buffer"]["kind"]) == ("ring", "buffer")
    assert (found["a-ring"]["persist"], found["a-buffer"]["persist"]) == (False, True)
    assert found["a-ring"]["state"] == "live"
    assert [(one["pid"], one["alive"]) for one in found["a-ring"]["participants"]] == [(os.getpid(), True)]
    assert found["a-buffer"]["size"] >= 4096
    assert table[0].split() == ["NAME", "KIND", "MEMORY", "STATE", "AGE", "PROCESSES"]
    assert [line.split()[0] for line in table[1:]] == ["a-buffer", "a-ring"]
    assert "live, persistent" in table[1]
    assert str(os.getpid()) in table[2]


def test_ls_works_as_a_process_of_its_own():
    with RingBufferChannel(8, name="seen-from-outside"):
        done = shmcomm("ls", "--json")
    assert done.returncode == 0, done.stderr
    assert [segment["name"] for segment in json.loads(done.stdout)] == ["seen-from-outside"]


def test_ls_survives_a_reader_that_leaves():
    with RingBufferChannel(8, name="unread"):
        command = f"{sys.executable} -m shmcomm ls | true"
        done = subprocess.run(command, shell=True, check=False, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


def test_ls_of_a_missing_directory_fails_in_words(capsys, tmp_path):
    assert main(["ls", "--directory", str(tmp_path / "nowhere")]) == 1
    expected = f"shmcomm ls: {tmp_path}/nowhere: No such file or directory (the directory for shared memory)\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("SHMCOMM_DIR", "relative", "SHMCOMM_DIR must be an absolute path, not 'relative'"),
        (
            "SHMCOMM_DIR", "/no/such/place",
            "/no/such/place: No such file or directory (the directory for shared memory, from SHMCOMM_DIR)",
        ),
        ("SHMCOMM_DIR", __file__, f"{__file__}: Not a directory"),
        (
            "SHMCOMM_NAMESPACE", "a/b",
            "SHMCOMM_NAMESPACE is 0 to 40 of the characters A-Z a-z 0-9 . _ -, not 'a/b' ('/' is none of them)",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [["ls"], ["gc"], ["fsck"], ["rm", "x"]], ids=lambda words: words[0])
def test_a_bad_environment_is_told_in_words(capsys, monkeypatch, command, variable, value, words):
    monkeypatch.setenv(variable, value)
    assert main(command) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"shmcomm {command[0]}: ")
    assert words in said.err


def test_stat_shows_figures_and_who_holds_what(capsys):
    with RingBufferChannel(8, name="seen") as channel:
        channel.send_batch([b"x" * 1000] * 3)
        channel.receive()
        assert main(["stat", "seen"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r"RingBufferChannel seen, [\d.]+ KiB", lines[0])
        figures = dict(re.split(r"\s{2,}", line.strip()) for line in lines[1 : lines.index("")])
        assert figures["sent"] == "3"
        assert figures["received"] == "1"
        assert figures["bytes used"] == "1.97 KiB"
        assert figures["is shutdown"] == "no"
        assert lines[-2:] == ["  participants", "  none"]  # but this process
        with Peer() as peer:
            peer("channel = RingBufferChannel.attach('seen')")
            assert main(["stat", "seen"]) == 0
            rows = [line.split() for line in capsys.readouterr().out.splitlines()]
            assert [str(peer.pid), "0", "s", "ago", "yes", "-"] in rows


def test_stat_as_json_is_stats_as_a_dict(capsys):
    with RingBufferChannel(8, name="seen") as channel, Peer() as peer:
        peer("RingBufferChannel.attach('seen').send(1)")
        assert main(["stat", "--json", "seen"]) == 0
        told = json.loads(capsys.readouterr().out)
        expected = channel.stats().asdict()
        assert told["kind"] == "RingBufferChannel"
        assert {key: told[key] for key in expected if key != "participants"} == {
            key: value for key, value in expected.items() if key != "participants"
        }
    with SharedMemoryBuffer(100, name="plain") as buffer:
        buffer.write(b"abc")
        assert main(["stat", "--json", "plain"]) == 0
        assert json.loads(capsys.readouterr().out)["bytes_used"] == 3


def test_stat_can_open_every_kind():
    from shmcomm._cli.stat import CLASSES

    kinds = Path(__file__).resolve().parent.parent / "csrc" / "seg" / "shc_kinds.def"
    assert set(CLASSES) == set(re.findall(r"^SHC_KIND\(\d+, \w+, (\w+)\)", kinds.read_text(), re.MULTILINE))


def test_stat_of_a_pool_of_objects(capsys):
    with ObjectPool(bytearray, name="workers", max_size=3) as pool, pool.borrow():
        assert main(["stat", "--json", "workers"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["kind"], told["size"], told["available"]) == ("ObjectPool", pool.size, 2)


def test_stat_of_pools_of_memory(capsys):
    with MemoryPool(name="heap", cleanup_interval=None), BufferPool(5, name="shelf") as buffers:
        with Peer() as peer:
            peer("pool = MemoryPool.attach('heap'); kept = pool.allocate(1000)")
            assert main(["stat", "heap"]) == 0
        told = capsys.readouterr().out
        assert told.startswith("MemoryPool heap, ")
        for words in ("fragmentation", "BLOCK SIZE", "CACHED", "1,024", "1 of its own, 1024 bytes"):
            assert words in told
        buffers.return_buffer(buffers.get_buffer(64))
        assert main(["stat", "--json", "shelf"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["kind"], told["shelved"], told["size_classes"][0]["block_size"]) == ("BufferPool", 1, 64)


def test_stat_takes_a_name_as_ls_shows_it(capsys, monkeypatch):
    with RingBufferChannel(8, name="seen") as channel:
        namespace = os.environ["SHMCOMM_NAMESPACE"]
        monkeypatch.setenv("SHMCOMM_NAMESPACE", "")
        assert main(["stat", f"{namespace}+{channel.name}"]) == 0
        assert f"{namespace}+seen" in capsys.readouterr().out


def test_stat_of_what_is_not_there_or_cannot_be_read(capsys, own_directory):
    assert main(["stat", "nothing"]) == 1
    assert capsys.readouterr().err == (
        "shmcomm stat: there is no segment named nothing; `shmcomm ls` shows what there is\n"
    )
    junk = path_of("junk", own_directory)
    junk.write_bytes(b"no segment of ours")
    assert main(["stat", "junk"]) == 1
    assert capsys.readouterr().err.startswith("shmcomm stat: junk: ")
    junk.unlink()


def test_rm_removes_what_nobody_uses(capsys):
    SharedMemoryBuffer(4096, name="kept", persist=True).close()
    assert main(["rm", "kept"]) == 0
    assert listed(capsys) == {}


def test_rm_refuses_what_is_in_use_unless_forced(capsys):
    with SharedMemoryBuffer(4096, name="busy") as buffer:
        assert main(["rm", "busy"]) == 1
        assert "'busy'" in (said := capsys.readouterr().err)
        assert said.endswith(f"it is in use by process {os.getpid()}; --force removes it anyway\n")
        assert set(listed(capsys)) == {"busy"}
        assert main(["rm", "--force", "busy"]) == 0
        assert listed(capsys) == {}
        assert buffer.write(b"still mine") == 10


def test_rm_goes_on_after_a_failure(capsys):
    SharedMemoryBuffer(4096, name="kept", persist=True).close()
    assert main(["rm", "--json", "missing", "no/name", "kept"]) == 1
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["removed"] == ["kept"]
    assert [failure["name"] for failure in report["failed"]] == ["missing", "no/name"]
    assert "shmcomm rm: cannot remove 'missing'" in said.err
    assert "'no/name'" in said.err
    assert listed(capsys) == {}


def test_ls_and_gc_know_what_dead_processes_left(capsys):
    with SharedMemoryBuffer(4096, name="mine"):
        kill_an_owner("orphan")
        found = listed(capsys)
        assert {name: segment["state"] for name, segment in found.items()} == {"mine": "live", "orphan": "dead"}
        assert [one["alive"] for one in found["orphan"]["participants"]] == [False]
        main(["ls"])
        assert " (dead)\n" in capsys.readouterr().out
        assert main(["gc", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"removed": ["orphan"]}
        assert set(listed(capsys)) == {"mine"}
        assert main(["gc"]) == 0
        assert capsys.readouterr().out == "0 segments removed\n"


# ---- what is there besides ----


def sound_segment():
    """The bytes of a persistent buffer that nobody has open."""
    SharedMemoryBuffer(5000, name="sound", persist=True).close()
    content = bytearray(path_of("sound").read_bytes())
    path_of("sound").unlink()
    return content


def changed(at, value):
    content = sound_segment()
    content[at] ^= value
    return content


# what has a name -> its state, what ls says of it, whether rm takes it without --force, whether gc does
STRANGE = {
    "empty": (lambda: b"", "empty", "the file is not a shmcomm segment", False, False),
    "short": (lambda: b"SHMCOMM1" * 60, "short", "the file is not a shmcomm segment", False, False),
    "random": (lambda: os.urandom(70000), "alien", "the file is not a shmcomm segment", False, False),
    "version": (lambda: changed(8, 0x40), "version", "the segment has another format version", False, False),
    "layout": (lambda: changed(16, 1), "layout", "made by a build with another memory layout", True, False),
    "kind": (lambda: changed(12, 0x40), "layout", "a kind of object that this version does not know", True, False),
    "pidns": (lambda: changed(72, 1), "pidns", "is used from another PID namespace", False, False),
    "truncated": (lambda: sound_segment()[:4500], "corrupt", "a value that no correct process writes", False, False),
    "longer": (lambda: sound_segment() + b"x", "corrupt", "a value that no correct process writes", False, False),
    "forged life": (lambda: changed(256, 3), "removed", "-", True, True),
    "idle": (sound_segment, "idle", "-", True, False),
}


@pytest.fixture(params=STRANGE)
def strange(request, own_directory):
    """A file named `strange`: its path and what is to be said of it."""
    make, *facts = STRANGE[request.param]
    content = make()
    if request.param == "pidns" and not any(sound_segment()[72:80]):
        pytest.skip("this build knows no PID namespaces")
    path = path_of("strange")
    path.write_bytes(content)
    path.chmod(0o600)
    yield path, *facts
    path.unlink(missing_ok=True)


def test_ls_tells_what_is_wrong_with_a_file(capsys, strange):
    path, state, words, *_ = strange
    (row,) = listed(capsys).values()
    assert (row["name"], row["state"], row["uid"]) == ("strange", state, os.getuid())
    assert row["size"] == path.stat().st_size
    assert (row["error"] is None) == (words == "-")
    assert main(["ls"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split()[0] == "strange"
    assert f" {state}" in line
    assert line.endswith(words) or words in line


def test_rm_takes_what_it_can_and_says_what_force_would(capsys, strange):
    path, _, words, removable, _ = strange
    assert main(["rm", "strange"]) == (not removable)
    said = capsys.readouterr()
    if removable:
        assert (said.out, said.err, path.exists()) == ("", "", False)
        return
    assert said.err.startswith(f"shmcomm rm: cannot remove 'strange' in {path.parent}: ")
    assert words in said.err
    assert said.err.endswith("; --force removes it anyway\n")
    assert path.exists()
    assert main(["rm", "--force", "strange"]) == 0
    assert (capsys.readouterr().err, path.exists()) == ("", False)


def test_rm_with_force_takes_everything(capsys, strange):
    assert main(["rm", "--force", "strange"]) == 0
    assert (capsys.readouterr().err, strange[0].exists()) == ("", False)


def test_gc_takes_only_what_is_known_to_be_dead(capsys, strange):
    path, _, _, _, collected = strange
    assert main(["gc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": ["strange"] if collected else []}
    assert path.exists() != collected


@pytest.mark.parametrize("what", ["link", "fifo", "directory"])
def test_what_is_no_file(capsys, what):
    path = path_of("strange")
    sentence = "it is no file, but a symbolic link, a directory, a pipe, a socket or a device"
    {"link": lambda: path.symlink_to("/dev/null"), "fifo": lambda: os.mkfifo(path), "directory": path.mkdir}[what]()
    assert (listed(capsys)["strange"]["state"], listed(capsys)["strange"]["error"]) == ("alien", sentence)
    assert main(["gc"]) == 0
    capsys.readouterr()
    assert main(["rm", "strange"]) == 1
    said = capsys.readouterr().err
    if what == "directory":
        assert said == f"shmcomm rm: cannot remove 'strange': {path} is a directory; rmdir removes it\n"
        assert main(["rm", "--force", "strange"]) == 1
        path.rmdir()
    else:
        assert said.endswith(f": {sentence}; --force removes it anyway\n")
        assert main(["rm", "--force", "strange"]) == 0
        assert not os.path.lexists(path)


# ---- fsck ----


def field(struct, name):
    """Where a field lies in its struct."""
    return next(offset for type_, field_, offset, *_ in _core._layout() if (type_, field_) == (struct, name))


def content_of(path):
    """{offset: bytes} of the pages of a file that are neither holes nor zero (a look at a hole makes it zeros)."""
    pages, end = {}, 0
    with open(path, "rb") as file:
        while end < path.stat().st_size:
            try:
                begin = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # nothing but a hole
                break
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            pages |= {at: os.pread(file.fileno(), mmap.PAGESIZE, at) for at in range(begin, end, mmap.PAGESIZE)}
    return {at: page for at, page in pages.items() if any(page)}


def body_of(path):
    return int.from_bytes(content_of(path)[0][32:40], "little")


def record_of(path, payload):
    """Where the record of a message in a ring lies."""
    return next(begin + page.index(payload) - 8 for begin, page in content_of(path).items() if payload in page)


def judged(capsys, *arguments):
    status = main(["fsck", "--json", *arguments])
    return status, {row.pop("name"): row for row in json.loads(capsys.readouterr().out)}


def poke(path, at, number):
    """Writes a word, and returns what was there."""
    with open(path, "r+b") as file:
        before = os.pread(file.fileno(), 8, at)
        os.pwrite(file.fileno(), number.to_bytes(8, "little"), at)
    return int.from_bytes(before, "little")


def idle_ring():
    with RingBufferChannel(8, name="idle", persist=True) as ring:
        ring.send_batch([b"one", b"two", b"three"])
    return path_of("idle")


SOUND = {"kind": "ring", "verdict": "sound", "part": None, "in_use": False, "error": None}


def test_fsck_says_so_when_there_is_nothing(capsys):
    assert main(["fsck"]) == 0
    assert capsys.readouterr().out == "no segments\n"
    assert judged(capsys) == (0, {})
    assert main(["fsck", "nothing"]) == 1
    assert capsys.readouterr().err == (
        "shmcomm fsck: there is no segment named nothing; `shmcomm ls` shows what there is\n"
    )


def test_fsck_judges_all_there_is_and_changes_nothing(capsys):
    path = idle_ring()
    with SharedMemoryBuffer(100, name="buffer"), ObjectPool(bytearray, name="objects") as pool, pool.borrow():
        kill_an_owner("orphan")
        before = {name: content_of(path_of(name)) for name in ("idle", "orphan", "buffer", "objects")}
        status, found = judged(capsys)
        assert status == 0
        assert {name: row["verdict"] for name, row in found.items()} == dict.fromkeys(before, "sound")
        assert [name for name, row in found.items() if row["in_use"]] == ["buffer", "objects"]
        assert found["idle"] == SOUND
        assert before == {name: content_of(path_of(name)) for name in before}
        assert main(["fsck"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split() for line in lines[:2]] == [["NAME", "KIND", "VERDICT"], ["buffer", "buffer", "sound"]]
        assert lines[-1] == "4 segments: 0 damaged, 0 not judged"
        assert main(["fsck", "idle"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "1 segment: 0 damaged, 0 not judged"
    path.unlink()
    assert main(["gc"]) == 0


# field -> what is written there, and where that is damage
RING_DAMAGE = {
    "spare of the id": (field("shc_seg_id_t", "spare"), 1, "head"),
    "life": (field("shc_seg_shm_t", "life"), 3, "head"),
    "a participant": (field("shc_seg_shm_t", "spare") + 248, 1 << 60, "head"),
    "tail": (lambda path: body_of(path) + field("shc_ring_shm_t", "tail"), 1 << 39, "body"),
    "head": (lambda path: body_of(path) + field("shc_ring_shm_t", "head"), 1, "body"),
    "a record": (lambda path: record_of(path, b"two"), 0xFFFF, "body"),
}


@pytest.mark.parametrize("damage", RING_DAMAGE)
def test_fsck_finds_what_was_scribbled_over(capsys, damage):
    at, number, part = RING_DAMAGE[damage]
    path = idle_ring()
    at = at(path) if callable(at) else at
    before = poke(path, at, number)
    status, found = judged(capsys)
    assert status == 1
    assert (found["idle"]["verdict"], found["idle"]["part"]) == ("damaged", part)
    assert main(["fsck", "idle"]) == 1
    assert "damaged: its " in capsys.readouterr().out
    poke(path, at, before)
    assert judged(capsys, "idle") == (0, {"idle": SOUND})
    path.unlink()


def test_fsck_finds_damage_while_the_segment_is_in_use(capsys):
    with SharedMemoryBuffer(100, name="used") as buffer, ObjectPool(bytearray, name="objects") as pool:
        pool.release(pool.acquire())
        poke(path_of(buffer), body_of(path_of(buffer)) + field("shc_buffer_shm_t", "used"), 101)
        status, found = judged(capsys)
        assert (status, found["used"]["verdict"], found["used"]["in_use"]) == (1, "damaged", True)
        assert found["objects"]["verdict"] == "sound"


def test_fsck_of_what_cannot_be_read(capsys, strange):
    _, state, words, *_ = strange
    verdict = "sound" if state == "idle" else "damaged" if state in ("corrupt", "removed") else "unreadable"
    status, found = judged(capsys)
    assert (status, found["strange"]["verdict"]) == (verdict == "damaged", verdict)
    assert found["strange"]["part"] == ("head" if verdict == "damaged" else None)
    assert judged(capsys, "strange")[0] == (verdict != "sound")
    main(["fsck"])
    said = capsys.readouterr().out
    assert verdict in said or (verdict == "unreadable" and "not judged: " in said and words in said)


def test_fsck_takes_nobodys_work_for_damage(capsys):
    with RingBufferChannel(64, name="moving", buffer_size=16384) as ring, Peer() as peer:
        peer("channel = RingBufferChannel.attach('moving')")
        peer.begin("[channel.send(b'x' * (n % 500)) for n in range(30000)] and None")
        while peer.busy():
            ring.receive_batch(50)
            status, found = judged(capsys)
            assert status == 0
            assert found["moving"]["verdict"] in ("sound", "busy")
            assert found["moving"]["in_use"]
        peer.result()


def test_fsck_says_what_it_could_not_judge(capsys, monkeypatch):
    looks = []
    monkeypatch.setattr(_core, "check_segment", lambda *a, **k: looks.append(a) or {**SOUND, "verdict": "busy"})
    path = idle_ring()
    assert main(["fsck"]) == 0
    assert "not judged: others were changing it all the time" in capsys.readouterr().out
    assert len(looks) == 20
    assert main(["fsck", "idle"]) == 1  # who asks for one wants to know
    path.unlink()


def test_fsck_overlooks_what_goes_meanwhile(capsys, monkeypatch):
    path = idle_ring()
    real = _core.check_segment

    def too_late(*arguments, **keywords):
        path.unlink()
        return real(*arguments, **keywords)

    monkeypatch.setattr(_core, "check_segment", too_late)
    assert judged(capsys) == (0, {})


def test_check_segment_takes_what_the_others_take(own_directory):
    path = idle_ring()
    assert _core.check_segment("idle") == {key: SOUND[key] for key in ("verdict", "part", "in_use", "error")}
    assert _core.check_segment(name="idle", directory=own_directory, namespace=None)["verdict"] == "sound"
    with pytest.raises(FileNotFoundError, match="No such file"):
        _core.check_segment("idle", namespace="another")
    with pytest.raises(ValueError, match="is none of them"):
        _core.check_segment("a/b")
    with pytest.raises(TypeError):
        _core.check_segment()
    path.unlink()


# ---- names that are none ----

ODD_NAMES = {
    b"esc\033[31mred\033[0m": r"esc\x1b[31mred\x1b[0m",
    b"two\nlines": r"two\nlines",
    b"bad\377": r"bad\udcff",
    "e\u0301".encode(): r"e\u0301",
    b"quote'd": "quote'd",
    b"back\\slash": r"back\\slash",
    b"bell\a\177": r"bell\x07\x7f",
}


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_a_terminal_sees_no_control_character(capfdbinary, own_directory, name):
    prefix = f"shmcomm.{os.environ['SHMCOMM_NAMESPACE']}+".encode()
    path = os.path.join(os.fsencode(own_directory), prefix + name)
    with open(path, "wb") as file:
        file.write(b"x")
    try:
        assert main(["ls"]) == 0
        out = capfdbinary.readouterr().out
        head, row = out.splitlines()
        assert row.startswith(ODD_NAMES[name].encode() + b" ")
        assert row.index(b"short") == head.index(b"STATE")  # columns stay in line
        assert all(32 <= byte < 127 for byte in head + row)
        assert main(["ls", "--json"]) == 0
        (row,) = json.loads(capfdbinary.readouterr().out)
        assert os.fsencode(row["name"]) == name
    finally:
        os.unlink(path)


def test_gc_prints_no_control_character(capsys):
    kill_an_owner("odd")
    odd = path_of("odd\033[31m")
    path_of("odd").rename(odd)
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "odd\\x1b[31m\n1 segment removed\n"
    assert not odd.exists()


def test_json_of_surrogates_is_plain_json():
    path = path_of("bad\udcff")
    path.write_bytes(b"x")
    done = shmcomm("ls", "--json")
    path.unlink()
    assert (done.returncode, done.stderr) == (0, "")
    assert r'"bad\udcff"' in done.stdout
    assert done.stdout.isascii()
    assert [row["name"] for row in json.loads(done.stdout)] == ["bad\udcff"]


# ---- namespaces ----


def test_ls_without_a_namespace_sees_all_and_rm_takes_what_it_shows(capsys, monkeypatch):
    for namespace in ("one", "two", ""):
        monkeypatch.setenv("SHMCOMM_NAMESPACE", namespace)
        SharedMemoryBuffer(10, name="kept", persist=True).close()
    main(["ls"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["kept", "one+kept", "two+kept"]
    main(["ls", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [(row["namespace"], row["name"]) for row in rows] == [("", "kept"), ("one", "kept"), ("two", "kept")]
    assert main(["rm", "one+kept"]) == 0
    monkeypatch.setenv("SHMCOMM_NAMESPACE", "two")
    main(["ls"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["kept"]
    assert main(["rm", "kept", "+kept"]) == 0  # its own, and that of no namespace
    monkeypatch.setenv("SHMCOMM_NAMESPACE", "")
    main(["ls"])
    assert capsys.readouterr().out == "no segments\n"
    for wrong in ("a+b+c", "one+", "+", "o/e+x"):
        assert main(["rm", wrong]) == 1
        assert " is 0 to 40 of the " in (said := capsys.readouterr().err) or " is 1 to 200 of the " in said


# ---- other users ----

needs_another_user = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
AS_ANOTHER = """
import contextlib, io, os, sys
from shmcomm._cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["ls"])  # imports what is needed, which that user may not be able to read
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
sys.exit(main(sys.argv[2:]))
"""


def as_another(*arguments, uid=65534):
    """The command line, run by somebody else."""
    command = [sys.executable, "-c", AS_ANOTHER, str(uid), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture
def open_directory(own_directory):
    """As /dev/shm is: everybody may create, nobody may remove what is another's."""
    os.chmod(own_directory, 0o1777)
    return own_directory


@needs_another_user
def test_what_another_user_may_not_read(open_directory):
    with SharedMemoryBuffer(10, name="closed"), SharedMemoryBuffer(10, name="open", mode=0o666):
        rows = {row["name"]: row for row in json.loads(as_another("ls", "--json").stdout)}
        assert (rows["closed"]["state"], rows["closed"]["uid"], rows["closed"]["mode"]) == ("denied", 0, 0o600)
        assert rows["closed"]["size"] == path_of("closed").stat().st_size
        assert rows["open"]["state"] == "live"
        table = as_another("ls").stdout.splitlines()
        assert table[1].endswith("belongs to user root (uid 0), and its mode 0o600 keeps this user out")
        verdicts = {row["name"]: row for row in json.loads(as_another("fsck", "--json").stdout)}
        assert verdicts["closed"]["verdict"] == "unreadable"
        assert verdicts["closed"]["error"].endswith("keeps this user out")
        assert (verdicts["open"]["verdict"], verdicts["open"]["in_use"]) == ("sound", True)
        for name in ("closed", "open"):
            for arguments in (["rm", name], ["rm", "--force", name]):
                done = as_another(*arguments)
                words = f"cannot remove '{name}' in {open_directory}: it belongs to another user (uid 0)"
                assert (done.returncode, done.stderr) == (1, f"shmcomm rm: {words}\n")
            assert path_of(name).exists()
        assert as_another("gc").stdout == "0 segments removed\n"


@needs_another_user
def test_what_nobody_known_owns(capsys, open_directory):
    path = path_of("strange")
    path.write_bytes(b"x")
    os.chown(path, 54321, 54321)
    path.chmod(0o600)
    assert as_another("ls").stdout.endswith("belongs to uid 54321, and its mode 0o600 keeps this user out\n")
    assert main(["ls"]) == 0  # root sees what it is
    assert " short " in capsys.readouterr().out
    assert main(["rm", "strange"]) == 1
    assert capsys.readouterr().err.endswith(": it belongs to another user (uid 54321); --force removes it anyway\n")
    assert main(["rm", "--force", "strange"]) == 0


@needs_another_user
def test_root_removes_what_is_anothers_if_told_so(capsys, open_directory):
    source = "import sys; from shmcomm import *; SharedMemoryBuffer(10, name='theirs', persist=True).close()"
    subprocess.run([sys.executable, "-c", source], check=True)
    os.chown(path_of("theirs"), 65534, 65534)
    assert main(["rm", "theirs"]) == 1
    words = f"cannot remove 'theirs' in {open_directory}: it belongs to another user (uid 65534)"
    assert capsys.readouterr().err == f"shmcomm rm: {words}; --force removes it anyway\n"
    assert main(["rm", "--force", "theirs"]) == 0
    assert listed(capsys) == {}


@needs_another_user
@pytest.mark.parametrize("make", [STRANGE[name][0] for name in STRANGE], ids=STRANGE)
def test_another_user_removes_its_own(open_directory, make):
    content = make()
    path = path_of("strange")
    path.write_bytes(content)
    os.chown(path, 65534, 65534)
    path.chmod(0)  # not even its owner may open it
    done = as_another("rm", "strange")
    assert (done.returncode, done.stderr) == (
        1, f"shmcomm rm: cannot remove 'strange' in {open_directory}: Permission denied; --force removes it anyway\n"
    )  # fmt: skip
    assert "belongs to user nobody (uid 65534), and its mode 0o0 keeps this user out" in as_another("ls").stdout
    path.chmod(0o600)
    assert as_another("rm", "--force", "strange").returncode == 0
    assert not path.exists()


def test_usage_errors_are_exit_code_2():
    for arguments in ([], ["nonsense"], ["rm"], ["demo", "--workers", "0"], ["demo", "--limit", "nan"]):
        done = shmcomm(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert "usage: shmcomm" in done.stderr


def test_version():
    import shmcomm as package

    done = shmcomm("--version")
    assert (done.returncode, done.stdout) == (0, f"shmcomm {package.__version__}\n")


def test_import_does_not_load_the_command_line():
    code = "import sys, shmcomm; print([m for m in sys.modules if m == 'argparse' or m.startswith('shmcomm._cli')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (2**21, "2 MiB"),
        (2**52, "4096 TiB"),
    ],
)
def test_sizes(nbytes, text):
    assert _table.size(nbytes) == text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "1 kB"), (31_456_789, "31.5 MB"), (2**50, "1,126 TB")],
)
def test_decimal_sizes(nbytes, text):
    assert _table.decimal(nbytes) == text


def test_counts():
    counted = [_table.count(1, "file"), _table.count(1234, "file"), _table.count(0, "entry", "entries")]
    assert counted == ["1 file", "1,234 files", "0 entries"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.9, "0 s"), (59, "59 s"), (60, "1 min"), (3700, "1 h 1 min"), (86400 + 61, "1 d"), (7201, "2 h")],
)
def test_ages(seconds, text):
    assert _table.age(seconds) == text


def test_progress_is_silent_off_a_terminal():
    stream = io.StringIO()
    with _progress.Progress("work", 10, stream=stream) as progress:
        progress.update(5)
    assert (stream.getvalue(), progress.interval) == ("", None)


class Terminal(io.StringIO):
    encoding = "ascii"

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (49, f"  {'-' * 24}  0/10  a long label"),
        (40, f"  {'-' * 17}  0/10  a long label"),
        (29, f"  {'-' * 6}  0/10  a long label"),
        (28, f"  {'-' * 19}  0/10"),
        (12, f"  {'-' * 3}  0/10"),
        (4, "   "),
    ],
)
def test_progress_cuts_no_word(monkeypatch, columns, line):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    with _progress.Progress("a long label", 10, stream=stream):
        assert stream.getvalue() == f"\r\x1b[2K{line}"


def test_progress_draws_and_wipes_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    with _progress.Progress("work", 10, stream=stream) as progress:
        progress.update(5)  # too soon after the first drawing
        time.sleep(2 * progress.interval)
        progress.update(5)
    drawn = stream.getvalue().split("\r\x1b[2K")
    assert drawn == ["", f"  {'-' * 24}  0/10  work", f"  {'#' * 12}{'-' * 12}  5/10  work", ""]
