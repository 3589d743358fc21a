"""The switches of setup.py, and how it refuses."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETUP = runpy.run_path(str(ROOT / "setup.py"), run_name="shmcomm_setup")


def test_other_systems_are_refused_in_one_sentence():
    with pytest.raises(SystemExit, match=r"^shmcomm needs Linux \(this is darwin\)[^\n]*\.$"):
        SETUP["chosen_os"]("darwin", {})


def test_the_switch_builds_the_posix_body_anywhere():
    assert SETUP["chosen_os"]("darwin", {"SHMCOMM_OS": "posix"}) == "posix"
    assert SETUP["chosen_os"]("linux", {"SHMCOMM_OS": "posix"}) == "posix"
    assert SETUP["chosen_os"]("linux", {}) == "linux"


def test_unknown_switches_are_refused():
    with pytest.raises(SystemExit, match="SHMCOMM_OS='windows': expected one of linux, posix"):
        SETUP["chosen_os"]("linux", {"SHMCOMM_OS": "windows"})
    with pytest.raises(SystemExit, match="SHMCOMM_BUILD='fast': expected one of release, debug, asan, tsan, coverage"):
        SETUP["chosen_build"]({"SHMCOMM_BUILD": "fast"})


def test_a_missing_compiler_is_told_with_its_package(monkeypatch, tmp_path):
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(SETUP["sysconfig"], "get_path", lambda name: str(tmp_path))
    with pytest.raises(SystemExit, match=r"'no-such-compiler' is missing\. Debian and Ubuntu: apt-get install gcc"):
        SETUP["check_tools"](["no-such-compiler", "-O2"])


def test_missing_headers_are_told_with_their_package(monkeypatch, tmp_path):
    monkeypatch.setattr(SETUP["sysconfig"], "get_path", lambda name: str(tmp_path))
    with pytest.raises(SystemExit, match=r"Python\.h is missing\. Debian and Ubuntu: apt-get install gcc python3-dev"):
        SETUP["check_tools"](["gcc"])


@pytest.mark.parametrize("choice", ["linux", "posix"])
def test_exactly_one_system_body_is_compiled(monkeypatch, choice):
    monkeypatch.setenv("SHMCOMM_OS", choice)
    extension = SETUP["describe_extension"]()
    bodies = [s for s in extension["sources"] if s in SETUP["OS_BODIES"].values()]
    assert bodies == [SETUP["OS_BODIES"][choice]]
    assert (("SHC_OS_POSIX", "1") in extension["define_macros"]) == (choice == "posix")


def test_every_source_and_header_is_known_to_the_build(monkeypatch):
    monkeypatch.setenv("SHMCOMM_OS", "linux")
    extension = SETUP["describe_extension"]()
    known = {*extension["sources"], *extension["depends"], SETUP["OS_BODIES"]["posix"]}
    text = {p.relative_to(ROOT).as_posix() for p in (ROOT / "csrc").rglob("*") if p.suffix in {".c", ".h", ".def"}}
    assert known == text


def test_the_hash_changes_with_any_source(tmp_path):
    source_hash = SETUP["source_hash"]
    (tmp_path / "csrc" / "base").mkdir(parents=True)
    source = tmp_path / "csrc" / "base" / "shc_x.c"
    source.write_text("int x;\n")
    first = source_hash(tmp_path)
    assert source_hash(tmp_path) == first
    source.write_text("int y;\n")
    second = source_hash(tmp_path)
    source.rename(source.with_name("shc_y.c"))
    third = source_hash(tmp_path)
    assert len({first, second, third}) == 3
    (tmp_path / "csrc" / "README.md").write_text("prose")
    assert source_hash(tmp_path) == third
