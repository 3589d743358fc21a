"""The command line: ``shmcomm`` and ``python -m shmcomm``.

One module per command, each with ``HELP``, ``add_arguments(parser)`` and ``run(arguments) -> exit code``.
Exit codes: 0 all good, 1 something failed or differs, 2 the command line makes no sense, 130 interrupted.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from shmcomm._cli._table import sentence

COMMANDS = ("demo", "ls", "stat", "fsck", "rm", "gc")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("shmcomm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has left; nothing more can be said to it, not even by the flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError) as error:  # ValueError: a variable of the environment that cannot be used
        print(f"shmcomm {arguments.command}: {sentence(error)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shmcomm", description="Talk between processes through shared memory: see it work, see what is there."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"shmcomm._cli.{name}")
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


class _Version(argparse.Action):
    """Asks the package for its version only when somebody wants to know it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from shmcomm import __version__

        print(f"shmcomm {__version__}")
        parser.exit(0)
