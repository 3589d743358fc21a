"""The rules of csrc/ hold (house_rules.py says which), and each rule catches what it is there for."""

import re
from pathlib import Path

import house_rules as rules
import pytest

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
FILES = {
    p.relative_to(CSRC).as_posix(): p.read_text() for p in sorted(CSRC.rglob("*")) if p.suffix in {".c", ".h", ".def"}
}
KINDS = rules.kinds(FILES.get("seg/shc_kinds.def", ""))


def assert_none(violations):
    violations = list(violations)
    if violations:
        pytest.fail("\n".join(violations), pytrace=False)


# ---- the sources keep the rules ----


def test_sources_are_found():
    assert {"base/shc_base.h", "atomic/shc_atomic.h", "os/shc_os.h"} <= set(FILES)
    assert {rules.layer_of(path) for path in FILES} <= set(rules.LAYERS)


@pytest.mark.parametrize("rule", rules.FILE_RULES, ids=lambda rule: rule.__name__)
def test_rule(rule):
    assert_none(violation for path, text in FILES.items() for violation in rule(path, text))


def test_include_order():
    assert_none(v for path, text in FILES.items() for v in rules.check_include_order(path, text, FILES))


def test_labels_and_tables_of_pairs_agree():
    assert_none(rules.check_label_tables(FILES))


def test_every_struct_in_shared_memory_has_a_layout_table():
    assert_none(
        f"{path}: {name} has no layout table"
        for path, text in FILES.items()
        if path.endswith("_shm.h")
        for name in rules.structs_without_table(text)
    )


def test_includes_lead_to_files():
    assert_none(
        f'{path}:{line}: no file "{name}"'
        for path, text in FILES.items()
        for line, mark, name in rules.includes(text)
        if mark == '"' and name not in FILES
    )


def test_c_tests_and_benchmarks_are_tidy():
    sources = [p for folder in ("tests/c", "benchmarks/c") for p in sorted((ROOT / folder).rglob("*.[ch]"))]
    assert sources
    assert_none(v for p in sources for v in rules.check_text(p.relative_to(ROOT).as_posix(), p.read_text()))


def test_suppressions_are_empty():
    """An entry would need a comment and an issue; there is none."""
    for name in ("tsan.supp", "lsan.supp", "ubsan.supp"):
        assert (ROOT / "tests" / "c" / name).read_text() == ""


@pytest.mark.parametrize("stem", [stem for _, _, stem in KINDS])
def test_kind_has_all_its_files(stem):
    missing = [name for name in rules.files_of_kind(stem) if not (ROOT / name).exists()]
    assert_none(f"the kind {stem} lacks {name}" for name in missing)


@pytest.mark.parametrize(("path", "stem"), rules.MODULES.items())
def test_module_has_all_its_files(path, stem):
    missing = [name for name in rules.files_of_module(path, stem) if not (ROOT / name).exists()]
    assert_none(f"the module {stem} lacks {name}" for name in missing)


def test_kinds_are_numbered_once():
    assert KINDS, "seg/shc_kinds.def has no rows"
    for column in zip(*KINDS, strict=True):
        assert len(set(column)) == len(column)
    structures = {
        re.sub(r"ds/shc_(\w+)_shm\.h", r"\1", path) for path in FILES if re.fullmatch(r"ds/shc_\w+_shm\.h", path)
    }
    engines = {stem for path, stem in rules.MODULES.items() if path.startswith("ds/")}
    assert {stem for _, _, stem in KINDS} == structures - engines, (
        "ds/*_shm.h and seg/shc_kinds.def name different kinds"
    )


def test_every_scenario_is_described():
    """tests/SCENARIOS.md has a section for each stress, crash, model and fuzz program."""
    described = set(re.findall(r"^### `(\w+)`$", (ROOT / "tests" / "SCENARIOS.md").read_text(), re.MULTILINE))
    programs = {
        p.stem
        for suite in ("stress", "crash", "model", "fuzz")
        for p in (ROOT / "tests" / "c" / suite).glob(f"{suite}_*.c")
    }
    assert programs - described == set(), "programs that SCENARIOS.md does not describe"
    assert described - programs == set(), "SCENARIOS.md describes what is not there"


# ---- and each rule can fail ----

SHM_HEAD = "#ifndef SHC_X_SHM_H\n#define SHC_X_SHM_H\n"
PLANTED = [
    (rules.check_layers, "os/shc_x.c", '#include "seg/shc_seg.h"\n'),
    (rules.check_layers, "ds/shc_x.c", '#include "shc_ring.h"\n'),
    (rules.check_layers, "base/shc_x.h", '#  include "atomic/shc_atomic.h"\n'),
    (rules.check_system_headers, "ds/shc_x.c", "#include <unistd.h>\n"),
    (rules.check_system_headers, "sync/shc_x.c", "#include <linux/futex.h>\n"),
    (rules.check_system_headers, "seg/shc_x.c", "#include <sys/mman.h>\n"),
    (rules.check_system_headers, "tool/shc_x.c", "#include <Python.h>\n"),
    (rules.check_system_headers, "os/shc_x.c", '#include "Python.h"\n'),
    (rules.check_system_headers, "os/shc_x.c", "#include <stdatomic.h>\n"),
    (rules.check_system_headers, "py/pyshc_x.c", "#include <sys/mman.h>\n"),
    (rules.check_system_headers, "ds/shc_x.c", "#include <stdlib.h>\n"),
    (rules.check_python_only_in_py, "tool/shc_x.c", "PyObject *f(void);\n"),
    (rules.check_python_only_in_py, "seg/shc_x.c", "int x = Py_None != 0;\n"),
    (rules.check_atomics_stay_in_atomic, "ds/shc_x.c", "volatile int x;\n"),
    (rules.check_atomics_stay_in_atomic, "os/shc_x.c", "int x = __atomic_load_n(p, 0);\n"),
    (rules.check_atomics_stay_in_atomic, "py/pyshc_x.c", "__sync_synchronize();\n"),
    (rules.check_atomics_stay_in_atomic, "ds/shc_x.c", "atomic_thread_fence(memory_order_acquire);\n"),
    (rules.check_atomics_stay_in_atomic, "ds/shc_x.c", "_Atomic uint32_t x;\n"),
    (rules.check_attributes, "ds/shc_x.c", "__attribute__((noinline)) int f(void);\n"),
    (rules.check_attributes, "os/shc_x.c", "return __builtin_clz(x);\n"),
    (rules.check_attributes, "py/pyshc_x.c", '__asm__("nop");\n'),
    (rules.check_calls, "ds/shc_x.c", "p = malloc(3);\n"),
    (rules.check_calls, "os/shc_x.c", "    free (p);\n"),
    (rules.check_calls, "seg/shc_x.c", 'printf("%d", x);\n'),
    (rules.check_calls, "sync/shc_x.c", "abort();\n"),
    (rules.check_calls, "base/shc_x.c", "exit(1);\n"),
    (rules.check_calls, "os/shc_x.c", 'x = getenv("HOME");\n'),
    (rules.check_globals, "ds/shc_x.c", "static int counter;\n"),
    (rules.check_globals, "ds/shc_x.c", "int counter = 0;\n"),
    (rules.check_globals, "os/shc_x.c", "static const char *names[] = {0};\n"),
    (rules.check_globals, "seg/shc_x.c", "static struct { int a; } cache;\n"),
    (rules.check_globals, "seg/shc_x.c", "static void (*hook)(int);\n"),
    (rules.check_globals, "seg/shc_x.c", "static shc_a64_t fork_pages;\n"),
    (rules.check_globals, "ds/shc_x.c", "int\nf(void)\n{\n    static int calls;\n    return calls++;\n}\n"),
    (rules.check_offsets, "ds/shc_x.c", "p = seg->base + offset;\n"),
    (rules.check_offsets, "ds/shc_x.c", "p = offset + seg->base;\n"),
    (rules.check_offsets, "tool/shc_x.c", "p = &seg->base[offset];\n"),
    (rules.check_offsets, "seg/shc_seg_x.c", "p = (void *)((uintptr_t)p + offset);\n"),
    (rules.check_shm_header, "ds/shc_x_shm.h", '#include "seg/shc_seg.h"\n'),
    (rules.check_shm_header, "ds/shc_x_shm.h", "typedef struct shc_x_shm {\n    uint8_t *data;\n} shc_x_shm_t;\n"),
    (rules.check_shm_header, "ds/shc_x_shm.h", "typedef struct shc_x_shm {\n    bool open;\n} shc_x_shm_t;\n"),
    (rules.check_shm_header, "ds/shc_x_shm.h", "struct shc_x_shm {\n    struct {\n        size_t n;\n    } in;\n};\n"),
    (rules.check_shm_header, "ds/shc_x_shm.h", "int shc_x_open(uint32_t n);\n"),
    (
        rules.check_shm_header,
        "ds/shc_x_shm.h",
        "static inline int\nshc_x_get(shc_x_shm_t *x)\n{\n    return x->n;\n}\n",
    ),
    (rules.check_labels_present, "ds/shc_x.c", "    v = shc_a64_load_acquire(&x->head);\n"),
    (rules.check_labels_present, "seg/shc_x.c", "    shc_a32_store_release(&x->head, 1);\n"),
    (
        rules.check_labels_present,
        "sync/shc_x.c",
        "    if (shc_a32_cas_acquire(&x->w, &v, 1))\n        return; /* A1 */\n",
    ),
    (rules.check_labels_present, "sync/shc_x.c", "    shc_a32_exchange_release(&x->w, 0); /* gives up */\n"),
    (rules.check_labels_present, "sync/shc_x.h", "    shc_fence_seq_cst();\n"),
    (rules.check_names, "ds/shc_x.c", "int\nring_push(void)\n{\n}\n"),
    (rules.check_names, "ds/shc_x.h", SHM_HEAD.replace("_SHM", "") + "int shc_y_push(int a);\n#endif\n"),
    (rules.check_names, "ds/shc_x.h", "#ifndef X_H\n#define X_H\n#endif\n"),
    (rules.check_names, "ds/shc_x.h", SHM_HEAD.replace("_SHM", "") + "#define LIMIT 3\n#endif\n"),
    (rules.check_names, "py/pyshc_x.c", "PyObject *\nring_push(PyObject *self)\n{\n}\n"),
    (rules.check_function_name_at_line_start, "ds/shc_x.c", "static int push(int a,\n    int b)\n{\n}\n"),
    (rules.check_text, "ds/shc_x.c", "x" * 121 + "\n"),
    (rules.check_text, "ds/shc_x.c", "x; \n"),
    (rules.check_text, "ds/shc_x.c", "\tx;\n"),
    (rules.check_text, "ds/shc_x.c", "/* TO" + "DO: more */\n"),
    (rules.check_text, "ds/shc_x.c", "x; // why\n"),
    (rules.check_text, "ds/shc_x.c", "x;"),
]

FINE = [
    (
        rules.check_layers,
        "ds/shc_x.c",
        '/* #include "py/pyshc.h" */\n#include "ds/shc_ring.h"\n#include "base/shc_base.h"\n',
    ),
    (rules.check_system_headers, "ds/shc_x.c", "#include <string.h>\n#include <stdint.h>\n"),
    (rules.check_system_headers, "os/shc_x.c", "#include <sys/mman.h>\n"),
    (rules.check_atomics_stay_in_atomic, "ds/shc_x.c", '/* volatile */ s = "volatile";\n'),
    (rules.check_calls, "ds/shc_x.c", "/* printf() */ x->free(y); shc_pool_free(z); buffer_exit(1);\n"),
    (rules.check_calls, "tool/shc_x.c", 'printf("x");\n'),
    (
        rules.check_globals,
        "ds/shc_x.c",
        "static const int a[] = {1};\nstatic const char *const b[] = {0};\nint f(int x);\n",
    ),
    (rules.check_globals, "ds/shc_x.c", "typedef struct x {\n    int a;\n} x_t;\nenum { A = 1 };\nstruct y;\n"),
    (
        rules.check_globals,
        "ds/shc_x.c",
        "static int\nf(int x)\n{\n    static const int t[] = {1};\n    return t[x];\n}\n",
    ),
    (rules.check_globals, "os/shc_os_posix.c", "static shc_a64_t fork_pages;\n"),
    (rules.check_offsets, "seg/shc_seg.c", "p = seg->base + offset;\n"),
    (rules.check_offsets, "ds/shc_x.c", "/* base + offset */ x = database + 1; y = base++;\n"),
    (rules.check_shm_header, "ds/shc_x_shm.h", "typedef struct shc_x_shm {\n    uint8_t pad[2 * N];\n} shc_x_shm_t;\n"),
    (rules.check_shm_header, "ds/shc_x_shm.h", "static inline int\nshc_x_state(uint32_t w)\n{\n    return w & 3;\n}\n"),
    (rules.check_labels_present, "ds/shc_x.c", "    v = shc_a64_load_acquire(&x->head); /* A1 */\n"),
    (rules.check_labels_present, "ds/shc_x.c", "    v = shc_a64_load_relaxed(&x->head);\n"),
    (
        rules.check_labels_present,
        "ds/shc_x.c",
        "    if (shc_a64_cas_seq_cst(&x->head,\n            &v, 1)) { /* A1, R2: why */\n",
    ),
    (rules.check_names, "ds/shc_x.c", "static int\npush(void)\n{\n}\nint\nshc_x_push(void)\n{\n}\n"),
    (rules.check_function_name_at_line_start, "ds/shc_x.c", "static int\npush(int a)\n{\n    if (a) {\n    }\n}\n"),
    (rules.check_text, "ds/shc_x.c", 's = "http://x";\n'),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED, ids=lambda v: getattr(v, "__name__", None))
def test_rule_catches(rule, path, text):
    assert list(rule(path, text))


@pytest.mark.parametrize(("rule", "path", "text"), FINE, ids=lambda v: getattr(v, "__name__", None))
def test_rule_lets_pass(rule, path, text):
    assert list(rule(path, text)) == []


def test_every_file_rule_is_shown_to_catch_something():
    assert {rule for rule, _, _ in PLANTED} == set(rules.FILE_RULES)


MODULE = {
    "ds/shc_x.h": "/* Pairs\n *   A1 <- R1: what becomes visible\n *   AR1: alone\n *\n * More */\n",
    "ds/shc_x.c": (
        "a = shc_a64_load_acquire(p); /* A1 */\n"
        "shc_a64_store_release(p, 1); /* R1 */\n"
        "shc_a64_cas_seq_cst(p, q, 1); /* AR1 */\n"
    ),
}


def test_label_tables_of_a_sound_module():
    assert list(rules.check_label_tables(MODULE)) == []


@pytest.mark.parametrize(
    ("path", "before", "after", "complaint"),
    [
        ("ds/shc_x.c", "/* A1 */", "/* A2 */", "A2 has no row"),
        ("ds/shc_x.c", "shc_a64_store_release(p, 1); /* R1 */\n", "", "has R1, which no access carries"),
        ("ds/shc_x.h", " *   AR1: alone\n", "", "AR1 has no row"),
        ("ds/shc_x.h", "Pairs", "Notes", "A1 has no row"),
    ],
)
def test_label_tables_catch(path, before, after, complaint):
    files = {**MODULE, path: MODULE[path].replace(before, after)}
    assert files != MODULE
    assert complaint in "\n".join(rules.check_label_tables(files))


def test_labels_of_a_part_belong_to_the_module():
    files = {**MODULE, "ds/shc_x_more.c": "shc_a64_load_acquire(p); /* A7 */\n"}
    assert "A7 has no row in the table of pairs of ds/shc_x.h" in "\n".join(rules.check_label_tables(files))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("ds/shc_x.c", '#include <string.h>\n\n#include "ds/shc_x.h"\n'),
        ("ds/shc_x.c", '#include "base/shc_base.h"\n'),
        ("ds/shc_x.c", '#include "ds/shc_x.h"\n#include "base/shc_base.h"\n#include <string.h>\n'),
        ("ds/shc_x_part.c", '#include "base/shc_base.h"\n'),
        ("py/py_x.c", '#include "ds/shc_x.h"\n'),
    ],
)
def test_include_order_catches(path, text):
    assert list(rules.check_include_order(path, text, ["ds/shc_x.h", "base/shc_base.h"]))


def test_struct_without_table_is_caught():
    struct = "typedef struct shc_x_shm {\n    uint32_t a;\n} shc_x_shm_t;\n"
    assert rules.structs_without_table(struct) == {"shc_x_shm_t"}
    assert not rules.structs_without_table(struct + "SHC_X_LAYOUT(SHC_LAYOUT_ASSERT, shc_x_shm_t)\n")


def test_kinds_are_read():
    assert rules.kinds("/* c */\nSHC_KIND(1, BUFFER, buffer)\nSHC_KIND(2, RING, ring)\n") == [
        (1, "BUFFER", "buffer"),
        (2, "RING", "ring"),
    ]
