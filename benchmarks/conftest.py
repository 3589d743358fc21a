"""`pytest benchmarks`: ours, floors and rivals in groups, one group per question.

Subjects measure themselves (streams between processes, medians of round trips, fresh interpreters), so the clock that
pytest-benchmark reads is one that only they advance: its tables show nanoseconds per operation as they were measured.
"""

import contextlib
import os
import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("SHMCOMM_NAMESPACE", f"b{os.getpid()}{secrets.token_hex(3)}")  # spawned workers inherit it

import pairs
import pytest
import rivals

ROUNDS = 5


class Clock:
    """Seconds that subjects say have passed."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


CLOCK = Clock()


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.benchmark(timer=CLOCK))


def pytest_generate_tests(metafunc):
    """`link`: every link there is, or with @pytest.mark.parametrize-like narrowness by the test's own `links`
    attribute.
    """
    if "link" in metafunc.fixturenames:
        links = getattr(metafunc.function, "links", rivals.ALL)
        metafunc.parametrize("link", links, ids=lambda link: link.name.replace(" ", "-"))


@pytest.fixture
def quick(request):
    """With --benchmark-disable only correctness counts."""
    return request.config.getoption("benchmark_disable")


@pytest.fixture
def sample(benchmark):
    """sample(question, group, fn): fn() returns nanoseconds of one operation, several times over."""

    def run(question, group, fn, rounds=ROUNDS):
        def step():
            CLOCK.now += fn() * 1e-9

        benchmark.group = question
        benchmark.extra_info["subject"] = group
        benchmark.pedantic(step, rounds=rounds, warmup_rounds=1)

    return run


@pytest.fixture
def pair():
    """pair(link class, ...): two workers with such a link between them; skipped if the rival is not installed."""
    with contextlib.ExitStack() as stack:

        def start(link, *args, **kwargs):
            if reason := rivals.missing(link):
                pytest.skip(f"{link.name}: {reason}")
            return stack.enter_context(pairs.Pair(link(*args, **kwargs)))

        yield start
