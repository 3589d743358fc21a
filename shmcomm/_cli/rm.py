"""``shmcomm rm NAME...``: remove segments by name."""

import argparse
import json
import sys

from shmcomm._cli._table import sentence

HELP = "remove segments by name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--force", action="store_true", help="also while processes use it (they keep their memory)")
    parser.add_argument("--directory", metavar="DIR", help="look there (default: SHMCOMM_DIR, or /dev/shm)")
    parser.add_argument("--json", action="store_true", help="print what was removed and what failed, as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Remove every segment named; 1 if one could not be, after trying all."""
    from shmcomm import BusyError, Error, _core

    removed, failed = [], []
    for name in arguments.names:
        try:
            _core.remove_segment(name, directory=arguments.directory, force=arguments.force)
            removed.append(name)
        except BusyError as error:
            failed.append({"name": name, "error": f"{error}; --force removes the name anyway"})
        except (OSError, ValueError, Error) as error:
            failed.append({"name": name, "error": sentence(error)})
    if arguments.json:
        print(json.dumps({"removed": removed, "failed": failed}, indent=2))
    for failure in failed:
        print(f"shmcomm rm: {failure['error']}", file=sys.stderr)
    return 1 if failed else 0
