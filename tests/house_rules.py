"""The rules of the house for csrc/, as functions over text: each takes a path (relative to csrc/) and what is in the
file, and yields a sentence per violation. tests/test_house.py applies them and shows that each can fail."""

import re
from itertools import pairwise

LAYERS = ["base", "atomic", "os", "sync", "seg", "ds", "tool", "py"]
BELOW_TOOL = set(LAYERS[: LAYERS.index("tool")])
LABELLED = {"sync", "seg", "ds"}

LANGUAGE_HEADERS = {"errno.h", "inttypes.h", "limits.h", "stdalign.h", "stdbool.h", "stddef.h", "stdint.h", "string.h"}
COMPILER_HEADERS = {"arm_acle.h", "nmmintrin.h"}  # intrinsics: base/ only
TOOL_HEADERS = {"stdio.h", "stdlib.h"}
PY_HEADERS = {
    "fcntl.h": "opening FIFOs",
    "math.h": "timeouts",
    "poll.h": "fileno()",
    "pthread.h": "after-fork handler",
    "signal.h": "signals in waits",
    "structmember.h": "Python's",
    "sys/stat.h": "FIFOs and folders",
    "unistd.h": "descriptors",
}
SYSTEM_TYPES_HEADER = "sys/types.h"  # os/ only, like every other system header

ALLOWED_GLOBALS = {("os/shc_os_posix.c", "fork_pages")}  # the word that its fork handler must reach; see os/shc_os.h


def layer_of(path):
    return path.split("/")[0]


def code_only(text, *, keep_strings=False):
    """The text with comments (and string contents) blanked, so that line numbers stay."""

    def blank(match):
        token = match[0]
        if token.startswith("/"):
            return re.sub(r"[^\n]", " ", token)
        return token if keep_strings else token[0] + " " * (len(token) - 2) + token[-1]

    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|' r"'(?:\\.|[^'\\\n])+'", blank, text, flags=re.DOTALL)


def without_preprocessor(code):
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: "\n" * m[0].count("\n"), code, flags=re.MULTILINE)


def lines_matching(pattern, code):
    """(line number, match) for each occurrence."""
    for match in re.finditer(pattern, code, flags=re.MULTILINE):
        yield code.count("\n", 0, match.start()) + 1, match


def includes(text):
    """(line number, '<' or '"', name)"""
    for line, match in lines_matching(
        r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', code_only(text, keep_strings=True)
    ):
        yield line, match[1], match[2]


def top_level(text):
    """(line number, text) of each declaration and definition of the file; bodies in braces become `{}`."""
    code = without_preprocessor(code_only(text))
    depth, start, piece = 0, 0, ""
    for i, c in enumerate(code):
        if depth == 0:
            piece += c
        if c == "{":
            depth += 1
        elif c == "}":
            depth -= 1
            if depth == 0:
                piece += "}"
        ends_function = c == "}" and re.search(r"\)\s*\{\}$", piece) and "=" not in piece
        if depth == 0 and (c == ";" or ends_function):
            stripped = piece.strip()
            first = start + len(code[start : i + 1]) - len(code[start : i + 1].lstrip())
            yield code.count("\n", 0, first) + 1, stripped
            start, piece = i + 1, ""


# ---- layers and headers ----


def check_layers(path, text):
    own = LAYERS.index(layer_of(path))
    for line, mark, name in includes(text):
        if mark == "<":
            continue
        if "/" not in name or layer_of(name) not in LAYERS:
            yield f'{path}:{line}: "{name}" must be spelt from csrc/: "<layer>/<file>"'
        elif LAYERS.index(layer_of(name)) > own:
            yield f"{path}:{line}: {layer_of(path)}/ may not use {name}: the order is {' < '.join(LAYERS)}"


def allowed_system_headers(layer):
    if layer == "os":
        return None
    allowed = set(LANGUAGE_HEADERS)
    if layer == "base":
        allowed |= COMPILER_HEADERS
    if layer == "atomic":
        allowed |= {"stdatomic.h"}
    if layer in {"tool", "py"}:
        allowed |= TOOL_HEADERS
    if layer == "py":
        allowed |= {"Python.h", *PY_HEADERS}
    return allowed


def check_system_headers(path, text):
    allowed = allowed_system_headers(layer_of(path))
    for line, mark, name in includes(text):
        if mark == '"' and name != "Python.h":
            continue
        if name in {"Python.h", "stdatomic.h"} if allowed is None else name not in allowed:
            yield f"{path}:{line}: <{name}> does not belong in {layer_of(path)}/"


def check_python_only_in_py(path, text):
    if layer_of(path) == "py":
        return
    for line, match in lines_matching(r"\b(?:Py[A-Z]\w*|Py_\w+|_Py\w+|PY_\w+)", code_only(text)):
        yield f"{path}:{line}: {match[0]}: Python is known in py/ only"


def module_header(path, paths):
    """The header whose module a file belongs to: the longest stem that begins the file's own."""
    layer, _, name = path.partition("/")
    stem = re.sub(r"(_shm|_internal)?\.\w+$", "", name)
    headers = [p for p in paths if p.startswith(layer + "/") and re.search(r"(?<!_shm)(?<!_internal)\.h$", p)]
    fitting = [h for h in headers if f"{stem}_".startswith(h[len(layer) + 1 : -2] + "_")]
    return max(fitting, key=len, default=None)


def check_include_order(path, text, paths):
    """Own header first, then the system's, then the project's."""
    found = list(includes(text))
    if not path.endswith(".c") or not found:
        return
    line, _, first = found[0]
    layer = layer_of(path)
    own = f"{path[:-2]}.h"
    if layer == "py":
        good = first.startswith("py/")
    else:
        # A part of a module may begin with the module's internal header, which includes the public one.
        header = module_header(path, paths)
        good = first == own if own in paths else header is None or first in {header, f"{header[:-2]}_internal.h"}
        good = good or first == f"{header[:-2]}_body.h"
    if not good:
        yield f"{path}:{line}: the module's own header comes first, so that it is shown to stand alone"
    rest = [f for f in found[1:] if not f[2].endswith(".def")]
    for before, after in pairwise(rest):
        if before[1] == '"' and after[1] == "<":
            yield f"{path}:{after[0]}: <{after[2]}> comes before the project's headers"


# ---- what the language is used for ----


def check_atomics_stay_in_atomic(path, text):
    if layer_of(path) == "atomic":
        return
    pattern = r"\bvolatile\b|\b__(?:atomic|sync)_\w+|\b_Atomic\b|\batomic_\w+|\bmemory_order\w*"
    for line, match in lines_matching(pattern, code_only(text)):
        yield f"{path}:{line}: {match[0]}: atomic access goes through atomic/shc_atomic.h"


def check_attributes(path, text):
    if path in {"base/shc_base.h", "base/shc_math.h"} or layer_of(path) == "atomic":
        return
    for line, match in lines_matching(r"__attribute__|__builtin_\w+|\b__asm__\b|\basm\b", code_only(text)):
        yield f"{path}:{line}: {match[0]}: give it a name in base/shc_base.h"


FORBIDDEN_CALLS = [
    "malloc",
    "calloc",
    "realloc",
    "free",
    "strdup",
    "alloca",
    "printf",
    "fprintf",
    "sprintf",
    "snprintf",
    "vfprintf",
    "puts",
    "fputs",
    "putchar",
    "perror",
    "abort",
    "exit",
    "_exit",
    "atexit",
    "assert",
    "getenv",
    "setenv",
    "system",
    "raise",
    "strtok",
    "strerror",
]


def check_calls(path, text):
    if layer_of(path) not in BELOW_TOOL:
        return
    for line, match in lines_matching(rf"(?<![.\w>])({'|'.join(FORBIDDEN_CALLS)})\s*\(", code_only(text)):
        yield f"{path}:{line}: {match[1]}(): the core neither allocates, prints nor ends the process"


def is_mutable_variable(declaration):
    """Whether a declaration makes a variable that is not constant."""
    head = re.split(r"=", declaration, maxsplit=1)[0]
    if re.search(r"\b(typedef|_Static_assert|extern)\b", head):
        return False
    head = re.sub(r"\b(struct|union|enum)\b(\s+\w+)?\s*\{\}", "int", head)
    head = re.sub(r"\bSHC_[A-Z_]+(\([^()]*\))?", " ", head)  # attributes; tables made by a macro
    if re.fullmatch(r"\s*(static\s+)?(struct|union|enum)\s+\w+\s*;|\s*(int)?\s*;", head):
        return False
    if "(" in re.sub(r"\(\s*\*\s*(const\s+)?\w+\s*(\[[^]]*\])?\s*\)\s*\(", "", head):
        return False  # a function
    if "*" in head:
        return not re.search(r"\*\s*const\b", head)
    return bool(re.search(r"\w+\s+\w+", head)) and not re.search(r"\bconst\b", head)


def variable_name(declaration):
    names = re.findall(r"\w+", re.split(r"[=;\[]", declaration, maxsplit=1)[0])
    return names[-1] if names else ""


def check_globals(path, text):
    if layer_of(path) not in BELOW_TOOL:
        return
    for line, declaration in top_level(text):
        if is_mutable_variable(declaration) and (path, variable_name(declaration)) not in ALLOWED_GLOBALS:
            yield f"{path}:{line}: mutable global `{variable_name(declaration)}`: state lives in handles and segments"
    body = without_preprocessor(code_only(text))
    for line, match in lines_matching(r"^[ \t]+static\b[^;({]*[;={]", body):
        if is_mutable_variable(match[0].rstrip("={") + ";"):
            yield f"{path}:{line}: a function's static variable is a global, too"


def check_offsets(path, text):
    """Only seg/shc_seg.* turns an offset into a pointer; the rest takes pointers from it."""
    if layer_of(path) not in {"sync", "seg", "ds", "tool"} or path in {"seg/shc_seg.h", "seg/shc_seg.c"}:
        return
    code = code_only(text)
    for pattern, why in [
        (r"\bbase\s*\+(?!\+)|\+\s*(?:\w+(?:->|\.))*base\b", "arithmetic on a mapping's base"),
        (r"\(\s*u?intptr_t\s*\)", "a pointer as a number"),
        (r"&\s*\(?\s*(?:\w+(?:->|\.))*base\s*\)?\s*\[", "an index into a mapping's base"),
    ]:
        for line, match in lines_matching(pattern, code):
            yield f"{path}:{line}: `{match[0].strip()}`: {why}; offsets become pointers in seg/shc_seg.h"


# ---- what lies in shared memory ----

UNSTABLE_TYPES = (
    r"bool|_Bool|int|long|short|unsigned|signed|float|size_t|ssize_t|ptrdiff_t|pid_t|off_t|time_t|pthread_\w+"
)


def struct_bodies(code):
    for match in re.finditer(r"\b(?:struct|union)\b[^;{()]*\{", code):
        depth, i = 1, match.end()
        while depth and i < len(code):
            depth += {"{": 1, "}": -1}.get(code[i], 0)
            i += 1
        yield code.count("\n", 0, match.end()) + 1, code[match.end() : i - 1]


def check_shm_header(path, text):
    """`*_shm.h` describes bytes: fixed-width fields, no pointer; its functions are inline and (un)pack words."""
    if not path.endswith("_shm.h"):
        return
    for line, mark, name in includes(text):
        if mark == '"' and layer_of(name) not in {"base", "atomic"} and not name.endswith("_shm.h"):
            yield f"{path}:{line}: {name}: a _shm.h includes base/, atomic/ and other _shm.h only"
    code = without_preprocessor(code_only(text))
    for first, body in struct_bodies(code):
        for offset, field in enumerate(body.split("\n")):
            if "*" in re.sub(r"\[[^]]*\]", "", field):
                yield f"{path}:{first + offset}: a pointer means nothing in another process: `{field.strip()}`"
            if found := re.search(rf"\b({UNSTABLE_TYPES})\b", field):
                yield f"{path}:{first + offset}: {found[0]} has no fixed width; use uint32_t, uint64_t, shc_a64_t ..."
    for line, declaration in top_level(text):
        if re.match(r"(typedef|enum|struct|union|_Static_assert|SHC_\w+\()", declaration):
            continue
        if not declaration.startswith("static inline") and not declaration.startswith("static SHC_ALWAYS_INLINE"):
            head = declaration.split("{")[0].strip()
            yield f"{path}:{line}: only layouts and inline word packers stand in a _shm.h: `{head}`"
        elif "*" in declaration.split("{")[0]:
            yield f"{path}:{line}: a function over pointers belongs in the module's header"


def structs_without_table(text):
    """Names of `..._shm_t` structs for which no layout table is expanded to asserts."""
    code = code_only(text)
    structs = set(re.findall(r"\}\s*(shc_\w+_shm_t)\s*;", code))
    return structs - set(re.findall(r"\(\s*SHC_LAYOUT_ASSERT\s*,\s*(\w+)\s*\)", code))


# ---- acquire and release pairs ----

LABEL = r"(?:AR|SC|A|R)\d+"
ORDERED_CALL = r"\bshc_(?:a\d+_(?!\w*relaxed\b)\w+|fence_\w+)\s*\("
LABEL_COMMENT = rf"/\*\s*({LABEL}(?:\s*[,+]\s*{LABEL})*)\b[^*]*(?:\*(?!/)[^*]*)*\*/"


def closing_parenthesis(code, opening):
    """Index just behind the parenthesis that closes the one at `opening`."""
    depth = 0
    for i in range(opening, len(code)):
        depth += {"(": 1, ")": -1}.get(code[i], 0)
        if depth == 0:
            return i + 1
    return len(code)


def ordered_calls(text):
    """(line number, labels) of each atomic operation with an order; the label stands on a line of the call."""
    code = without_preprocessor(code_only(text))
    lines = text.split("\n")
    for match in re.finditer(ORDERED_CALL, code):
        first = code.count("\n", 0, match.start())
        last = code.count("\n", 0, closing_parenthesis(code, match.end() - 1))
        found = re.findall(LABEL_COMMENT, "\n".join(lines[first : last + 1]))
        yield first + 1, [label for group in found for label in re.findall(LABEL, group)]


def pair_table(header_text):
    """Labels with a row under a header comment's "Pairs"."""
    labels = set()
    for comment in re.findall(r"/\*.*?\*/", header_text, flags=re.DOTALL):
        table = re.search(r"^[ /*]*Pairs\b(.*?)(?:^\s*\*\s*$|\*/)", comment, flags=re.DOTALL | re.MULTILINE)
        for row in table[1].split("\n") if table else []:
            if match := re.match(rf"[\s*]*({LABEL})((?:\s*(?:<-|<->|,)\s*{LABEL})*)\s*:", row):
                labels |= set(re.findall(LABEL, match[1] + match[2]))
    return labels


def check_labels_present(path, text):
    if layer_of(path) not in LABELLED:
        return
    for line, labels in ordered_calls(text):
        if not labels:
            yield f"{path}:{line}: an ordered access without a label (`/* A1 */`) that the table of pairs explains"


def check_label_tables(files):
    """`files`: path -> text of all of csrc. Labels used in a module = labels in the table of its header."""
    used, tables = {}, {}
    for path, text in files.items():
        if layer_of(path) not in LABELLED or path.endswith(".def"):
            continue
        header = module_header(path, files)
        for line, labels in ordered_calls(text):
            if header is None and labels:
                yield f"{path}:{line}: no header whose table of pairs could explain {labels[0]}"
            for label in labels:
                used.setdefault(header, {}).setdefault(label, f"{path}:{line}")
        if path == header:
            tables[header] = pair_table(text)
    for header, labels in used.items():
        for label, where in labels.items():
            if header is not None and label not in tables[header]:
                yield f"{where}: {label} has no row in the table of pairs of {header}"
    for header, rows in tables.items():
        for label in sorted(rows - set(used.get(header, {}))):
            yield f"{header}: the table of pairs has {label}, which no access carries"


# ---- names ----


def function_names(text):
    """(line number, name, is static) of each function that the file declares or defines outside macros."""
    for line, declaration in top_level(text):
        head = re.sub(r"\bSHC_[A-Z_]+\([^()]*\)", "", declaration.split("{")[0])
        head = head.split("=")[0]
        if re.match(r"\s*(typedef|_Static_assert|PyDoc_STRVAR|struct\s+\w+\s*$)", head):
            continue
        if match := re.search(r"(?<!\*)\b(\w+)\s*\(", head):
            yield line, match[1], bool(re.search(r"\bstatic\b", head))


def check_names(path, text):
    """shc_<module>_..., pyshc_... in py/; internals that leave their file: shc_<module>__... or shc__..."""
    layer, stem = layer_of(path), re.sub(r"\.\w+$", "", path.split("/")[1])
    if path.endswith(".def"):
        return
    for line, name, static in function_names(text):
        if static and path.endswith(".c"):
            continue
        if layer == "py":
            if not re.match(r"pyshc_|PyInit_", name):
                yield f"{path}:{line}: {name}: what py/ shares between files is called pyshc_<module>_<verb>"
        elif not name.startswith("shc_"):
            yield f"{path}:{line}: {name}: what the core shares between files is called shc_<module>_<verb>"
        elif layer in {"os", "sync", "seg", "ds"}:
            module = stem.split("_")[1]
            if not re.match(rf"shc_(_?{module}_|{module}$)", name):
                yield f"{path}:{line}: {name}: this file's functions begin with shc_{module}_"
    if path.endswith(".h"):
        guard = f"{stem.upper()}_H"
        if not re.search(rf"#ifndef {guard}\n#define {guard}\n", text):
            yield f"{path}:1: the include guard is {guard}"
        for line, match in lines_matching(r"^#define (\w+)", code_only(text)):
            passing = match[1] == guard or f"#undef {match[1]}\n" in text
            if not passing and not re.match(r"(PY)?SHC_|PY_SSIZE_T_CLEAN", match[1]):
                yield f"{path}:{line}: {match[1]}: a header's macros begin with SHC_ (PYSHC_ in py/)"


def check_function_name_at_line_start(path, text):
    """Return type on a line of its own, so that `^name(` finds every definition."""
    code = without_preprocessor(code_only(text))
    for line, match in lines_matching(r"^(?!static_assert|_Static_assert)\w[\w \t*]*[ *](\w+)\([^;{}]*\)\s*\n\{", code):
        yield f"{path}:{line}: {match[1]}: the name of a function that is defined stands at the start of its line"


# ---- text ----


def check_text(path, text):
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > 120:
            yield f"{path}:{number}: {len(line)} columns; 120 is the limit"
        if line != line.rstrip():
            yield f"{path}:{number}: white space at the end of the line"
        if "\t" in line:
            yield f"{path}:{number}: a tab"
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
            yield f"{path}:{number}: open ends go to the issue list"
        if re.search(r"(^|\s)//(?!/)", code_strings_blanked(line)):
            yield f"{path}:{number}: comments are /* */"
    if not text.endswith("\n") or text.endswith("\n\n"):
        yield f"{path}: the file ends with one newline"


def code_strings_blanked(line):
    return re.sub(r'"(?:\\.|[^"\\])*"', '""', line)


# ---- kinds of objects ----


def kinds(text):
    """(id, NAME, stem) of each row of seg/shc_kinds.def."""
    return [
        (int(i), n, s)
        for i, n, s in re.findall(r"^SHC_KIND\(\s*(\d+)\s*,\s*(\w+)\s*,\s*(\w+)\s*\)", text, re.MULTILINE)
    ]


def files_of_kind(stem):
    """What every kind of object has, relative to the project's root."""
    return [
        f"csrc/ds/shc_{stem}_shm.h",
        f"csrc/ds/shc_{stem}.h",
        f"csrc/ds/shc_{stem}.c",
        f"csrc/py/py_{stem}.c",
        f"tests/c/unit/test_{stem}.c",
        f"tests/c/stress/stress_{stem}.c",
        f"tests/c/crash/crash_{stem}.c",
        f"tests/test_{stem}.py",
        f"benchmarks/c/bench_{stem}.c",
        f"benchmarks/bench_{stem}.py",
    ]


# Parts of the core that structures stand on and that are tested as much as one, though they are no kind of object.
MODULES = {"seg/shc_arena": "arena", "ds/shc_cells": "cells"}


def files_of_module(path, stem):
    """What such a part has, relative to the project's root."""
    return [
        f"csrc/{path}_shm.h",
        f"csrc/{path}.h",
        f"csrc/{path}.c",
        f"tests/c/unit/test_{stem}.c",
        f"tests/c/stress/stress_{stem}.c",
        f"tests/c/crash/crash_{stem}.c",
        f"tests/c/model/model_{stem}.c",
        f"tests/c/fuzz/fuzz_{stem}.c",
        f"benchmarks/c/bench_{stem}.c",
    ]


FILE_RULES = [
    check_layers,
    check_system_headers,
    check_python_only_in_py,
    check_atomics_stay_in_atomic,
    check_attributes,
    check_calls,
    check_globals,
    check_offsets,
    check_shm_header,
    check_labels_present,
    check_names,
    check_function_name_at_line_start,
    check_text,
]
