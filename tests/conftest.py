"""What holds for every test: it ends in time, and leaves nothing behind."""

import contextlib
import faulthandler
import gc
import importlib.util
import multiprocessing
import os
import runpy
import secrets
import signal
import sys
import tempfile
import threading
import time
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A shell that runs the tests in the background has SIGINT ignored, and so would all child processes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

NEED_NO_EXTENSION = {"test_c.py", "test_guard.py", "test_house.py", "test_setup.py"}
GRACE_S = float(os.environ.get("SHMCOMM_TEST_GRACE", "5"))

# Set before anything imports shmcomm or NumPy; child processes inherit it. Each process of a parallel run has its own.
NAMESPACE = f"t{os.getpid()}{secrets.token_hex(3)}"
os.environ["SHMCOMM_NAMESPACE"] = NAMESPACE
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # or the first import of NumPy would look like leaked threads


def pytest_addoption(parser):
    def words(text):
        return [word for word in text.split(",") if word]

    add = parser.getgroup("shmcomm").addoption
    add("--c-variants", type=words, default=["debug", "asan"], help="of debug,asan,tsan,posix (default: debug,asan)")
    add("--c-suites", type=words, default=["unit"], help="of unit,stress,crash,model (default: unit)")
    add("--kills", type=int, help="kills per structure in chaos tests (default: the test's own; 10000 for a night)")
    add("--allow-stale", action="store_true", help="accept an extension built from other sources than those here")


# ---- the extension under test is the one of these sources ----


def stale_extension():
    """Says why the extension does not fit the sources beside the tests; None if it does, or if there are no sources."""
    if not (ROOT / "csrc").is_dir() or importlib.util.find_spec("shmcomm._core") is None:
        return None
    from shmcomm import _core

    expected = runpy.run_path(str(ROOT / "setup.py"), run_name="shmcomm_setup")["source_hash"]()
    found = getattr(_core, "_source_hash", None)
    if found == expected:
        return None
    return (
        f"{_core.__file__} was built from other sources ({found}) than those in csrc/ ({expected}): "
        "run `pip install .` again, or pass --allow-stale"
    )


def pytest_collection_modifyitems(config, items):
    needed = any(item.path.name not in NEED_NO_EXTENSION for item in items)
    if needed and not config.getoption("allow_stale") and (reason := stale_extension()):
        raise pytest.UsageError(reason)


def pytest_report_header():
    try:
        spec = importlib.util.find_spec("shmcomm._core")
    except ImportError as error:
        return f"shmcomm: cannot be imported: {error}"
    return f"shmcomm: {spec.origin if spec else 'the extension is not built'}; namespace {NAMESPACE}"


# ---- nothing is left ----


def memory_files():
    """Files of this run's namespace in the folders for shared memory."""
    folders = {Path("/dev/shm"), Path(os.environ.get("SHMCOMM_DIR") or "/dev/shm")}
    return {str(p) for folder in folders if folder.is_dir() for p in folder.glob("shmcomm.*") if NAMESPACE in p.name}


def helpers():
    """multiprocessing's own long-lived processes and their descriptors: they stay until the interpreter ends."""
    tracker, server = resource_tracker._resource_tracker, forkserver._forkserver
    pids = {tracker._pid, server._forkserver_pid}
    fds = {tracker._fd, getattr(server, "_forkserver_alive_fd", None)}
    return pids - {None}, fds - {None}


def child_processes():
    multiprocessing.active_children()  # reaps those that have ended
    children = {}
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for pid in map(int, task.read_text().split()):
                children[pid] = describe_process(pid)
    return {pid: text for pid, text in children.items() if pid not in helpers()[0]}


def describe_process(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    return f"{'zombie' if state == 'Z' else 'running'} {command}"


def open_descriptors():
    found = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the one that listed them is closed again
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return {fd: target for fd, target in found.items() if fd not in helpers()[1]}


def native_threads():
    return set(os.listdir("/proc/self/task"))


class Traces:
    """What a test could leave behind, as it is now."""

    def __init__(self):
        self.files = memory_files()
        self.children = child_processes()
        self.threads = {t.ident: t.name for t in threading.enumerate()}
        self.tasks = native_threads()
        self.descriptors = open_descriptors()

    def added_since(self, before):
        added = [f"file {path}" for path in sorted(self.files - before.files)]
        added += [f"process {pid}: {text}" for pid, text in self.children.items() if pid not in before.children]
        added += [f"thread {name}" for ident, name in self.threads.items() if ident not in before.threads]
        if len(self.tasks) > len(before.tasks):
            added.append(f"{len(self.tasks) - len(before.tasks)} threads of the system")
        for fd, target in self.descriptors.items():
            if before.descriptors.get(fd) != target:
                added.append(f"descriptor {fd} -> {target}")
        return added


@pytest.fixture
def own_folder(monkeypatch):
    """A folder of shared memory where nobody else, such as a run beside this one, makes or removes anything."""
    parent = os.environ.get("SHMCOMM_DIR") or "/dev/shm"
    with tempfile.TemporaryDirectory(prefix="shmcomm-test.", dir=parent) as folder:
        monkeypatch.setenv("SHMCOMM_DIR", folder)
        yield Path(folder)


def wait_until_gone(before):
    """What is still there after garbage collection and a moment for processes and threads to end."""
    added = Traces().added_since(before)
    deadline = time.monotonic() + GRACE_S
    while added:
        gc.collect()
        added = Traces().added_since(before)
        if time.monotonic() > deadline:
            break
        time.sleep(0.02 if added else 0)
    return added


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request):
    """Fails the test that leaves a segment, FIFO, child process, thread or descriptor."""
    before = Traces()
    yield
    if failed_already(request.node):
        return  # its traceback may hold what it made, and it is reported anyway
    if added := wait_until_gone(before):
        pytest.fail("left behind:\n  " + "\n  ".join(added), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call":
        item.stash[CALL_FAILED] = report.failed
    return report


CALL_FAILED = pytest.StashKey[bool]()


def failed_already(item):
    return item.stash.get(CALL_FAILED, False)


@pytest.fixture
def folder():
    """A folder of the shared-memory file system of this test alone, where nobody else looks around."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="shmcomm-test.") as made:
        yield Path(made)


# ---- every test ends ----

DEFAULT_LIMIT_S = 60.0


@contextlib.contextmanager
def watchdog(limit):
    """After `limit` seconds the main thread gets an exception; if that does not help, after twice as long the process
    ends with the stacks of all threads."""

    def expired(_signum, _frame):
        faulthandler.dump_traceback(file=sys.__stderr__)
        pytest.fail(f"did not end within {limit:g} s")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, limit)
    faulthandler.dump_traceback_later(2 * limit, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.hookimpl(wrapper=True, trylast=True)  # innermost: pytest's own use of the one faulthandler timer comes before
def pytest_runtest_protocol(item):
    marker = item.get_closest_marker("time_limit")
    with watchdog(marker.args[0] if marker else DEFAULT_LIMIT_S):
        return (yield)
