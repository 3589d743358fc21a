"""Plain tables, numbers and sentences for people."""

from collections.abc import Sequence


def render(head: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Return a table as text; ``align`` has one of ``<`` and ``>`` per column."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(_line(row, widths, align) for row in cells)


def _line(row: Sequence[str], widths: Sequence[int], align: str) -> str:
    fields = (f"{cell:{side}{width}}" for cell, width, side in zip(row, widths, align, strict=True))
    return "  ".join(fields).rstrip()


def printable(text: str) -> str:
    """Return a name as text that any terminal shows as it is: what is not plain ASCII is escaped, as in a literal."""
    return ascii(text)[1:-1]


def size(nbytes: int) -> str:
    """Return a number of bytes in the largest unit that keeps it readable: ``256 KiB``."""
    value, units = float(nbytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.3g} {units[0]}" if value < 1000 else f"{value:.0f} {units[0]}"


def age(seconds: float) -> str:
    """Return a span of time in its two largest units: ``3 h 20 min``."""
    rest = max(0, int(seconds))
    parts: list[str] = []
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        number, rest = divmod(rest, length)
        if number or (unit == "s" and not parts):
            parts.append(f"{number} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def sentence(error: BaseException) -> str:
    """Return what an error says, without the number that comes first in an OSError's text."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def count(number: int, noun: str, many: str | None = None) -> str:
    """Return ``1 file`` or ``1,234 files``; ``many`` is the plural if it is not noun + s."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def decimal(nbytes: float) -> str:
    """Return a number of bytes to three digits in the largest decimal unit: ``31.5 MB``."""
    value, units = nbytes, ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}" if value < 999.5 else f"{value:,.0f} {units[0]}"
