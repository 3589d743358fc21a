"""``shmcomm rm NAME...``: remove segments by name."""

import argparse
import errno
import json
import sys

from shmcomm._cli._table import sentence

HELP = "remove segments by name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="as ls shows it: NAME, or NAMESPACE+NAME")
    parser.add_argument(
        "--force", action="store_true",
        help="also while processes use it (they keep their memory), and whatever else has that name",
    )  # fmt: skip
    parser.add_argument("--directory", metavar="DIR", help="look there (default: SHMCOMM_DIR, or /dev/shm)")
    parser.add_argument("--json", action="store_true", help="print what was removed and what failed, as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Remove every segment named; 1 if one could not be, after trying all."""
    from shmcomm import Error, _core

    removed, failed = [], []
    for name in arguments.names:
        namespace, separator, bare = name.partition("+")
        try:
            _core.remove_segment(
                bare if separator else name,
                directory=arguments.directory,
                force=arguments.force,
                namespace=namespace if separator else None,
            )
            removed.append(name)
        except (OSError, ValueError, Error) as error:
            hint = "; --force removes it anyway" if not arguments.force and _would_force_help(error) else ""
            failed.append({"name": name, "error": sentence(error) + hint})
    if arguments.json:
        print(json.dumps({"removed": removed, "failed": failed}, indent=2))
    for failure in failed:
        print(f"shmcomm rm: {failure['error']}", file=sys.stderr)
    return 1 if failed else 0


def _would_force_help(error: Exception) -> bool:
    """Whether the name is in the way for a reason that --force does not heed."""
    from shmcomm import Error

    return isinstance(error, Error) or (isinstance(error, OSError) and error.errno == errno.EACCES)
