#include "py/pyshc_refusal.h"

#include <errno.h>
#include <string.h>

#include "tool/shc_dump.h"

/* ---- what is there ---- */

/* What has the name now, and why it is none of ours. */
static int
look_at(const pyshc_place_t *place, shc_seg_report_t *report)
{
    int dir_fd;
    memset(report, 0, sizeof *report);
    int r = shc_os_dir_open(place->directory, &dir_fd);
    if (r != 0)
        return r;
    r = shc_seg_inspect(dir_fd, place->file, &pyshc_self, report);
    shc_os_close(dir_fd);
    return r;
}

static bool
is_strangers(const shc_seg_report_t *report)
{
    return report->file.ino != 0 && report->file.uid != shc_os_uid();
}

static uint64_t
free_space(const char *directory)
{
    uint64_t there = 0;
    int dir_fd;
    if (shc_os_dir_open(directory, &dir_fd) != 0)
        return 0;
    if (shc_os_file_space(dir_fd, &there) != 0)
        there = 0;
    shc_os_close(dir_fd);
    return there;
}

/* ---- how to get on ---- */

/* `shmcomm rm ...`, as it has to be typed. */
static PyObject *
removal_command(const pyshc_place_t *place, bool force)
{
    bool elsewhere = strcmp(place->directory, SHC_OS_DEFAULT_DIR) != 0;
    return PyUnicode_FromFormat("`shmcomm rm%s%s%s %s`", force ? " --force" : "", elsewhere ? " --directory " : "",
                                elsewhere ? place->directory : "", pyshc_place_qualified(place->file));
}

#define OTHER_NAME "choose another name"
#define OTHER_DIRECTORY "choose another directory with directory= or SHMCOMM_DIR"

/* `removable`: what is in the way goes with `shmcomm rm --force`. */
typedef struct advice {
    const char *text;
    bool removable;
} advice_t;

static advice_t
advice_for(int status)
{
    switch (status) {
    case SHC_E_NOT_SEGMENT:
        return (advice_t){OTHER_NAME, true};
    case SHC_E_NO_FILE:
        return (advice_t){OTHER_NAME ", or remove what is there", false};
    case SHC_E_VERSION:
    case SHC_E_FINGERPRINT:
        return (advice_t){"use the same shmcomm on both sides", true};
    case SHC_E_CORRUPT:
        return (advice_t){"it is damaged: choose another name", true};
    case SHC_E_FOREIGN_PIDNS:
        return (advice_t){"start both sides in the same one (docker run --pid=...)", true};
    case -EMFILE:
    case -ENFILE:
        return (advice_t){"a few descriptors are needed for a moment (ulimit -n)", false};
    case -ENOMEM:
        return (advice_t){"this process may not map so much memory (ulimit -v)", false};
    case -EFBIG:
        return (advice_t){"this process may not make so large a file (ulimit -f)", false};
    case -EACCES:
    case -EPERM:
    case -EROFS:
    case -ENOTDIR:
    case -ENOENT:
        return (advice_t){OTHER_DIRECTORY, false};
    default:
        return (advice_t){NULL, false};
    }
}

/* NULL without an exception: none. */
static PyObject *
advice_text(int status, const pyshc_place_t *place)
{
    advice_t advice = advice_for(status);
    if (!advice.removable)
        return advice.text != NULL ? PyUnicode_FromString(advice.text) : NULL;
    PyObject *removal = removal_command(place, true);
    PyObject *text = removal != NULL ? PyUnicode_FromFormat("%s, or remove it with %U", advice.text, removal) : NULL;
    Py_XDECREF(removal);
    return text;
}

/* "<what>: <sentence>; <advice>". Steals what. */
static void
raise_advised(pyshc_state_t *st, int status, const pyshc_place_t *place, PyObject *what)
{
    PyObject *advice = what != NULL ? advice_text(status, place) : NULL;
    if (!PyErr_Occurred())
        pyshc_raise_advised(st, status, what, advice);
    Py_XDECREF(advice);
    Py_XDECREF(what);
}

/* ---- creation ---- */

/* Whether attaching to it, as what it is, would fail for its layout. */
static bool
has_other_layout(const shc_seg_report_t *report)
{
    const shc_seg_spec_t *spec = shc_kind_spec(report->id.kind);
    return spec != NULL && !shc_seg_is_laid_out(&report->id, spec);
}

static PyObject *
taken_by_ours(const shc_seg_report_t *report, const char *type, uint32_t kind, const pyshc_place_t *place,
              PyObject *name)
{
    const char *found = shc_kind_name(report->id.kind);
    PyObject *removal = removal_command(place, report->alive > 0);
    PyObject *text = NULL;
    if (removal != NULL && report->id.kind == kind)
        text = PyUnicode_FromFormat("an object named %R exists already in %s; attach to it with %s.attach(%R) or "
                                    "%s.open(%R, ...), " OTHER_NAME ", or, if nobody needs it, remove it with %U",
                                    name, place->directory, type, name, type, name, removal);
    else if (removal != NULL)
        text = PyUnicode_FromFormat("an object named %R exists already in %s, of another kind (%s); " OTHER_NAME
                                    ", or remove it with %U",
                                    name, place->directory, found != NULL ? found : "unknown", removal);
    Py_XDECREF(removal);
    return text;
}

static PyObject *
taken_by_something(int status, const pyshc_place_t *place, PyObject *name)
{
    const char *sentence = shc_status_sentence(status);
    PyObject *advice = sentence != NULL ? advice_text(status, place) : PyUnicode_FromString(OTHER_NAME);
    if (advice == NULL)
        return NULL;
    PyObject *text = PyUnicode_FromFormat("the name %R is taken in %s: %s; %U", name, place->directory,
                                          sentence != NULL ? sentence : strerror(-status), advice);
    Py_DECREF(advice);
    return text;
}

static PyObject *
taken_text(int status, const char *type, uint32_t kind, const pyshc_place_t *place, PyObject *name)
{
    shc_seg_report_t report;
    int found = look_at(place, &report);
    if (status == SHC_GONE || found == -ENOENT)
        return PyUnicode_FromFormat("an object named %R in %s is just being removed by another process; try again",
                                    name, place->directory);
    if (is_strangers(&report))
        return PyUnicode_FromFormat(
            "an object named %R exists already in %s and belongs to another user (uid %u); " OTHER_NAME, name,
            place->directory, (unsigned)report.file.uid);
    if (found == 0 && has_other_layout(&report))
        found = SHC_E_FINGERPRINT;
    return found == 0 ? taken_by_ours(&report, type, kind, place, name) : taken_by_something(found, place, name);
}

static PyObject *
no_space_text(const pyshc_place_t *place, PyObject *name, uint64_t asked)
{
    uint64_t there = free_space(place->directory);
    const char *but = there >= asked ? ", but no room for another file (df -i), or the machine has no memory left" : "";
    return PyUnicode_FromFormat("%R needs %llu bytes of shared memory and %s has %llu free%s: remove what is left over "
                                "(shmcomm gc), enlarge the file system (mount -o remount,size=..., docker run "
                                "--shm-size=...), or choose another one (directory=, SHMCOMM_DIR)",
                                name, (unsigned long long)asked, place->directory, (unsigned long long)there, but);
}

void
pyshc_refuse_growth(pyshc_handle_t *h, int status, const char *what, uint64_t asked)
{
    uint64_t there = free_space(h->shared->directory);
    if (status == -ENOSPC)
        pyshc_raise_os_error(ENOSPC, PyUnicode_FromFormat("%R cannot grow for a %s of %llu bytes: %s has %llu free; "
                                                          "remove what is left over (shmcomm gc), or enlarge the file "
                                                          "system (mount -o remount,size=..., docker run "
                                                          "--shm-size=...)",
                                                          h, what, (unsigned long long)asked, h->shared->directory,
                                                          (unsigned long long)there));
    else
        pyshc_raise(h->st, status, "%R cannot grow for a %s of %llu bytes", h, what, (unsigned long long)asked);
}

void
pyshc_refuse_creation(pyshc_state_t *st, int status, const char *type, uint32_t kind, const pyshc_place_t *place,
                      PyObject *name, uint64_t size)
{
    if (status == -EEXIST || status == SHC_GONE)
        pyshc_raise_os_error(EEXIST, taken_text(status, type, kind, place, name));
    else if (status == -ENOSPC)
        pyshc_raise_os_error(ENOSPC, no_space_text(place, name, size));
    else if (status == -EFBIG || status == -ENOMEM)
        raise_advised(st, status, place,
                      PyUnicode_FromFormat("cannot create %s %R of %llu bytes in %s", type, name,
                                           (unsigned long long)size, place->directory));
    else
        raise_advised(st, status, place,
                      PyUnicode_FromFormat("cannot create %s %R in %s", type, name, place->directory));
}

/* ---- attaching ---- */

static PyObject *
closed_to_us_text(const shc_seg_report_t *report, const pyshc_place_t *place, PyObject *name)
{
    char mode[PYSHC_MODE_TEXT];
    pyshc_mode_text(report->file.mode, mode);
    if (is_strangers(report))
        return PyUnicode_FromFormat(
            "%R in %s belongs to another user (uid %u), and its mode %s keeps this process out: "
            "it has to be created with mode=0o660 by a process of a common group, or with mode=0o666",
            name, place->directory, (unsigned)report->file.uid, mode);
    return PyUnicode_FromFormat("the mode %s of %R in %s keeps its owner out", mode, name, place->directory);
}

static void
refuse_with_a_look(pyshc_state_t *st, int status, const char *type, const pyshc_place_t *place, PyObject *name)
{
    shc_seg_report_t report;
    (void)!look_at(place, &report);
    const char *kind = shc_kind_name(report.id.kind);
    if (status == SHC_E_FOREIGN_USER)
        pyshc_raise_os_error(EACCES, PyUnicode_FromFormat("%R in %s belongs to another user (uid %u); pass "
                                                          "foreign=True to %s.attach() to trust it",
                                                          name, place->directory, (unsigned)report.file.uid, type));
    else if ((status == -EACCES || status == -EPERM) && report.file.ino != 0)
        pyshc_raise_os_error(EACCES, closed_to_us_text(&report, place, name));
    else if (status == SHC_E_KIND && kind != NULL)
        pyshc_raise(st, status, "cannot attach to %s %R in %s, which is a %s", type, name, place->directory, kind);
    else
        raise_advised(st, status, place,
                      PyUnicode_FromFormat("cannot attach to %s %R in %s", type, name, place->directory));
}

void
pyshc_refuse_attach(pyshc_state_t *st, int status, const char *type, const pyshc_place_t *place, PyObject *name,
                    bool waited)
{
    if (status == -ENOENT || status == SHC_GONE)
        pyshc_raise_os_error(ENOENT,
                             PyUnicode_FromFormat("there is no %s named %R in %s: %s; or the last one that had it "
                                                  "open has closed it",
                                                  type, name, place->directory,
                                                  waited ? "nobody has created it in time"
                                                         : "create it first, or wait for it with timeout="));
    else if (status == SHC_E_PARTICIPANTS)
        pyshc_raise_os_error(
            EUSERS, PyUnicode_FromFormat("all participant slots of %s %R are taken by living processes; create it "
                                         "with a larger max_participants=",
                                         type, name));
    else
        refuse_with_a_look(st, status, type, place, name);
}

/* ---- unlinking and removing ---- */

void
pyshc_refuse_unlink(pyshc_state_t *st, int status, const char *type, const char *directory, PyObject *name)
{
    if (status == -ENOENT)
        pyshc_raise_os_error(ENOENT, PyUnicode_FromFormat("cannot unlink %s %R: its name is gone from %s already", type,
                                                          name, directory));
    else if (status == -EACCES || status == -EPERM)
        pyshc_raise_os_error(-status,
                             PyUnicode_FromFormat("cannot unlink %s %R: only its owner may remove its name from %s",
                                                  type, name, directory));
    else
        pyshc_raise(st, status, "cannot unlink %s %R in %s", type, name, directory);
}

#define USERS_LOOKED_AT 64
#define USERS_SHOWN 4

/* "process 1", or "processes 1, 2, ..." */
static PyObject *
users_text(const pyshc_place_t *place)
{
    shc_seg_slot_t slots[USERS_LOOKED_AT];
    PyObject *pids = PyUnicode_FromString("");
    int dir_fd;
    uint32_t n = 0, living = 0;
    if (shc_os_dir_open(place->directory, &dir_fd) == 0) {
        n = shc_seg_list_participants(dir_fd, place->file, &pyshc_self, slots, USERS_LOOKED_AT);
        shc_os_close(dir_fd);
    }
    for (uint32_t i = 0; pids != NULL && i < n; i++) {
        if (slots[i].alive && living++ < USERS_SHOWN)
            Py_SETREF(pids, PyUnicode_FromFormat("%U%s %u", pids, living > 1 ? "," : "", (unsigned)slots[i].pid));
    }
    if (pids == NULL || living == 0)
        Py_XSETREF(pids, PyUnicode_FromString("a living process"));
    else
        Py_SETREF(pids, PyUnicode_FromFormat("process%s%U%s", living > 1 ? "es" : "", pids,
                                             living > USERS_SHOWN ? ", ..." : ""));
    return pids;
}

static void
refuse_busy_removal(pyshc_state_t *st, const pyshc_place_t *place, PyObject *name)
{
    PyObject *users = users_text(place);
    if (users != NULL)
        PyErr_Format(st->BusyError, "cannot remove %R in %s: it is in use by %U", name, place->directory, users);
    Py_XDECREF(users);
}

/* Nobody who is not root has anything to gain from --force. */
static void
refuse_removal_of_strangers(const pyshc_place_t *place, PyObject *name, uint32_t uid)
{
    pyshc_raise_os_error(shc_os_uid() == 0 ? EACCES : EPERM,
                         PyUnicode_FromFormat("cannot remove %R in %s: it belongs to another user (uid %u)", name,
                                              place->directory, (unsigned)uid));
}

void
pyshc_refuse_removal(pyshc_state_t *st, int status, const pyshc_place_t *place, PyObject *name)
{
    shc_seg_report_t report;
    (void)!look_at(place, &report);
    if (status == -ENOENT)
        pyshc_raise_os_error(
            ENOENT, PyUnicode_FromFormat("cannot remove %R: there is no such name in %s", name, place->directory));
    else if (is_strangers(&report) && (status == SHC_E_FOREIGN_USER || shc_os_uid() != 0))
        refuse_removal_of_strangers(place, name, report.file.uid);
    else if (status == SHC_BUSY)
        refuse_busy_removal(st, place, name);
    else if (report.file.is_directory)
        pyshc_raise_os_error(EISDIR, PyUnicode_FromFormat("cannot remove %R: %s/%s is a directory; rmdir removes it",
                                                          name, place->directory, place->file));
    else
        pyshc_raise(st, status, "cannot remove %R in %s", name, place->directory);
}
