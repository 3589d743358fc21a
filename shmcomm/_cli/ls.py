"""``shmcomm ls``: what is in shared memory."""

import argparse
import json
import os
import pwd
import time
from typing import Any

from shmcomm._cli import _table

HELP = "list shared-memory segments, their memory, state and participants"

_HEAD = ("NAME", "KIND", "MEMORY", "STATE", "AGE", "PROCESSES")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--directory", metavar="DIR", help="look there (default: SHMCOMM_DIR, or /dev/shm)")
    parser.add_argument("--json", action="store_true", help="print all that is known, as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print a row per segment, sorted by name."""
    from shmcomm import _core

    found = sorted(_core.list_segments(directory=arguments.directory), key=qualified)
    if arguments.json:
        print(json.dumps(found, indent=2))
    elif found:
        now = time.time()
        print(_table.render(_HEAD, [_row(segment, now) for segment in found], "<<><><"))
    else:
        print("no segments")
    return 0


def qualified(segment: dict[str, Any]) -> str:
    """The name, as ``rm`` takes it: with its namespace, unless only one is shown."""
    name: str = segment["name"]
    only_one = segment["namespace"] == os.environ.get("SHMCOMM_NAMESPACE", "")
    return name if only_one else f"{segment['namespace']}+{name}"


def _row(segment: dict[str, Any], now: float) -> tuple[str, ...]:
    return (
        _table.printable(qualified(segment)),
        segment["kind"] or "?",
        _table.size(segment["allocated"]),
        segment["state"] + (", persistent" if segment["persist"] else ""),
        _table.age(now - segment["created"]) if segment["created"] else "?",
        reason(segment) or _processes(segment["participants"]),
    )


def reason(segment: dict[str, Any]) -> str | None:
    """Why there is nothing to tell of its processes."""
    if segment["state"] == "denied":
        return f"belongs to {_user(segment['uid'])}, and its mode 0o{segment['mode']:o} keeps this user out"
    error: str | None = segment["error"]
    return error


def _user(uid: int) -> str:
    try:
        return f"user {_table.printable(pwd.getpwuid(uid).pw_name)} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _processes(participants: list[dict[str, Any]]) -> str:
    return ", ".join(f"{one['pid']}" + ("" if one["alive"] else " (dead)") for one in participants) or "-"
