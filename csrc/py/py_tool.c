/* What the command line and the tests ask of the module: segments by name, the layout, the end of the process. */
#include "py/pyshc_refusal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tool/shc_dump.h"
#include "tool/shc_fsck.h"

/* ---- listing ---- */

typedef struct names {
    PyObject *list;
    const char *prefix;
} names_t;

static bool
is_private(const char *file)
{
    return strncmp(file, SHC_OS_TMP_PREFIX, strlen(SHC_OS_TMP_PREFIX)) == 0;
}

static int
collect_name(void *arg, const char *file)
{
    names_t *names = arg;
    if (is_private(file))
        return 0;
    PyObject *name = PyBytes_FromString(file);
    if (name == NULL || PyList_Append(names->list, name) < 0) {
        Py_XDECREF(name);
        return 1;
    }
    Py_DECREF(name);
    return 0;
}

/* Why a file without our magic is none of ours. */
static const char *
state_of_strange(const shc_seg_report_t *report)
{
    uint64_t size = report->file.size;
    return size == 0 ? "empty" : size < sizeof(shc_seg_shm_t) ? "short" : "alien";
}

/* Whether this build can read what is in it. */
static bool
is_known(const shc_seg_report_t *report)
{
    const shc_seg_spec_t *spec = shc_kind_spec(report->id.kind);
    return spec != NULL && shc_seg_is_laid_out(&report->id, spec);
}

static const char *
state_name(int status, const shc_seg_report_t *report)
{
    switch (status) {
    case 0:
        if (report->life != SHC_SEG_OPEN)
            return "removed";
        if (!is_known(report))
            return "layout";
        return report->alive > 0 ? "live" : report->id.flags & SHC_SEG_FLAG_PERSIST ? "idle" : "dead";
    case SHC_E_NOT_SEGMENT:
        return state_of_strange(report);
    case SHC_E_NO_FILE:
        return "alien";
    case SHC_E_VERSION:
        return "version";
    case SHC_E_FOREIGN_PIDNS:
        return "pidns";
    case SHC_E_CORRUPT:
        return "corrupt";
    case -EACCES:
    case -EPERM:
        return "denied";
    default:
        return "unknown";
    }
}

static PyObject *
error_text(int status, const shc_seg_report_t *report)
{
    const shc_seg_spec_t *spec = shc_kind_spec(report->id.kind);
    if (status == 0 && spec == NULL)
        return PyUnicode_FromString("it holds a kind of object that this version does not know");
    if (status == 0)
        status = shc_seg_is_laid_out(&report->id, spec) ? 0 : SHC_E_FINGERPRINT;
    if (status == 0)
        return Py_NewRef(Py_None);
    const char *sentence = shc_status_sentence(status);
    return PyUnicode_FromString(sentence != NULL ? sentence : strerror(-status));
}

static PyObject *
kind_text(int status, const shc_seg_report_t *report)
{
    const char *kind = status == 0 ? shc_kind_name(report->id.kind) : NULL;
    return kind != NULL ? PyUnicode_FromString(kind) : Py_NewRef(Py_None);
}

/* The participants of a segment that is not open here. */
static PyObject *
describe_participants(int dir_fd, const char *file)
{
    shc_seg_slot_t *slots = calloc(SHC_PARTICIPANT_MAX, sizeof *slots);
    if (slots == NULL)
        return PyErr_NoMemory();
    uint32_t n = shc_seg_list_participants(dir_fd, file, &pyshc_self, slots, SHC_PARTICIPANT_MAX);
    PyObject *list = PyList_New(n);
    for (uint32_t i = 0; list != NULL && i < n; i++) {
        PyObject *row = Py_BuildValue("{s:k,s:d,s:O}", "pid", (unsigned long)slots[i].pid, "since",
                                      (double)slots[i].since / 1e9, "alive", slots[i].alive ? Py_True : Py_False);
        if (row == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, row);
    }
    free(slots);
    return list;
}

/* NULL with an exception, None if the file is gone. */
static PyObject *
describe(int dir_fd, const char *file)
{
    shc_seg_report_t report;
    size_t length;
    const char *qualified = pyshc_place_qualified(file);
    const char *name = pyshc_place_split(qualified, &length);
    int status = shc_seg_inspect(dir_fd, file, &pyshc_self, &report);
    if (status == -ENOENT)
        return Py_NewRef(Py_None);
    PyObject *participants = status == 0 ? describe_participants(dir_fd, file) : PyList_New(0);
    if (participants == NULL)
        return NULL;
    return Py_BuildValue("{s:N,s:N,s:N,s:K,s:K,s:d,s:O,s:s,s:N,s:I,s:I,s:N}", "name", PyUnicode_DecodeFSDefault(name),
                         "namespace", PyUnicode_DecodeFSDefaultAndSize(qualified, (Py_ssize_t)length), "kind",
                         kind_text(status, &report), "size", (unsigned long long)report.file.size, "allocated",
                         (unsigned long long)report.file.allocated, "created", (double)report.id.created / 1e9,
                         "persist", report.id.flags & SHC_SEG_FLAG_PERSIST ? Py_True : Py_False, "state",
                         state_name(status, &report), "participants", participants, "uid", report.file.uid, "mode",
                         report.file.mode, "error", error_text(status, &report));
}

static PyObject *
raise_errno(int status, const char *what)
{
    errno = -status;
    return PyErr_SetFromErrnoWithFilename(PyExc_OSError, what);
}

/* What the caller says, else the one of this process. */
static PyObject *
chosen_namespace(PyObject *arg)
{
    return arg != NULL && arg != Py_None ? Py_NewRef(arg) : pyshc_place_namespace();
}

static bool
open_place(PyObject *directory_arg, PyObject *namespace_arg, char prefix[PYSHC_PREFIX_SIZE], char **directory,
           int *dir_fd)
{
    PyObject *namespace = chosen_namespace(namespace_arg);
    bool fine =
        namespace != NULL && pyshc_place_check_namespace(namespace) && pyshc_place_directory(directory_arg, directory);
    if (fine) {
        (void)pyshc_shared_own_epoch(); /* if it fails, so will what is done next, and says why */
        pyshc_place_prefix(namespace, prefix);
        int r = shc_os_dir_open(*directory, dir_fd);
        if (r != 0) {
            raise_errno(r, *directory);
            free(*directory);
            fine = false;
        }
    }
    Py_XDECREF(namespace);
    return fine;
}

static PyObject *
describe_all(int dir_fd, PyObject *files)
{
    PyObject *rows = PyList_New(0);
    for (Py_ssize_t i = 0; rows != NULL && i < PyList_GET_SIZE(files); i++) {
        PyObject *row = describe(dir_fd, PyBytes_AS_STRING(PyList_GET_ITEM(files, i)));
        if (row == NULL || (row != Py_None && PyList_Append(rows, row) < 0))
            Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    return rows;
}

PyDoc_STRVAR(list_segments_doc, "list_segments($module, /, directory=None, namespace=None)\n--\n\n"
                                "A dict for every object in the namespace (without one: in all of them): name, "
                                "namespace, kind, size, allocated, created, persist, state, participants, uid, mode, "
                                "error.");

static PyObject *
list_segments(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"directory", "namespace"};
    PyObject *v[2];
    char prefix[PYSHC_PREFIX_SIZE], *directory;
    int dir_fd;
    if (!pyshc_parse("list_segments", args, nargs, kwnames, names, 2, 2, 0, v) ||
        !open_place(v[0], v[1], prefix, &directory, &dir_fd))
        return NULL;
    names_t found = {.list = PyList_New(0), .prefix = prefix};
    PyObject *rows = NULL;
    if (found.list != NULL) {
        int r = shc_os_dir_scan(dir_fd, prefix, collect_name, &found);
        if (r < 0)
            raise_errno(r, directory);
        else if (r == 0 && PyList_Sort(found.list) == 0)
            rows = describe_all(dir_fd, found.list);
    }
    Py_XDECREF(found.list);
    shc_os_close(dir_fd);
    free(directory);
    return rows;
}

/* ---- removing ---- */

PyDoc_STRVAR(remove_segment_doc,
             "remove_segment($module, /, name, directory=None, force=False, namespace=None)\n--\n\n"
             "Remove the name of an object that no living process uses; with force, of any, and whatever else has that "
             "name.\n\n"
             "Raises FileNotFoundError, BusyError, LayoutError, CorruptedError, PermissionError.");

static PyObject *
remove_segment(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"name", "directory", "force", "namespace"};
    PyObject *v[4];
    bool force = false;
    pyshc_place_t place;
    int dir_fd = -1;
    if (!pyshc_parse("remove_segment", args, nargs, kwnames, names, 4, 4, 1, v) || !pyshc_parse_flag(v[2], &force))
        return NULL;
    PyObject *namespace = chosen_namespace(v[3]);
    if (namespace == NULL || !pyshc_place_resolve(v[0], namespace, v[1], &place)) {
        Py_XDECREF(namespace);
        return NULL;
    }
    Py_DECREF(namespace);
    (void)pyshc_shared_own_epoch(); /* if it fails, so will what is done next, and says why */
    int r = shc_os_dir_open(place.directory, &dir_fd);
    if (r == 0) {
        r = force ? shc_seg_force_unlink(dir_fd, place.file, &pyshc_self)
                  : shc_seg_reap(dir_fd, place.file, &pyshc_self, true);
        shc_os_close(dir_fd);
    }
    if (r != 0)
        pyshc_refuse_removal(pyshc_state_of(module), r, &place, v[0]);
    pyshc_place_clear(&place);
    return r == 0 ? Py_NewRef(Py_None) : NULL;
}

static void
note_removed(void *arg, const char *file)
{
    const names_t *names = arg;
    PyObject *name = PyUnicode_DecodeFSDefault(is_private(file) ? file : file + strlen(names->prefix));
    if (name != NULL)
        (void)PyList_Append(names->list, name);
    Py_XDECREF(name);
}

PyDoc_STRVAR(collect_garbage_doc,
             "collect_garbage($module, /, directory=None)\n--\n\n"
             "Remove every object of the namespace (without one: of all) whose users are all dead; returns their "
             "names.");

static PyObject *
collect_garbage(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"directory"};
    PyObject *v[1];
    char prefix[PYSHC_PREFIX_SIZE], *directory;
    int dir_fd;
    if (!pyshc_parse("collect_garbage", args, nargs, kwnames, names, 1, 1, 0, v) ||
        !open_place(v[0], NULL, prefix, &directory, &dir_fd))
        return NULL;
    names_t removed = {.list = PyList_New(0), .prefix = prefix};
    if (removed.list != NULL) {
        int r = shc_seg_sweep_dir(dir_fd, prefix, &pyshc_self, SHC_NEVER, NULL, note_removed, &removed);
        if (r < 0)
            raise_errno(r, directory);
        if (PyErr_Occurred())
            Py_CLEAR(removed.list);
    }
    shc_os_close(dir_fd);
    free(directory);
    return removed.list;
}

/* ---- checking ---- */

static const char *
verdict_name(int status)
{
    return status == 0 ? "sound" : status == SHC_E_CORRUPT ? "damaged" : status == SHC_AGAIN ? "busy" : "unreadable";
}

static PyObject *
describe_check(int status, const shc_fsck_t *found)
{
    static const char *const parts[] = {[SHC_FSCK_NOTHING] = NULL, [SHC_FSCK_HEAD] = "head", [SHC_FSCK_BODY] = "body"};
    const char *sentence = status < 0 ? shc_status_sentence(status) : NULL;
    if (status < 0 && sentence == NULL)
        sentence = strerror(-status);
    return Py_BuildValue("{s:s,s:z,s:O,s:z}", "verdict", verdict_name(status), "part", parts[found->part], "in_use",
                         found->in_use ? Py_True : Py_False, "error", sentence);
}

PyDoc_STRVAR(
    check_segment_doc,
    "check_segment($module, /, name, directory=None, namespace=None)\n--\n\n"
    "Look at an object without opening it: a dict with verdict (\"sound\", \"damaged\", \"busy\": others are at "
    "work and it cannot be told, \"unreadable\"), part (\"head\" or \"body\", if damaged), in_use, error.\n\n"
    "Raises FileNotFoundError.");

static PyObject *
check_segment(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"name", "directory", "namespace"};
    PyObject *v[3];
    pyshc_place_t place;
    shc_fsck_t found;
    int dir_fd = -1;
    if (!pyshc_parse("check_segment", args, nargs, kwnames, names, 3, 3, 1, v))
        return NULL;
    PyObject *namespace = chosen_namespace(v[2]);
    bool fine = namespace != NULL && pyshc_place_resolve(v[0], namespace, v[1], &place);
    Py_XDECREF(namespace);
    if (!fine)
        return NULL;
    (void)pyshc_shared_own_epoch(); /* if it fails, so will what is done next, and says why */
    int r = shc_os_dir_open(place.directory, &dir_fd);
    if (r == 0) {
        Py_BEGIN_ALLOW_THREADS;
        r = shc_fsck(dir_fd, place.file, &pyshc_self, &found);
        Py_END_ALLOW_THREADS;
        shc_os_close(dir_fd);
        fine = r != -ENOENT;
    } else {
        fine = false;
    }
    PyObject *result = fine ? describe_check(r, &found) : raise_errno(r, place.directory);
    pyshc_place_clear(&place);
    return result;
}

/* ---- layout ---- */

PyDoc_STRVAR(
    layout_doc,
    "_layout($module, /)\n--\n\nRows (type, field, offset, size, writer, note) of every struct in shared memory.");

static PyObject *
layout(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    size_t n;
    const shc_layout_table_t *tables = shc_layout_tables(&n);
    PyObject *rows = PyList_New(0);
    for (size_t t = 0; rows != NULL && t < n; t++) {
        for (size_t i = 0; rows != NULL && i < tables[t].n; i++) {
            const shc_layout_row_t *row = &tables[t].rows[i];
            PyObject *item =
                Py_BuildValue("(ssIIss)", row->type, row->field, row->offset, row->size, row->writer, row->note);
            if (item == NULL || PyList_Append(rows, item) < 0)
                Py_CLEAR(rows);
            Py_XDECREF(item);
        }
    }
    return rows;
}

/* ---- the floor for benchmarks ---- */

PyDoc_STRVAR(noop_doc, "_noop($module, obj, /)\n--\n\nDoes nothing: what a call costs.");

static PyObject *
noop(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(obj))
{
    Py_RETURN_NONE;
}

PyMethodDef pyshc_tool_methods[] = {
    {"list_segments", (PyCFunction)(void (*)(void))list_segments, METH_FASTCALL | METH_KEYWORDS, list_segments_doc},
    {"remove_segment", (PyCFunction)(void (*)(void))remove_segment, METH_FASTCALL | METH_KEYWORDS, remove_segment_doc},
    {"collect_garbage", (PyCFunction)(void (*)(void))collect_garbage, METH_FASTCALL | METH_KEYWORDS,
     collect_garbage_doc},
    {"check_segment", (PyCFunction)(void (*)(void))check_segment, METH_FASTCALL | METH_KEYWORDS, check_segment_doc},
    {"_layout", layout, METH_NOARGS, layout_doc},
    {"_noop", noop, METH_O, noop_doc},
    {NULL, NULL, 0, NULL},
};
