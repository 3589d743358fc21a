#include "py/pyshc_mutex.h"

#include "os/shc_os.h"

_Thread_local char pyshc_thread_mark;

bool
pyshc_mutex_wait(pyshc_mutex_t *mutex)
{
    if (pyshc_mutex_is_mine(mutex)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "reentrant call: this end of the channel is in use further up in the same thread");
        return false;
    }
    uint64_t nobody;
    Py_BEGIN_ALLOW_THREADS do
    {
        shc_os_yield();
        nobody = 0;
    }
    while (!shc_a64_cas_acquire(&mutex->owner, &nobody, pyshc_thread_id()))
        ; /* A1 */
    Py_END_ALLOW_THREADS return true;
}
