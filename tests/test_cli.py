"""The command line: ls, rm, gc, --version and usage; the demo has a file of its own."""

import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import pytest

from shmcomm import RingBufferChannel, SharedMemoryBuffer
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
    assert table[0].split() == ["NAME", "KIND", "SIZE", "STATE", "AGE", "PROCESSES"]
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
    assert capsys.readouterr().err == f"shmcomm ls: {tmp_path}/nowhere: No such file or directory\n"


def test_rm_removes_what_nobody_uses(capsys):
    SharedMemoryBuffer(4096, name="kept", persist=True).close()
    assert main(["rm", "kept"]) == 0
    assert listed(capsys) == {}


def test_rm_refuses_what_is_in_use_unless_forced(capsys):
    with SharedMemoryBuffer(4096, name="busy") as buffer:
        assert main(["rm", "busy"]) == 1
        assert "'busy'" in (said := capsys.readouterr().err)
        assert said.endswith("--force removes the name anyway\n")
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


def test_ls_tells_what_is_wrong_with_a_file(capsys, own_directory):
    path = pathlib.Path(own_directory, f"shmcomm.{os.environ['SHMCOMM_NAMESPACE']}.strange")
    path.write_bytes(b"something else")
    assert main(["ls"]) == 0
    assert "the file is not a shmcomm segment" in capsys.readouterr().out
    assert listed(capsys)["strange"]["state"] == "foreign"
    path.unlink()


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


def test_progress_draws_and_wipes_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        encoding = "ascii"

        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    with _progress.Progress("work", 10, stream=stream) as progress:
        progress.update(5)  # too soon after the first drawing
        time.sleep(2 * progress.interval)
        progress.update(5)
    drawn = stream.getvalue().split("\r\x1b[2K")
    assert drawn == ["", f"  {'-' * 24}  0/10  work", f"  {'#' * 12}{'-' * 12}  5/10  work", ""]
