"""``shmcomm demo``: index a folder of text with a crew of workers, kill one in mid-run, check the answers."""

import argparse
import json
import math
import os
import sys

from shmcomm._cli import _report

HELP = "index a folder of text through shared memory, kill a worker in mid-run, check the answers"

#: Megabytes; the standard library with its tests is half of it.
_LIMIT = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", nargs="?", metavar="PATH", help="a folder of text, or one file (default: Python's own standard library)"
    )
    parser.add_argument(
        "--workers", type=_positive, metavar="N", help="worker processes (default: one per CPU, 2 to 8)"
    )
    parser.add_argument("--no-kill", action="store_true", help="leave out the run in which a worker is killed")
    parser.add_argument(
        "--limit", type=_megabytes, default=_LIMIT, metavar="MB", help=f"read at most that (default {_LIMIT}; 0: all)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 256")
    return int(text)


def _megabytes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of megabytes")
    return number or math.inf


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 if every answer was right and nothing was left behind."""
    from shmcomm._cli import _corpus, _runs

    if arguments.path is not None and not os.path.exists(arguments.path):
        print(f"shmcomm demo: there is no {arguments.path}", file=sys.stderr)
        return 2
    limit = arguments.limit * _report.MEGA
    corpus = _corpus.standard_library(limit) if arguments.path is None else _corpus.read(arguments.path, limit)
    if not corpus.texts:
        reasons = _report.left_out(corpus.left_out) or "no file"
        print(f"shmcomm demo: no text to index in {corpus.root} ({reasons})", file=sys.stderr)
        return 2
    report = _runs.Demo(corpus, arguments.workers or _default_workers()).run(kill=not arguments.no_kill)
    print(json.dumps(report, indent=2) if arguments.json else _report.text(report))
    return 0 if report["ok"] else 1


def _default_workers() -> int:
    return min(8, max(2, len(os.sched_getaffinity(0))))
