"""A C program that uses the installed headers and static library exchanges messages with Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import RESERVES_IN_PIECES, path_of, until

import shmcomm
from shmcomm import _core

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = {"linux": "release", "posix": "posix"}  # of csrc/Makefile, by the body of csrc/os that they are built with


def build_echo(prefix, body):
    """The path of the C program, built with this body; what it needs is installed in the folder `prefix`."""
    if shutil.which("make") is None or shutil.which(os.environ.get("CC", "cc")) is None:
        assert not os.environ.get("CI"), "CI must have make and a C compiler"
        pytest.skip("needs make and a C compiler")
    install = ["make", "-s", "-C", str(ROOT / "csrc"), "install", f"PREFIX={prefix}", f"VARIANT={VARIANTS[body]}"]
    subprocess.run(install, check=True)
    program = prefix / "echo"
    source = ROOT / "tests" / "c" / "interop" / "echo.c"
    include = next(prefix.glob("include/**/ds/shc_ring.h")).parent.parent
    library = next(prefix.glob("lib/**/libshmcomm.a"))
    compiler = os.environ.get("CC", "cc")
    command = [
        compiler,
        "-std=c11",
        "-Wall",
        "-Werror",
        f"-I{include}",
        str(source),
        str(library),
        "-o",
        str(program),
        "-pthread",
    ]
    subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="module")
def echo_program(tmp_path_factory):
    """Built with the body of the extension under test: others cannot talk to it."""
    return build_echo(tmp_path_factory.mktemp("prefix"), _core._os_body)


def test_messages_come_back_as_they_were(echo_program):
    with shmcomm.RingBufferChannel(8) as there, shmcomm.RingBufferChannel(8) as back:
        directory = os.environ.get("SHMCOMM_DIR", "/dev/shm")
        command = [str(echo_program), directory, path_of(there).name, path_of(back).name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            large = [bytes(range(256)) * 1000] if RESERVES_IN_PIECES else []
            sent = [*range(100), "text", *large, b"bytes", None, 2.5, ["a", {"b": (1, 2)}], *large, *large]
            until(lambda: there.stats().waiters == 1)
            for message in sent:
                there.send(message, timeout=20)
                assert back.receive(timeout=20) == message
            there.shutdown()
            output, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert output == f"{len(sent)} messages, sum {sum(range(100))}\n"
        with pytest.raises(shmcomm.ShutDown):
            back.receive(timeout=20)


def test_it_says_what_is_wrong(echo_program):
    directory = os.environ.get("SHMCOMM_DIR", "/dev/shm")
    result = subprocess.run(
        [str(echo_program), directory, "shmcomm.not-there", "shmcomm.not-there"],
        capture_output=True,
        check=False,
        text=True,
        timeout=20,
    )
    assert result.returncode == 1
    assert "shmcomm.not-there" in result.stderr


@pytest.mark.parametrize("body", sorted(VARIANTS.keys() - {_core._os_body}))
def test_a_program_built_with_another_body_is_refused(body, tmp_path):
    """The two could not wake each other."""
    with shmcomm.RingBufferChannel(8) as channel:
        directory = os.environ.get("SHMCOMM_DIR", "/dev/shm")
        command = [str(build_echo(tmp_path, body)), directory, path_of(channel).name, path_of(channel).name]
        result = subprocess.run(command, capture_output=True, check=False, text=True, timeout=20)
        assert result.returncode == 1
        assert "another memory layout" in result.stderr
        channel.send(1)
        assert channel.receive() == 1
