/* The module: state, types, exceptions. */
#include "py/pyshc_wait.h"

#include <errno.h>

static int
add_exceptions(PyObject *module, pyshc_state_t *st)
{
    PyObject *errors = PyImport_ImportModule("shmcomm._errors");
    if (errors == NULL)
        return -1;
    int r = 0;
#define X(name)                                                                                                        \
    if (r == 0 && (st->name = PyObject_GetAttrString(errors, #name)) == NULL)                                          \
        r = -1;
    PYSHC_EXCEPTIONS(X)
#undef X
    Py_DECREF(errors);
    (void)module;
    return r;
}

static PyTypeObject *
make_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, (PyObject *)base);
}

static int
add_types(PyObject *module, pyshc_state_t *st)
{
    st->shared_object_type = make_type(module, &pyshc_shared_object_spec, NULL);
    if (st->shared_object_type == NULL)
        return -1;
    st->buffer_type = make_type(module, &pyshc_buffer_spec, st->shared_object_type);
    st->ring_type = make_type(module, &pyshc_ring_spec, st->shared_object_type);
    st->lease_type = make_type(module, &pyshc_lease_spec, NULL);
    st->reservation_type = make_type(module, &pyshc_reservation_spec, NULL);
    if (st->buffer_type == NULL || st->ring_type == NULL || st->lease_type == NULL || st->reservation_type == NULL)
        return -1;
    st->pool_type = make_type(module, &pyshc_pool_spec, st->shared_object_type);
    st->buffer_pool_type = make_type(module, &pyshc_buffer_pool_spec, st->shared_object_type);
    st->block_type = make_type(module, &pyshc_block_spec, NULL);
    if (st->pool_type == NULL || st->buffer_pool_type == NULL || st->block_type == NULL ||
        PyModule_AddType(module, st->pool_type) < 0 || PyModule_AddType(module, st->buffer_pool_type) < 0 ||
        PyModule_AddType(module, st->block_type) < 0)
        return -1;
    st->objects_type = make_type(module, &pyshc_objects_spec, st->shared_object_type);
    st->slot_memory_type = make_type(module, &pyshc_slot_memory_spec, NULL);
    st->borrow_type = make_type(module, &pyshc_borrow_spec, NULL);
    if (st->objects_type == NULL || st->slot_memory_type == NULL || st->borrow_type == NULL ||
        PyModule_AddType(module, st->objects_type) < 0)
        return -1;
    if (PyModule_AddType(module, st->shared_object_type) < 0 || PyModule_AddType(module, st->buffer_type) < 0 ||
        PyModule_AddType(module, st->ring_type) < 0 || PyModule_AddType(module, st->lease_type) < 0)
        return -1;
    return PyModule_AddType(module, st->reservation_type);
}

static int
module_exec(PyObject *module)
{
    pyshc_state_t *st = pyshc_state_of(module);
    int r = pyshc_shared_setup();
    if (r != 0) {
        errno = -r;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (add_exceptions(module, st) < 0 || pyshc_codec_state_init(st) < 0 || pyshc_wait_state_init(st) < 0 ||
        add_types(module, st) < 0)
        return -1;
    if (PyModule_AddFunctions(module, pyshc_tool_methods) < 0 || PyModule_AddFunctions(module, pyshc_codec_methods) < 0)
        return -1;
    if (PyModule_AddStringConstant(module, "_os_body", SHC_OS_BODY) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "_source_hash", SHMCOMM_SOURCE_HASH);
}

/* ---- the end of the interpreter ---- */

PyDoc_STRVAR(close_all_doc, "_close_all($module, /)\n--\n\nLet go of every object of this interpreter, so that the "
                            "last process out removes its names.");

static PyObject *
close_all(PyObject *module, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_close_all(pyshc_state_of(module));
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"_close_all", close_all, METH_NOARGS, close_all_doc},
    {NULL, NULL, 0, NULL},
};

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    pyshc_state_t *st = pyshc_state_of(module);
#define X(name) Py_VISIT(st->name);
    PYSHC_EXCEPTIONS(X)
#undef X
    Py_VISIT(st->shared_object_type);
    Py_VISIT(st->buffer_type);
    Py_VISIT(st->ring_type);
    Py_VISIT(st->lease_type);
    Py_VISIT(st->reservation_type);
    Py_VISIT(st->breather);
    Py_VISIT(st->pool_type);
    Py_VISIT(st->buffer_pool_type);
    Py_VISIT(st->block_type);
    Py_VISIT(st->objects_type);
    Py_VISIT(st->slot_memory_type);
    Py_VISIT(st->borrow_type);
    return pyshc_codec_state_traverse(&st->codec, visit, arg);
}

static int
module_clear(PyObject *module)
{
    pyshc_state_t *st = pyshc_state_of(module);
#define X(name) Py_CLEAR(st->name);
    PYSHC_EXCEPTIONS(X)
#undef X
    Py_CLEAR(st->shared_object_type);
    Py_CLEAR(st->buffer_type);
    Py_CLEAR(st->ring_type);
    Py_CLEAR(st->lease_type);
    Py_CLEAR(st->reservation_type);
    Py_CLEAR(st->breather);
    pyshc_block_free_spare(st);
    Py_CLEAR(st->pool_type);
    Py_CLEAR(st->buffer_pool_type);
    Py_CLEAR(st->block_type);
    Py_CLEAR(st->objects_type);
    Py_CLEAR(st->slot_memory_type);
    Py_CLEAR(st->borrow_type);
    pyshc_codec_state_clear(&st->codec);
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef PYSHC_MULTIPLE_INTERPRETERS
    PYSHC_MULTIPLE_INTERPRETERS,
#endif
#ifdef PYSHC_NO_GIL
    PYSHC_NO_GIL,
#endif
    {0, NULL},
};

PyDoc_STRVAR(module_doc, "The compiled part of shmcomm. Import shmcomm instead.");

struct PyModuleDef pyshc_module = {
    PyModuleDef_HEAD_INIT,           .m_name = "shmcomm._core",   .m_doc = module_doc,
    .m_size = sizeof(pyshc_state_t), .m_methods = module_methods, .m_slots = module_slots,
    .m_traverse = module_traverse,   .m_clear = module_clear,     .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&pyshc_module);
}
