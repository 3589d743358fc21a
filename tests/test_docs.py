"""What the documents say is so: their code runs and prints what they claim, their links lead somewhere."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest
from helpers import RESERVES_IN_PIECES

import shmcomm

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PRINTED = re.compile(r"^\s*print\(.*\)  # (.*)$", re.MULTILINE)


def blocks():
    for document in DOCUMENTS:
        for number, code in enumerate(_BLOCK.findall(document.read_text("utf-8"))):
            yield pytest.param(code, id=f"{document.stem}-{number}")


def names():
    table = (ROOT / "docs" / "plan-names.md").read_text("utf-8")
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    return [pytest.param(*row, id=row[0]) for row in rows]


def run(arguments, folder):
    done = subprocess.run(arguments, cwd=folder, check=False, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("code", list(blocks()))
def test_code_blocks_run_and_print_what_they_say(code, tmp_path):
    if "import numpy" in code and importlib.util.find_spec("numpy") is None:
        pytest.skip("numpy is not installed")
    if "(720, 1280)" in code and not RESERVES_IN_PIECES:
        pytest.skip("this system body has no large messages")
    script = tmp_path / "block.py"
    script.write_text(code, "utf-8")
    assert run([sys.executable, str(script)], tmp_path).splitlines() == _PRINTED.findall(code)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples(example, tmp_path):
    assert run([sys.executable, str(example)], tmp_path).endswith("all right\n")


@pytest.mark.parametrize(("plan", "here", "status"), names())
def test_names_of_the_plan(plan, here, status):
    name = re.findall(r"`([A-Z]\w+(?:\.\w+)?)", here)[0]
    assert status in ("0.1", "planned")
    assert _exists(name) == (status == "0.1"), f"{plan} is {status}, but {name} says otherwise"


def _exists(name):
    owner, _, member = name.partition(".")
    if owner == "BufferHeader" and member:
        with shmcomm.SharedMemoryBuffer(64) as buffer:
            return hasattr(buffer.header, member)
    return hasattr(shmcomm, owner) and (not member or hasattr(getattr(shmcomm, owner), member))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8"))
    missing = [target for target in targets if "://" not in target and not (document.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("command", ["demo", "test"])
def test_readme_has_its_two_commands_in_one_line_each(command):
    found = re.findall(rf"<!-- command: {command} -->\n```sh\n([^\n]+)\n```", (ROOT / "README.md").read_text("utf-8"))
    assert len(found) == 1
    assert found[0].startswith("python3 -m venv .venv && ")


def test_readme_names_every_command_that_there_is():
    from shmcomm._cli import COMMANDS

    text = (ROOT / "README.md").read_text("utf-8") + (ROOT / "docs" / "guide.md").read_text("utf-8")
    assert [name for name in COMMANDS if f"shmcomm {name}" not in text] == []
