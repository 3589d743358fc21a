"""The demo's report, for people."""

from typing import Any

from shmcomm._cli._table import count, decimal, render

MEGA = 1e6

#: Why a file was left out, where the key of the report is not the word for it.
_REASONS = {"beyond_limit": "beyond --limit"}

Facts = dict[str, Any]


def text(report: Facts) -> str:
    """Return the report for people."""
    found = report["input"]
    parts = [
        f"shmcomm {report['version']}, Python {report['python']}",
        f"{count(found['files'], 'file')}, {decimal(found['bytes'])} of {found['path']}",
        *_skipped(found),
        "",
        _about_index(report),
        _runs_table(report["runs"]),
        *_about_repeats(report["runs"]),
    ]
    for run in report["runs"]:
        if run.get("killed"):
            parts += ["", _about_kill(run["killed"], found)]
    parts += [
        "",
        f"The same {count(found['messages'], 'message')} to a process that does nothing with them:",
        _transport_table(report["transport"]),
        "",
        _verdict(report),
    ]
    return "\n".join(parts)


def left_out(reasons: dict[str, int]) -> str:
    """Return why files were left out, how many for each reason; nothing if none was."""
    return ", ".join(f"{number:,} {_REASONS.get(reason, reason)}" for reason, number in reasons.items() if number)


def _skipped(found: Facts) -> list[str]:
    reasons = left_out(found["left_out"])
    return [f"(left out: {reasons})"] if reasons else []


def _about_index(report: Facts) -> str:
    entries = count(report["index"]["entries"], "entry", "entries")
    words = count(report["index"]["words"], "word")
    return f"A word index, by {count(report['workers'], 'worker')}: {entries} of {words}."


def _runs_table(runs: list[Facts]) -> str:
    head = ("", "seconds", "messages/s", "answer")
    return _indent(render(head, [_run_row(run) for run in runs], "<>><"))


def _run_row(run: Facts) -> tuple[str, ...]:
    rate = f"{run['messages_per_second']:,.0f}" if run["messages"] else "-"
    answer = "identical" if run["correct"] else "DIFFERENT"
    if not run["messages"]:
        answer = "reference"
    return run["label"], f"{run['seconds']:.2f}", rate, answer


def _about_repeats(runs: list[Facts]) -> list[str]:
    repeats = max(run["repeats"] for run in runs)
    said = [f"  Medians of {repeats} runs each, taken in turn."] if repeats > 1 else []
    return [*said, "  Nearly all of this is counting words; what messages cost is below."]


def _about_kill(killed: Facts, found: Facts) -> str:
    again = count(killed["sent_again"], "message")
    return (
        f"  Worker {killed['pid']} got SIGKILL after {killed['after']:,} of {count(found['messages'], 'message')}.\n"
        f"  A new process went on with its two rings;\n"
        f"  {again} without an answer went out again."
    )


def _transport_table(rows: list[Facts]) -> str:
    head = ("", "messages/s", "text", "")
    slowest = min(row["messages_per_second"] for row in rows)
    table = [
        (
            row["label"],
            f"{row['messages_per_second']:,.0f}",
            f"{decimal(row['bytes_per_second'])}/s",
            f"{row['messages_per_second'] / slowest:.1f} x",
        )
        for row in rows
    ]
    return _indent(render(head, table, "<>>>"))


def _indent(lines: str) -> str:
    return "\n".join(f"  {line}" for line in lines.splitlines())


def _verdict(report: Facts) -> str:
    if report["ok"]:
        return f"All answers are right, nothing was left behind. {report['seconds']:.1f} s in all."
    wrong = [f"WRONG: {run['label']}: its index differs" for run in report["runs"] if not run["correct"]]
    wrong += [f"LEFT BEHIND: {name}" for name in report["left_behind"]]
    return "\n".join(wrong)
