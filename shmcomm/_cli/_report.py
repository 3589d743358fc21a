"""The demo's report, for people."""

from typing import Any

from shmcomm._cli._table import count, render

MEGA = 1e6

Facts = dict[str, Any]


def text(report: Facts) -> str:
    """Return the report for people."""
    found = report["input"]
    parts = [
        f"shmcomm {report['version']}, Python {report['python']}",
        f"{count(found['files'], 'file')}, {found['bytes'] / MEGA:.1f} MB of {found['path']}{_skipped(found)}",
        "",
        f"A word index: {report['index']['entries']:,} entries of {count(report['index']['words'], 'word')}.",
        _runs_table(report["runs"]),
    ]
    for run in report["runs"]:
        if run.get("killed"):
            parts += ["", _about_kill(run["killed"], found)]
    parts += [
        "",
        f"The same {found['messages']:,} messages from one process to another that does nothing with them.",
        _transport_table(report["transport"]),
        "",
        _verdict(report),
    ]
    return "\n".join(parts)


def left_out(reasons: dict[str, int]) -> str:
    """Return why files were left out, how many for each reason; nothing if none was."""
    return ", ".join(f"{number:,} {reason}" for reason, number in reasons.items() if number)


def _skipped(found: Facts) -> str:
    reasons = left_out(found["left_out"])
    return f" (left out: {reasons})" if reasons else ""


def _runs_table(runs: list[Facts]) -> str:
    head = ("", "files", "MB", "seconds", "messages/s", "answer")
    return _indent(render(head, [_run_row(run) for run in runs], "<>>>><"))


def _run_row(run: Facts) -> tuple[str, ...]:
    rate = f"{run['messages_per_second']:,.0f}" if run["messages"] else "-"
    answer = "identical" if run["correct"] else "DIFFERENT"
    if not run["messages"]:
        answer = "the reference"
    return run["label"], f"{run['files']:,}", f"{run['bytes'] / MEGA:.1f}", f"{run['seconds']:.2f}", rate, answer


def _about_kill(killed: Facts, found: Facts) -> str:
    again = count(killed["sent_again"], "message")
    return (
        f"  Worker {killed['pid']} got SIGKILL after {killed['after']:,} of {found['messages']:,} messages.\n"
        f"  A new process went on with its two rings; {again} without an answer went out again."
    )


def _transport_table(rows: list[Facts]) -> str:
    head = ("", "messages/s", "MB/s", "")
    slowest = min(row["messages_per_second"] for row in rows)
    table = [
        (
            row["label"],
            f"{row['messages_per_second']:,.0f}",
            f"{row['bytes_per_second'] / MEGA:,.0f}",
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
