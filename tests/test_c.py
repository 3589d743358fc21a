"""The C tests: one pytest item per test and variant.

Plain `pytest` runs the unit tests of the variants debug and asan. `--c-variants=tsan,posix` chooses others,
`--c-suites=stress,crash,model` other suites (crash and model exist in one variant only). `make -C csrc check...`
runs the same without Python.

Tests are found by reading the sources (so that collecting needs no build), and test_every_c_test_is_found compares that
with what the programs say themselves.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
TESTS_C = ROOT / "tests" / "c"
PATTERNS = {"unit": "test_*.c", "stress": "stress_*.c", "crash": "crash_*.c", "model": "model_*.c"}
ONLY_VARIANT = {"crash": "release", "model": "hook"}
TEST_RE = re.compile(r"^TEST(?:_LIMIT)?\(\s*(\w+)", re.MULTILINE)
INCLUDE_RE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)
SKIPPED = 77


class Program(NamedTuple):
    suite: str
    variant: str
    source: Path

    @property
    def binary(self):
        return ROOT / "build" / "c" / self.variant / "bin" / self.source.stem


@cache
def names_in(path):
    """Names of the tests in a file and in what it includes of tests/c, in order."""
    text = path.read_text()
    names = []
    for name in INCLUDE_RE.findall(text):
        for included in (path.parent / name, TESTS_C / name):
            if included.is_file() and included.name != "t.h":
                names += names_in(included)
                break
    return names + TEST_RE.findall(text)


def programs(variants, suites):
    for suite in suites:
        for variant in [ONLY_VARIANT[suite]] if suite in ONLY_VARIANT else variants:
            for source in sorted((TESTS_C / suite).glob(PATTERNS[suite])):
                yield Program(suite, variant, source)


def pytest_generate_tests(metafunc):
    chosen = list(programs(metafunc.config.getoption("c_variants"), metafunc.config.getoption("c_suites")))
    if "c_test" in metafunc.fixturenames:
        cases = [(program, name) for program in chosen for name in names_in(program.source)]
        ids = [f"{program.variant}-{program.source.stem}-{name}" for program, name in cases]
        marks = [[pytest.mark.c_suite(program.suite), pytest.mark.time_limit(1800)] for program, _ in cases]
        params = [pytest.param(case, marks=mark) for case, mark in zip(cases, marks, strict=True)]
        metafunc.parametrize("c_test", params, ids=ids)
    elif "c_program" in metafunc.fixturenames:
        metafunc.parametrize("c_program", chosen, ids=[f"{p.variant}-{p.source.stem}" for p in chosen])


def unavailable(reason):
    """Skips on a machine without the tools; on CI, where they belong, fails."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI is set, so this is a failure)", pytrace=False)
    pytest.skip(reason)


def make(*arguments):
    jobs = len(os.sched_getaffinity(0))
    command = ["make", "-C", str(CSRC), f"-j{jobs}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@cache
def sanitizer_works(flag):
    probe = subprocess.run(
        [os.environ.get("CC", "gcc"), "-x", "c", "-", flag, "-o", os.devnull],
        input="int main(void) { return 0; }", capture_output=True, text=True, check=False,
    )  # fmt: skip
    return probe.returncode == 0


@cache
def build(variant):
    """Builds all programs of a variant once; returns make's output if something failed, else None."""
    missing = [tool for tool in ("make", os.environ.get("CC", "gcc").split()[0]) if shutil.which(tool) is None]
    if missing:
        return f"missing: {' '.join(missing)}"
    (ROOT / "build" / "c").mkdir(parents=True, exist_ok=True)
    with open(ROOT / "build" / "c" / ".lock", "w") as lock:  # parallel pytest workers share the folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = make("--keep-going", f"build-{variant}")
    return None if done.returncode == 0 else done.stdout + done.stderr


def require(program):
    """Makes sure that the program is built from the sources as they are now."""
    flag = {"asan": "-fsanitize=address,undefined", "tsan": "-fsanitize=thread"}.get(program.variant)
    if shutil.which("make") is None or shutil.which(os.environ.get("CC", "gcc").split()[0]) is None:
        unavailable("the C tests need make and a C compiler")
    if flag and not sanitizer_works(flag):
        unavailable(f"the C compiler cannot link {flag}")
    failure = build(program.variant)
    if failure is None:
        return
    target = os.path.relpath(program.binary, CSRC)
    if make("--question", target).returncode != 0:  # another program's failure is not ours
        pytest.fail(f"cannot build {target}:\n{make(target).stderr or failure}", pytrace=False)


def sanitizer_options():
    tests = str(TESTS_C)
    return {
        "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1",
        "LSAN_OPTIONS": f"suppressions={tests}/lsan.supp:print_suppressions=0",
        "UBSAN_OPTIONS": f"suppressions={tests}/ubsan.supp:print_stacktrace=1",
        "TSAN_OPTIONS": f"suppressions={tests}/tsan.supp:halt_on_error=1",
    }


def run(program, *arguments):
    return subprocess.run(
        [str(program.binary), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        env={**sanitizer_options(), **os.environ}, cwd=CSRC,
    )  # fmt: skip


@cache
def listed(program):
    return run(program, "--list").stdout.split()


def test_c(c_test):
    program, name = c_test
    require(program)
    if name not in listed(program):
        pytest.skip(f"not in the variant {program.variant}")
    result = run(program, "--run", name)
    if result.returncode == SKIPPED:
        pytest.skip(result.stdout.strip().splitlines()[0])
    if result.returncode != 0:
        pytest.fail(f"{program.binary} --run {name}\n{result.stdout}", pytrace=False)


def test_every_c_test_is_found(c_program):
    require(c_program)
    assert set(listed(c_program)) <= set(names_in(c_program.source)), "keep TEST( at the start of a line, out of macros"
    assert listed(c_program), "a program without tests"


# ---- the harness itself: each way to fail is noticed ----

EXAMPLES = Program("harness", "debug", TESTS_C / "harness" / "examples.c")
EXPECTED = {
    "passes": (0, r"ok    passes"),
    "check_fails": (1, r"examples\.c:\d+: CHECK\(1 \+ 1 == 3\)"),
    "compares_numbers": (1, r"expected small == UINT64_MAX\n    small is -1\n    UINT64_MAX is 18446744073709551615 "),
    "compares_text": (1, r'"left" is "left"\n'),
    "compares_memory": (1, r'"abc"\[2\] is 0x63\n    "abd"\[2\] is 0x64'),
    "status_is_not_ok": (1, r"-10001 returned -10001: shared memory holds a value that no correct process writes"),
    "skips": (SKIPPED, r"skipped: there is no reason"),
    "crashes": (1, r"ended by signal 11"),
    "hangs": (1, r"did not end in time"),
    "leaves_a_file_and_hangs": (1, r"did not end in time"),
    "leaves_a_descriptor": (1, r"-> /dev/null\n(.*\n)*.*left 1 descriptors open"),
    "leaves_a_thread": (1, r"left 1 threads running"),
    "leaves_a_process": (1, r"left 1 processes"),
    "leaves_a_file": (1, r"left behind: .*/forgotten\n(.*\n)*.*and 1 files"),
    "child_fails": (1, r"t_wait\(pid\) is 1\n"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_harness_notices(name):
    require(EXAMPLES)
    status, pattern = EXPECTED[name]
    result = run(EXAMPLES, "--run", name)
    assert result.returncode == status, result.stdout
    assert re.search(pattern, result.stdout), result.stdout


def test_harness_examples_are_all_expected():
    assert names_in(EXAMPLES.source) == list(EXPECTED)


def test_harness_counts_and_exit_codes():
    require(EXAMPLES)
    everything = run(EXAMPLES)
    assert everything.returncode == 1
    assert re.search(r"^examples: 1 passed, 13 failed, 1 skipped in ", everything.stdout, re.MULTILINE)
    assert run(EXAMPLES, "--run", "no_such_test").returncode == 1
    assert run(EXAMPLES, "--nonsense").returncode == 2


def test_harness_takes_its_test_along_when_it_is_ended():
    require(EXAMPLES)
    child = subprocess.Popen([EXAMPLES.binary, "--run", "leaves_a_file_and_hangs"], stdout=subprocess.PIPE, text=True)
    folder = Path(child.stdout.readline().strip())
    assert folder.is_dir()
    child.terminate()
    assert child.wait() == 128 + signal.SIGTERM
    assert not folder.exists()
    assert child.stdout.read() == ""  # the end of the pipe: nobody holds its other end any more
    child.stdout.close()


# ---- the release library ----


@pytest.fixture(scope="module")
def release_library():
    library = ROOT / "build" / "c" / "release" / "libshmcomm.a"
    require(Program("library", "release", TESTS_C / "libshmcomm.c"))
    if shutil.which("nm") is None:
        unavailable("needs nm of binutils")
    assert make(os.path.relpath(library, CSRC)).returncode == 0
    return library


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_library_exports_only_its_own_names(release_library):
    symbols = [line.split() for line in output_of("nm", "--defined-only", "-g", str(release_library)).splitlines()]
    names = {fields[2] for fields in symbols if len(fields) == 3}
    assert names, "the library is empty"
    assert not {name for name in names if not name.startswith("shc_")}


def test_library_allocates_prints_and_hooks_nothing(release_library):
    wanted = {line.split()[-1] for line in output_of("nm", "-u", str(release_library)).splitlines() if " U " in line}
    forbidden = {"malloc", "calloc", "realloc", "free", "printf", "fprintf", "puts", "abort", "exit", "shc_hook"}
    assert not wanted & forbidden


def test_library_holds_no_mutable_data(release_library):
    """Globals in the core would be state that two interpreters, or a forked child, share by accident."""
    mutable = {}
    for line in output_of("size", "-A", str(release_library)).splitlines():
        match = re.match(r"(?:(\S+\.o)\s|(\.(?:data|bss|tdata|tbss)\S*)\s+(\d+))", line)
        if match and match[1]:
            member = match[1]
        elif match and int(match[3]) and not match[2].startswith(".data.rel.ro"):
            mutable[member, match[2]] = int(match[3])
    assert mutable == {}
