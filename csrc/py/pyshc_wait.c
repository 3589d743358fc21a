#include "py/pyshc_wait.h"

/* Spinning attached costs other threads the interpreter; detaching and attaching again costs about 80 ns. */
#define ATTACHED_SPIN_NS UINT64_C(2000)
#define SPIN_START_NS UINT32_C(10000)
#define SPIN_MAX_NS UINT64_C(50000)
/* Never learn to stop looking: a partner that answers fast again must be noticed. Sleeping costs more than this. */
#define SPIN_FLOOR_NS INT64_C(5000)

/* Long enough for one round trip between two cores, and dearer to time than to do: a few hundred nanoseconds, 1 us
 * where pausing is slow. */
#define GLANCE_LOOKS 24

/* In a stream, each look takes the cache line away from the partner, who is about to write it again: 30 ns to him on a
 * good day, 150 ns when the cores are far apart, for a message that costs 35. Looking away for a while finds
 * several. */
#define LULL_NS UINT64_C(1000)
/* A stream may hide behind messages that are taken one by one, as fast as they come: look away now and then to find
 * out. */
#define SINGLES_MAX 32

static uint64_t
spin_budget(const pyshc_operation_t *op)
{
    if (op->handle->spin_ns != UINT32_MAX)
        return op->handle->spin_ns;
    uint64_t budget = 2 * (uint64_t)(op->spin->average_ns != 0 ? op->spin->average_ns : SPIN_START_NS);
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
    int64_t old = spin->average_ns != 0 ? spin->average_ns : SPIN_START_NS;
    int64_t now = old + ((int64_t)waited_ns - old) / 8;
    spin->average_ns = now > SPIN_FLOOR_NS ? (uint32_t)now : (uint32_t)SPIN_FLOOR_NS;
}

static void
learn_gain(pyshc_spin_t *spin, uint64_t gained)
{
    spin->singles = gained > 1 ? 0 : spin->singles + 1;
    spin->streaming = gained > 1 || spin->singles == SINGLES_MAX;
    if (spin->singles == SINGLES_MAX)
        spin->singles = 0;
}

static void
look_away(uint64_t end_ns)
{
    while (shc_os_now_ns() < end_ns)
        shc_pause();
}

static bool
spin_for(const pyshc_operation_t *op, uint64_t budget, uint64_t deadline_ns)
{
    uint64_t start = shc_os_now_ns();
    uint64_t end = start + budget < deadline_ns ? start + budget : deadline_ns;
    uint64_t attached_end = start + ATTACHED_SPIN_NS < end ? start + ATTACHED_SPIN_NS : end;
    if (op->spin->streaming)
        look_away(start + LULL_NS < end ? start + LULL_NS : end);
    bool changed = look_until(&op->watch, attached_end);
    if (!changed && attached_end < end) {
        Py_BEGIN_ALLOW_THREADS changed = look_until(&op->watch, end);
        Py_END_ALLOW_THREADS
    }
    /* A spin that was not enough makes the next one shorter: somebody who sleeps long gains nothing from it. */
    learn(op->spin, changed ? shc_os_now_ns() - start : 0);
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
    if (op->spin->cpus == 0)
        op->spin->cpus = shc_os_cpus();
    if (op->spin->cpus > 1) {
        bool seen = !op->spin->streaming && look(&op->watch, GLANCE_LOOKS);
        if (seen || spin_for(op, budget, deadline_ns))
            return true;
    }
    op->spin->cpus = shc_os_cpus();
    return false;
}

static int
sleep_once(const pyshc_operation_t *op, uint32_t prepared, uint64_t until_ns)
{
    int r;
    Py_BEGIN_ALLOW_THREADS r = shc_event_wait(op->event, prepared, until_ns);
    Py_END_ALLOW_THREADS return r;
}

/* Arms, looks again, sleeps at most until until_ns. *woken: a pass_on is owed. */
static int
arm_and_sleep(pyshc_operation_t *op, uint64_t until_ns, bool *woken)
{
    uint32_t prepared = shc_event_prepare(op->event);
    int r = op->attempt(op);
    if (r != op->would_block || pyshc_handle_is_closed(op->handle))
        return r;
    *woken |= sleep_once(op, prepared, until_ns) == 0;
    return PyErr_CheckSignals() < 0 ? PYSHC_RAISED : op->would_block;
}

void
pyshc_raise_changed(pyshc_handle_t *h)
{
    if (pyshc_handle_is_closed(h))
        PyErr_Format(PyExc_ValueError, "%R was closed while this call waited", h);
    else
        PyErr_Format(PyExc_RuntimeError, "this process was forked inside a call on %R: call again", h);
}

static int
attempt_again(pyshc_operation_t *op)
{
    return pyshc_check_unchanged(op->handle) ? op->attempt(op) : PYSHC_RAISED;
}

static int
wait_asleep(pyshc_operation_t *op, uint64_t deadline_ns)
{
    bool woken = false;
    int r = op->would_block;
    for (uint64_t slice = SHC_EVENT_SLICE_MIN_NS; r == op->would_block;
         slice = slice < SHC_EVENT_SLICE_MAX_NS ? 2 * slice : slice) {
        uint64_t now = shc_os_now_ns();
        if (now >= deadline_ns)
            break;
        r = arm_and_sleep(op, deadline_ns - now > slice ? now + slice : deadline_ns, &woken);
        if (r == op->would_block)
            r = attempt_again(op);
    }
    if (woken) {
        /* Others may sleep for what is left; waking one for nothing is cheaper than knowing. */
        shc_event_pass_on(op->event);
        shc_event_notify_one(op->event);
    }
    return r;
}

int
pyshc_wait(pyshc_operation_t *op, uint64_t deadline_ns)
{
    int r = attempt_again(op);
    while (r == op->would_block && deadline_ns != 0 && spin(op, deadline_ns)) {
        r = attempt_again(op);
        if (r == 0)
            learn_gain(op->spin, op->gained);
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
