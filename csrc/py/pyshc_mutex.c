#include "py/pyshc_mutex.h"

#include "os/shc_os.h"

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
    } while (!pyshc_mutex_try(mutex));
    return true;
}
