"""The memory format: csrc/LAYOUT.md is fresh, tables cover their structs, and a changed format has a new version."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from test_c import CSRC, make, unavailable

# Format version -> fingerprint of all tables, as csrc/LAYOUT.md prints it. A new fingerprint needs a new version
# (SHC_SEG_FORMAT_VERSION in csrc/seg/shc_seg_shm.h) and a line here, once a version has been published.
FINGERPRINTS = {
    1: 0xBE9868BB3F71B4D5,
}

FNV_OFFSET, FNV_PRIME, MASK = 0xCBF29CE484222325, 0x100000001B3, 2**64 - 1


class Row(NamedTuple):
    type: str
    field: str
    offset: int
    size: int
    writer: str
    note: str


class Document(NamedTuple):
    version: int
    fingerprint: int
    sizes: dict[str, int]
    rows: list[Row]


def parse(text):
    """LAYOUT.md as data."""
    version, fingerprint = re.search(
        r"^Format version (\d+), fingerprint of all tables `(\w{16})`", text, re.M
    ).groups()
    sizes, rows, current = {}, [], None
    for line in text.splitlines():
        if heading := re.match(r"## (\w+): (\d+) bytes ", line):
            current = heading[1]
            sizes[current] = int(heading[2])
        elif cells := re.match(r"\| (\d+) \| (\d+) \| `(\w+)` \| (.*) \|$", line):
            writer, note = (part.replace("\\|", "|") for part in re.split(r"(?<!\\) \| ", cells[4]))
            rows.append(Row(current, cells[3], int(cells[1]), int(cells[2]), writer, note))
    return Document(int(version), int(fingerprint, 16), sizes, rows)


def problems(document):
    """Holes, overlaps and tails that the tables do not cover."""
    for type_, size in document.sizes.items():
        end = 0
        for row in (row for row in document.rows if row.type == type_):
            if row.offset != end:
                yield f"{type_}.{row.field} is at {row.offset}, but what stands before it ends at {end}"
            end = row.offset + row.size
        if end != size:
            yield f"{type_} has {size} bytes, but its table ends at {end}"


def fnv(state, data):
    for byte in data:
        state = (state ^ byte) * FNV_PRIME & MASK
    return state


def fingerprint(document):
    """shc_layout_hash of base/shc_layout.h, over again."""
    state = fnv(FNV_OFFSET, document.version.to_bytes(8, "little"))
    for row in document.rows:
        for text in (row.type, row.field):
            state = fnv(state, text.encode() + b"\xff")
        for number in (row.offset, row.size):
            state = fnv(state, number.to_bytes(8, "little"))
    return state


@pytest.fixture(scope="module")
def text():
    return (CSRC / "LAYOUT.md").read_text()


@pytest.fixture(scope="module")
def document(text):
    return parse(text)


def test_document_is_what_the_sources_say(text):
    if shutil.which("make") is None or shutil.which("gcc") is None:
        unavailable("needs make and a C compiler")
    program = Path("../build/c/release/bin/print_layout")
    built = make(str(program))
    assert built.returncode == 0, built.stderr
    fresh = subprocess.run([CSRC / program], capture_output=True, text=True, check=True).stdout
    assert text == fresh, "csrc/LAYOUT.md is stale: run `make -C csrc layout`"


def test_document_is_what_the_extension_says(document):
    from shmcomm import _core

    assert [Row(*row) for row in _core._layout()] == document.rows


def test_tables_cover_their_structs(document):
    assert document.sizes
    assert list(problems(document)) == []


def test_every_field_has_a_writer_and_a_meaning(document):
    assert [row for row in document.rows if not row.writer or not row.note] == []


def test_fingerprint_is_that_of_the_rows(document):
    assert document.fingerprint == fingerprint(document)


def test_a_new_format_has_a_new_version(document):
    assert document.version in FINGERPRINTS, "record the new format version in FINGERPRINTS"
    assert f"{document.fingerprint:#018x}" == f"{FINGERPRINTS[document.version]:#018x}", (
        "the layout changed: bump SHC_SEG_FORMAT_VERSION (unless this version was never published) and record it above"
    )


def test_holes_overlaps_and_tails_are_seen(document):
    first = document.rows[0]
    for broken in (first._replace(size=first.size - 1), first._replace(size=first.size + 1), first._replace(offset=1)):
        assert list(problems(document._replace(rows=[broken, *document.rows[1:]])))
    assert list(problems(document._replace(rows=document.rows[:-1])))


def test_fingerprint_depends_on_names_offsets_sizes_and_version_only(document):
    first = document.rows[0]
    for changed in (
        first._replace(type="other"), first._replace(field="other"), first._replace(offset=1), first._replace(size=1)
    ):  # fmt: skip
        assert fingerprint(document._replace(rows=[changed, *document.rows[1:]])) != fingerprint(document)
    assert fingerprint(document._replace(version=document.version + 1)) != fingerprint(document)
    prose = first._replace(writer="other", note="other")
    assert fingerprint(document._replace(rows=[prose, *document.rows[1:]])) == fingerprint(document)
