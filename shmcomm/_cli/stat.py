"""``shmcomm stat NAME``: what one segment holds, and who uses it."""

import argparse
import contextlib
import json
import os
import time
from typing import Any

from shmcomm._cli import _table
from shmcomm._cli.ls import qualified, reason

#: what opens a segment of each kind: the first that fits
CLASSES = {
    "buffer": ("SharedMemoryBuffer",),
    "ring": ("RingBufferChannel",),
    "pool": ("MemoryPool", "BufferPool"),
    "objects": ("ObjectPool",),
}

HELP = "show what one segment holds, what moved through it and who uses it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="as ls shows it: NAME, or NAMESPACE+NAME")
    parser.add_argument("--directory", metavar="DIR", help="look there (default: SHMCOMM_DIR, or /dev/shm)")
    parser.add_argument("--json", action="store_true", help="print all that is known, as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the figures of ``stats()``; an OSError or LayoutError says why there are none."""
    segment = _find(arguments.name, arguments.directory)
    kind, stats = _stats_of(segment, arguments.directory)
    if arguments.json:
        print(json.dumps({"name": arguments.name, "kind": kind, **stats}, indent=2))
    else:
        print(f"{kind} {_table.printable(arguments.name)}, {_table.size(segment['allocated'])}")
        print("\n".join(_lines(stats)))
    return 0


def _find(name: str, directory: str | None) -> dict[str, Any]:
    from shmcomm import _core

    for segment in _core.list_segments(directory=directory):
        if qualified(segment) == name:
            if (why := reason(segment)) is not None:
                raise OSError(f"{_table.printable(name)}: {why}")
            return segment
    raise FileNotFoundError(f"there is no segment named {_table.printable(name)}; `shmcomm ls` shows what there is")


def _stats_of(segment: dict[str, Any], directory: str | None) -> tuple[str, dict[str, Any]]:
    """The class and its figures. The object is opened for the moment, as any process would: what nobody alive uses is
    then gone."""
    os.environ["SHMCOMM_NAMESPACE"] = segment["namespace"]
    with _open(segment, directory) as opened:
        stats: dict[str, Any] = opened.stats().asdict()
    stats["participants"] = [one for one in stats["participants"] if one["pid"] != os.getpid()]
    return type(opened).__name__, stats


def _open(segment: dict[str, Any], directory: str | None) -> Any:
    import shmcomm

    *others, last = CLASSES[segment["kind"]]
    # Figures are no secret: False opens an encrypted channel to be looked at only.
    options = {"encryption_key": False} if segment["kind"] == "ring" else {}
    needed = (_make_nothing,) if segment["kind"] == "objects" else ()
    for name in others:
        with contextlib.suppress(shmcomm.LayoutError):
            return getattr(shmcomm, name).attach(segment["name"], *needed, directory=directory)
    return getattr(shmcomm, last).attach(segment["name"], *needed, directory=directory, **options)


def _make_nothing(*_: Any) -> None:
    """The factory of a pool of which nothing is asked but its figures."""


def _lines(stats: dict[str, Any]) -> list[str]:
    tables: dict[str, Any] = {field: value for field, value in stats.items() if isinstance(value, list | tuple)}
    figures = {field: value for field, value in stats.items() if field not in tables}
    width = max(map(len, figures))
    lines = [f"  {_words(field):{width}}  {_figure(field, value)}" for field, value in figures.items()]
    for field, rows in tables.items():
        lines += ["", f"  {_words(field)}"] + [f"  {line}" for line in _table_of(rows)]
    return lines


def _table_of(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["none"]
    head = [_words(field).upper() for field in rows[0]]
    cells = [[_figure(field, value) for field, value in row.items()] for row in rows]
    return _table.render(head, cells, "<" * len(head)).splitlines()


def _words(field: str) -> str:
    return field.replace("_", " ")


def _figure(field: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if field == "since":
        return f"{_table.age(time.time() - value)} ago"
    if field.startswith("bytes"):
        return _table.size(value)
    if isinstance(value, int) and field != "pid":
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value)
