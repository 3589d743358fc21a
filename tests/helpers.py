"""Other processes for tests: one that runs what it is told, and small things to wait with."""

import contextlib
import ctypes
import os
import pickle
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import shmcomm
from shmcomm import _core

HERE = Path(__file__).resolve().parent
LIBC, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
PATIENCE_S = 30.0  # a watchdog, never an expectation

# Whether a process that was killed is known for dead before its parent has waited for it, by others than the parent.
# The plain body takes it for living until then: csrc/os/shc_os_posix.c says why.
SEES_EVERY_ZOMBIE = _core._os_body == "linux"

# Whether memory can be reserved piece by piece. Where it cannot, a channel has what it reserves when it is created, and
# no large messages.
RESERVES_IN_PIECES = _core._os_body == "linux"


def until(condition, timeout=PATIENCE_S):
    """Waits for condition() to become true and returns its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.001)
    return value


def directory():
    return Path(os.environ.get("SHMCOMM_DIR") or "/dev/shm")


def path_of(name, folder=None):
    """The file of an object, by the object or its name, in this process's namespace."""
    name = getattr(name, "name", name)
    namespace = os.environ.get("SHMCOMM_NAMESPACE", "")
    return Path(folder or directory(), f"shmcomm.{namespace}+{name}" if namespace else f"shmcomm.{name}")


def run_python(source, *arguments, check=True, **options):
    """A fresh interpreter that runs source; returns the CompletedProcess with text output."""
    done = subprocess.run(
        [sys.executable, *options.pop("flags", ()), "-c", source, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S, cwd=HERE,
        env={**os.environ, **options.pop("env", {})}, **options,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


class Peer:
    """A process that evaluates what it is told, so that a test reads like a dialogue.

    >>> with Peer() as peer:
    ...     peer("channel = RingBufferChannel.attach(name)", name=channel.name)
    ...     peer.begin("channel.receive()")          # it blocks
    ...     channel.send(1)
    ...     assert peer.result() == 1
    """

    def __init__(self, **env):
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import helpers; helpers.serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE, env={**os.environ, **env},
        )  # fmt: skip
        self.pid = self.process.pid

    def __call__(self, source, timeout=PATIENCE_S, **values):
        """The value of an expression, or None after statements; raises here what was raised there."""
        self.begin(source, **values)
        return self.result(timeout)

    def begin(self, source, **values):
        pickle.dump((source, values), self.process.stdin)
        self.process.stdin.flush()

    def result(self, timeout=PATIENCE_S):
        assert select.select([self.process.stdout], [], [], timeout)[0], "the peer does not answer"
        try:
            raised, value = pickle.load(self.process.stdout)
        except EOFError:
            raise ProcessLookupError(f"the peer ended with exit code {self.process.wait()}") from None
        if raised:
            raise value
        return value

    def busy(self):
        """True while nothing has come back yet."""
        return not select.select([self.process.stdout], [], [], 0)[0]

    def signal(self, number):
        os.kill(self.pid, number)

    def kill(self, reap=True):
        self.signal(signal.SIGKILL)
        if reap:
            self.process.wait(PATIENCE_S)
        else:
            until(lambda: Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")

    def end(self):
        """Lets it end as a program does."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        if self.process.poll() is None and any(failure):
            self.process.kill()
        self.end()


def serve():
    """The loop of a Peer. What it prints goes to stderr."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    space = {name: getattr(shmcomm, name) for name in shmcomm.__all__}
    space.update(os=os, time=time, signal=signal, shmcomm=shmcomm)
    while True:
        try:
            source, values = pickle.load(requests)
        except EOFError:
            return
        space.update(values)
        try:
            try:
                answer = (False, eval(compile(source, "<peer>", "eval"), space))
            except SyntaxError:
                exec(compile(source, "<peer>", "exec"), space)
                answer = (False, None)
            text = pickle.dumps(answer)
        except BaseException as error:
            text = pickle.dumps((True, error))
            error.__traceback__ = None
        answers.write(text)
        answers.flush()


def fork_worker(function, *arguments):
    """The pid of a forked child that runs function and then ends without any clean-up: 0, or 1 with a traceback."""
    pid = os.fork()
    if pid == 0:
        code = 1
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # if the tests are killed, nothing goes on without them
        try:
            function(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return pid


def forked(function, *arguments):
    """Runs function in a forked child and returns its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(fork_worker(function, *arguments), 0)[1])
