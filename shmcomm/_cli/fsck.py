"""``shmcomm fsck [NAME]``: whether segments are what correct processes leave."""

import argparse
import json
import time
from typing import Any

from shmcomm._cli import _table
from shmcomm._cli.ls import qualified, reason

HELP = "check that segments are sound, without changing or opening them"

#: Looks at a segment that others are moving, and the pause between them: 0.2 s in all.
_LOOKS = 20
_PAUSE_S = 0.01

_HEAD = ("NAME", "KIND", "VERDICT")
_PARTS = {"head": "its head (what it is, its life, its participants)", "body": "its content"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="as ls shows it: NAME, or NAMESPACE+NAME (default: all that ls shows)"
    )
    parser.add_argument("--directory", metavar="DIR", help="look there (default: SHMCOMM_DIR, or /dev/shm)")
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print a verdict per segment; 1 if one is damaged, or if the one that was named could not be judged."""
    from shmcomm import _core

    found = sorted(_core.list_segments(directory=arguments.directory), key=qualified)
    if arguments.name is not None:
        found = [segment for segment in found if qualified(segment) == arguments.name]
        if not found:
            name = _table.printable(arguments.name)
            raise FileNotFoundError(f"there is no segment named {name}; `shmcomm ls` shows what there is")
    verdicts = [verdict for segment in found if (verdict := _verdict_of(segment, arguments.directory)) is not None]
    print(json.dumps(verdicts, indent=2) if arguments.json else _text(verdicts))
    good = ("sound",) if arguments.name is not None else ("sound", "busy", "unreadable")
    return 0 if all(verdict["verdict"] in good for verdict in verdicts) else 1


def _verdict_of(segment: dict[str, Any], directory: str | None) -> dict[str, Any] | None:
    """None: it is gone."""
    row = {"name": qualified(segment), "kind": segment["kind"], "verdict": "unreadable", "part": None}
    row |= {"in_use": any(one["alive"] for one in segment["participants"]), "error": reason(segment)}
    if segment["state"] == "corrupt":
        return row | {"verdict": "damaged", "part": "head"}
    if row["error"] is not None:
        return row
    try:
        return row | _look(segment, directory)
    except FileNotFoundError:
        return None


def _look(segment: dict[str, Any], directory: str | None) -> dict[str, Any]:
    """What others are just doing is no damage: look again until nobody has moved while it was looked at."""
    from shmcomm import _core

    for _ in range(_LOOKS):
        found = _core.check_segment(segment["name"], directory=directory, namespace=segment["namespace"])
        if found["verdict"] != "busy":
            break
        time.sleep(_PAUSE_S)
    return found


def _text(verdicts: list[dict[str, Any]]) -> str:
    if not verdicts:
        return "no segments"
    rows = [(_table.printable(one["name"]), one["kind"] or "?", _sentence(one)) for one in verdicts]
    damaged = sum(one["verdict"] == "damaged" for one in verdicts)
    unjudged = sum(one["verdict"] in ("busy", "unreadable") for one in verdicts)
    total = f"{_table.count(len(verdicts), 'segment')}: {damaged:,} damaged, {unjudged:,} not judged"
    return f"{_table.render(_HEAD, rows, '<<<')}\n{total}"


def _sentence(verdict: dict[str, Any]) -> str:
    match verdict["verdict"]:
        case "sound":
            return "sound"
        case "damaged":
            return f"damaged: {_PARTS[verdict['part']]}"
        case "busy":
            return "not judged: others were changing it all the time"
        case _:
            return f"not judged: {verdict['error']}"
