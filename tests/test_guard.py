"""The guard of conftest.py notices whatever a test leaves behind, and tests that never end."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = """
import os, subprocess, sys, threading, time
import pytest
from pathlib import Path

kept = []

def test_clean():
    with open(os.devnull):
        subprocess.run([sys.executable, "-c", ""], check=True)

def test_file():
    path = Path("/dev/shm", "shmcomm." + os.environ["SHMCOMM_NAMESPACE"] + ".left")
    path.touch()
    kept.append(path)

def test_fifo():
    path = Path("/dev/shm", "shmcomm." + os.environ["SHMCOMM_NAMESPACE"] + ".fifo")
    os.mkfifo(path)
    kept.append(path)

def test_process():
    kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))

def test_thread():
    kept.append(threading.Thread(target=time.sleep, args=(30,), name="idle", daemon=True))
    kept[-1].start()

def test_descriptor():
    kept.append(open(os.devnull))

@pytest.mark.time_limit(0.5)
def test_endless():
    time.sleep(30)

def test_end():
    for thing in kept:
        if isinstance(thing, Path):
            thing.unlink()
        elif isinstance(thing, subprocess.Popen):
            thing.kill()
            thing.wait()
    kept[:] = [t for t in kept if isinstance(t, threading.Thread)]
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "test_house.py").write_text(TESTS)  # a name that needs no extension
    (folder / "conftest.py").symlink_to(ROOT / "tests" / "conftest.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", folder],
        env={**os.environ, "SHMCOMM_TEST_GRACE": "0.2"}, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("file", r"file /dev/shm/shmcomm\.t\w+\.left"),
        ("fifo", r"file /dev/shm/shmcomm\.t\w+\.fifo"),
        ("process", r"process \d+: running .*time\.sleep\(60\)"),
        ("thread", r"thread idle\n.*  1 threads of the system"),
        ("descriptor", r"descriptor \d+ -> /dev/null"),
    ],
)
def test_what_is_left_is_an_error(outcomes, name, left):
    assert re.search(rf"::test_{name} ERROR", outcomes), outcomes
    section = outcomes.split(f"ERROR at teardown of test_{name}")[1].split("ERROR at teardown")[0]
    assert re.search(r"left behind:\n.*" + left, section), outcomes


def test_an_endless_test_fails(outcomes):
    assert re.search(r"::test_endless FAILED", outcomes), outcomes
    assert "did not end within 0.5 s" in outcomes


def test_a_clean_test_passes(outcomes):
    assert "::test_clean PASSED" in outcomes, outcomes
    assert re.search(r"::test_clean ERROR", outcomes) is None
