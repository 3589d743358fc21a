"""Builds the extension module shmcomm._core from csrc/.

Everything else stands in pyproject.toml. Switches, by environment:

SHMCOMM_BUILD   release (default), debug, asan, tsan or coverage
SHMCOMM_OS      linux (default on Linux) or posix: which body of csrc/os/shc_os.h is compiled
CC, CFLAGS, LDFLAGS   as everywhere

The text of all sources is hashed into the extension (SHMCOMM_SOURCE_HASH), so that the tests can refuse one that was
built from other sources than those beside it.
"""

import hashlib
import os
import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OS_BODIES = {"linux": "csrc/os/shc_os_linux.c", "posix": "csrc/os/shc_os_posix.c"}
SANITIZERS = {"asan": "-fsanitize=address,undefined", "tsan": "-fsanitize=thread"}
COMMON_FLAGS = ["-std=c11", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wextra"]
BUILDS = {
    "release": (["-O2"], []),
    "debug": (["-O0", "-g3", "-UNDEBUG", "-DSHC_ASSERT_LEVEL=2"], []),
    "asan": (
        ["-O1", "-g", "-UNDEBUG", "-DSHC_ASSERT_LEVEL=2", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all",
         SANITIZERS["asan"]],
        [SANITIZERS["asan"]],
    ),
    "tsan": (["-O1", "-g", "-UNDEBUG", "-DSHC_ASSERT_LEVEL=2", SANITIZERS["tsan"]], [SANITIZERS["tsan"]]),
    "coverage": (["-O0", "-g", "--coverage"], ["--coverage"]),
}  # fmt: skip
NEEDS = "Debian and Ubuntu: apt-get install gcc python3-dev"


def source_files(root=ROOT):
    """All C text of the project, in a fixed order."""
    return sorted(p for p in (root / "csrc").rglob("*") if p.suffix in {".c", ".h", ".def"})


def source_hash(root=ROOT):
    """16 hex digits that change whenever the C sources do."""
    digest = hashlib.sha256()
    for path in source_files(root):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def chosen_os(platform=sys.platform, environ=os.environ):
    """Which operating-system body to build, or SystemExit with the reason why none fits."""
    choice = environ.get("SHMCOMM_OS") or ("linux" if platform.startswith("linux") else None)
    if choice is None:
        raise SystemExit(
            f"shmcomm needs Linux (this is {platform}): futexes, pidfds and /dev/shm are used; SHMCOMM_OS=posix builds "
            "the plain POSIX body, which is for porting work only."
        )
    if choice not in OS_BODIES:
        raise SystemExit(f"SHMCOMM_OS={choice!r}: expected one of {', '.join(OS_BODIES)}")
    return choice


def chosen_build(environ=os.environ):
    """Which kind of build was asked for, or SystemExit naming the kinds."""
    choice = environ.get("SHMCOMM_BUILD") or "release"
    if choice not in BUILDS:
        raise SystemExit(f"SHMCOMM_BUILD={choice!r}: expected one of {', '.join(BUILDS)}")
    return choice


def describe_extension():
    """The arguments of setuptools.Extension."""
    chosen, build = chosen_os(), chosen_build()
    left_out = {path for name, path in OS_BODIES.items() if name != chosen}
    files = [path.relative_to(ROOT).as_posix() for path in source_files()]
    compile_flags, link_flags = BUILDS[build]
    return {
        "name": "shmcomm._core",
        "sources": [name for name in files if name.endswith(".c") and name not in left_out],
        "depends": [name for name in files if not name.endswith(".c")],
        "include_dirs": ["csrc"],
        "define_macros": [
            ("SHMCOMM_SOURCE_HASH", f'"{source_hash()}"'),
            ("SHMCOMM_BUILD_VARIANT", f'"{build}"'),
            *([("SHC_OS_POSIX", "1")] if chosen == "posix" else []),
        ],
        "extra_compile_args": COMMON_FLAGS + compile_flags,
        "extra_link_args": ["-pthread", *link_flags],
    }


def check_tools(compiler):
    """SystemExit with one sentence when the compiler or Python's headers are missing."""
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        raise SystemExit(f"shmcomm is compiled when it is installed, and {header} is missing. {NEEDS}")
    if shutil.which(compiler[0]) is None:
        raise SystemExit(f"shmcomm is compiled when it is installed, and {compiler[0]!r} is missing. {NEEDS}")


def in_parallel(compile_some):
    """Compiles each source in a thread of its own; the compiler object of setuptools takes one after the other."""

    def compile_all(sources, *args, **kwargs):
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return [obj for objs in pool.map(lambda one: compile_some([one], *args, **kwargs), sources) for obj in objs]

    return compile_all


def main():
    # Not at the top: the tests take source_hash() from here, and need no setuptools for it.
    from setuptools import Extension, setup
    from setuptools.command.build_ext import build_ext

    class BuildExt(build_ext):
        """Parallel; rebuilds when sources or switches changed, whatever the clock says."""

        def build_extension(self, ext):
            check_tools(self.compiler.compiler_so)
            for source in ext.sources:
                os.makedirs(os.path.join(self.build_temp, os.path.dirname(source)), exist_ok=True)
            stamp = Path(self.build_temp) / "shmcomm.stamp"
            wanted = repr((describe_extension(), self.compiler.compiler_so))
            if not stamp.exists() or stamp.read_text() != wanted:
                stamp.unlink(missing_ok=True)
                self.force = True
            self.compiler.compile = in_parallel(self.compiler.compile)
            super().build_extension(ext)
            stamp.write_text(wanted)
            if not self.inplace and chosen_build() == "release":
                self.copy_beside_sources(ext)

        def copy_beside_sources(self, ext):
            """`python -m` puts the current folder first: without this, `pip install . && python -m shmcomm` in a clone
            would find the package there, but no extension in it."""
            built = Path(self.get_ext_fullpath(ext.name))
            target = ROOT / "shmcomm" / built.name
            partial = target.with_name(f"{target.name}.{os.getpid()}")
            try:
                shutil.copy2(built, partial)
                partial.replace(target)  # a running Python keeps the file that it has mapped
            except OSError as error:
                partial.unlink(missing_ok=True)
                print(f"note: no copy of the extension beside the sources: {error}", file=sys.stderr)

    setup(ext_modules=[Extension(**describe_extension())], cmdclass={"build_ext": BuildExt})


if __name__ == "__main__":
    main()
