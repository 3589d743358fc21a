#include "py/pyshc_wait.h"

/* Spinning attached costs other threads the interpreter; detaching and attaching again costs about 80 ns. */
#define ATTACHED_SPIN_NS UINT64_C(3000)
#define SPIN_START_NS UINT32_C(10000)
#define SPIN_MAX_NS UINT64_C(50000)
/* A partner that answers fast again must be noticed, so a spin never gets shorter than this; sleeping costs more. */
#define SPIN_FLOOR_NS INT64_C(5000)
/* On a busy machine spinning keeps the partner from its CPU, and a partner that takes its time does not answer sooner:
 * after n spins in a row that were not enough, the next 2^n - 1 waits sleep at once, but never more than 63. */
#define VAIN_SPINS_MAX 6

/* Long enough for one round trip between two cores, and dearer to time than to do: a few hundred nanoseconds, 1 us
 * where pausing is slow. */
#define GLANCE_LOOKS 24

static uint64_t
spin_budget(const pyshc_operation_t *op)
{
    if (op->handle->spin_ns != UINT32_MAX)
        return op->handle->spin_ns;
    uint32_t average = shc_a32_load_relaxed(&op->spin->average_ns);
    uint64_t budget = 2 * (uint64_t)(average != 0 ? average : SPIN_START_NS);
    return budget < SPIN_MAX_NS ? budget : SPIN_MAX_NS;
}

/* True if the word changed. */
static bool
look(const shc_watch_t *watch, int times)
{
    for (int i = 0; i < times; i++) {
        if (shc_a64_load_relaxed(watch->word) != watch->seen)
            return true;
        shc_pause();
    }
    return false;
}

static bool
look_until(const shc_watch_t *watch, uint64_t end_ns)
{
    bool changed = look(watch, 8);
    while (!changed && shc_os_now_ns() < end_ns)
        changed = look(watch, 8);
    return changed;
}

static void
learn(pyshc_spin_t *spin, uint64_t waited_ns)
{
    uint32_t average = shc_a32_load_relaxed(&spin->average_ns);
    int64_t old = average != 0 ? average : SPIN_START_NS;
    int64_t now = old + ((int64_t)waited_ns - old) / 8;
    shc_a32_store_relaxed(&spin->average_ns, now > SPIN_FLOOR_NS ? (uint32_t)now : (uint32_t)SPIN_FLOOR_NS);
}

/* Whether this wait is to spin, by what the last ones were like. */
static bool
is_worth_spinning(pyshc_spin_t *spin)
{
    uint32_t rest = shc_a32_load_relaxed(&spin->rest);
    if (rest != 0)
        shc_a32_store_relaxed(&spin->rest, rest - 1);
    return rest == 0;
}

static void
learn_worth(pyshc_spin_t *spin, bool was_enough)
{
    uint32_t vain = was_enough ? 0 : shc_a32_load_relaxed(&spin->vain) + 1;
    vain = vain < VAIN_SPINS_MAX ? vain : VAIN_SPINS_MAX;
    shc_a32_store_relaxed(&spin->vain, vain);
    shc_a32_store_relaxed(&spin->rest, (UINT32_C(1) << vain) - 1);
}

static bool
spin_for(const pyshc_operation_t *op, uint64_t budget, uint64_t deadline_ns)
{
    uint64_t start = shc_os_now_ns();
    uint64_t end = start + budget < deadline_ns ? start + budget : deadline_ns;
    shc_pace_stand_off(&op->spin->pace, start, end);
    uint64_t attached_end = start + ATTACHED_SPIN_NS < end ? start + ATTACHED_SPIN_NS : end;
    bool changed = look_until(&op->watch, attached_end);
    if (!changed && attached_end < end) {
        Py_BEGIN_ALLOW_THREADS changed = look_until(&op->watch, end);
        Py_END_ALLOW_THREADS
    }
    /* A spin that was not enough makes the next one shorter: somebody who sleeps long gains nothing from it. */
    learn(op->spin, changed ? shc_os_now_ns() - start : 0);
    learn_worth(op->spin, changed);
    return changed;
}

/* True if the word changed. The number of CPUs costs a system call, so it is asked the first time, and again before a
 * sleep, which costs many. */
static bool
spin(const pyshc_operation_t *op, uint64_t deadline_ns)
{
    uint64_t budget = spin_budget(op);
    if (budget == 0)
        return false;
    if (shc_a32_load_relaxed(&op->spin->cpus) == 0)
        shc_a32_store_relaxed(&op->spin->cpus, shc_os_cpus());
    if (shc_a32_load_relaxed(&op->spin->cpus) > 1) {
        bool seen = !shc_pace_stands_off(&op->spin->pace) && look(&op->watch, GLANCE_LOOKS);
        if (seen)
            learn_worth(op->spin, true);
        bool is_fixed = op->handle->spin_ns != UINT32_MAX; /* the user knows better */
        if (seen || ((is_fixed || is_worth_spinning(op->spin)) && spin_for(op, budget, deadline_ns)))
            return true;
    }
    shc_a32_store_relaxed(&op->spin->cpus, shc_os_cpus());
    return false;
}

static int
sleep_once(const pyshc_operation_t *op, uint32_t prepared, uint64_t until_ns)
{
    int r;
    Py_BEGIN_ALLOW_THREADS r = shc_event_wait(op->event, prepared, until_ns);
    Py_END_ALLOW_THREADS return r;
}

int
pyshc_wait_state_init(pyshc_state_t *st)
{
    PyObject *globals = PYSHC_FREE_THREADED ? PyDict_New() : NULL;
    if (globals != NULL)
        st->breather = PyRun_String("lambda: None", Py_eval_input, globals, globals);
    Py_XDECREF(globals);
    return PYSHC_FREE_THREADED && st->breather == NULL ? -1 : 0;
}

/* Lets the interpreter do what has been put off until this thread's next step in Python. */
static bool
breathe(const pyshc_state_t *st)
{
    PyObject *done = PYSHC_FREE_THREADED ? PyObject_CallNoArgs(st->breather) : NULL;
    Py_XDECREF(done);
    return !PYSHC_FREE_THREADED || done != NULL;
}

/* Arms, looks again, sleeps at most until until_ns. *woken: a pass_on is owed. */
static int
arm_and_sleep(pyshc_operation_t *op, uint64_t until_ns, bool *woken)
{
    uint32_t prepared = shc_event_prepare(op->event);
    int r = op->attempt(op);
    if (r != op->would_block || pyshc_handle_is_closed(op->handle))
        return r;
    if (!breathe(op->handle->st))
        return PYSHC_RAISED;
    *woken |= sleep_once(op, prepared, until_ns) == 0;
    return PyErr_CheckSignals() < 0 ? PYSHC_RAISED : op->would_block;
}

void
pyshc_raise_changed(pyshc_handle_t *h)
{
    if (pyshc_handle_is_closed(h))
        PyErr_Format(PyExc_ValueError, "%s %R is closed: it was closed while this call waited",
                     pyshc_handle_type_name(h), h->name);
    else
        PyErr_Format(PyExc_RuntimeError, "this process was forked inside a call on %R: call again", h);
}

static int
attempt_again(pyshc_operation_t *op)
{
    return pyshc_check_unchanged(op->handle) ? op->attempt(op) : PYSHC_RAISED;
}

/* After so many slices about a second has gone by. */
#define IDLE_SLICES 5

static int
sleep_in_slices(pyshc_operation_t *op, uint64_t deadline_ns)
{
    bool woken = false;
    int r = op->would_block, slices = 0;
    for (uint64_t slice = SHC_EVENT_SLICE_MIN_NS; r == op->would_block;
         slice = slice < SHC_EVENT_SLICE_MAX_NS ? 2 * slice : slice) {
        uint64_t now = shc_os_now_ns();
        if (now >= deadline_ns)
            break;
        r = arm_and_sleep(op, deadline_ns - now > slice ? now + slice : deadline_ns, &woken);
        if (r == op->would_block)
            r = attempt_again(op);
        if (r == op->would_block && op->idle != NULL && ++slices == IDLE_SLICES)
            op->idle(op);
    }
    if (woken) {
        /* Others may sleep for what is left; waking one for nothing is cheaper than knowing. */
        shc_event_pass_on(op->event);
        shc_event_notify_one(op->event);
    }
    return r;
}

/* Counted among the waiters of this process's slot from the first sleep to the last. A signal handler may fork
 * meanwhile: in the child the slot is the parent's, and so is the thread that is counted there. */
static int
wait_asleep(pyshc_operation_t *op, uint64_t deadline_ns)
{
    const shc_seg_t *seg = &op->handle->shared->seg;
    const uint64_t epoch = seg->epoch;
    const uint32_t index = seg->index, generation = seg->generation;
    shc_participant_begin_wait(&seg->participants, index, generation);
    int r = sleep_in_slices(op, deadline_ns);
    if (epoch == shc_self_epoch(&pyshc_self))
        shc_participant_end_wait(&seg->participants, index, generation);
    return r;
}

int
pyshc_wait(pyshc_operation_t *op, uint64_t deadline_ns)
{
    int r = attempt_again(op);
    while (r == op->would_block && deadline_ns != 0 && spin(op, deadline_ns)) {
        r = attempt_again(op);
        if (r == 0)
            shc_pace_after_look(&op->spin->pace, op->gained);
        /* A word that changes all the time without helping us must not keep us from the deadline or from Ctrl-C. */
        if (r == op->would_block && PyErr_CheckSignals() < 0)
            return PYSHC_RAISED;
        if (r == op->would_block && shc_os_now_ns() >= deadline_ns)
            return r;
    }
    if (r != op->would_block || deadline_ns == 0)
        return r;
    return wait_asleep(op, deadline_ns);
}
