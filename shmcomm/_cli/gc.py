"""``shmcomm gc``: remove what killed processes left behind."""

import argparse
import json

from shmcomm._cli._table import count, printable

HELP = "remove your segments whose processes are all dead"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--directory", metavar="DIR", help="look there (default: SHMCOMM_DIR, or /dev/shm)")
    parser.add_argument("--json", action="store_true", help="print the names as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Collect, and print what was removed."""
    from shmcomm import _core

    removed = sorted(_core.collect_garbage(directory=arguments.directory))
    if arguments.json:
        print(json.dumps({"removed": removed}, indent=2))
    else:
        print("\n".join([*map(printable, removed), f"{count(len(removed), 'segment')} removed"]))
    return 0
