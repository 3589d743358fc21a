#include "py/pyshc_mutex.h"

#include "os/shc_os.h"

uint64_t
pyshc_thread_number(void)
{
    static shc_a64_t last;
    static _Thread_local uint64_t number;
    if (number == 0)
        number = shc_a64_fetch_add_relaxed(&last, 1) + 1;
    return number;
}

bool
pyshc_mutex_wait(pyshc_mutex_t *mutex)
{
    if (pyshc_mutex_is_mine(mutex)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "reentrant call: this end of the channel is in use further up in the same thread");
        return false;
    }
    do {
        Py_BEGIN_ALLOW_THREADS shc_os_yield();
        Py_END_ALLOW_THREADS
    } while (shc_a64_load_relaxed(&mutex->owner) != 0);
    shc_a64_store_relaxed(&mutex->owner, shc_thread_pointer());
    return true;
}
