/* NumPy's dtypes to descriptors and back; ds/shc_wire.h has the format.
 *
 * Only dtypes that come back equal, from a grammar of a few kinds, are native; what a segment says is parsed by
 * hand, and NumPy gets nothing but a checked type string or a field table made of such. Both directions are
 * remembered: the last few dtypes by address, and by descriptor. */
#include "py/pyshc_codec_internal.h"

#define DESCRIPTOR_MAX 4096
#define DTYPE_DEPTH 8
#define TEXT_MAX 32
#define NUMBER_CHARACTERS "?bBhHiIlLqQefdgFDG"
#define EMPTY_ITEM_MAX 4096 /* an empty array makes NumPy allocate one item */

/* ---- attributes ---- */

/* Whether an attribute is this object; an attribute that is missing is not. */
static bool
attribute_is(PyObject *obj, PyObject *name, PyObject *expected)
{
    PyObject *value = PyObject_GetAttr(obj, name);
    if (value == NULL)
        PyErr_Clear();
    Py_XDECREF(value);
    return value == expected;
}

static bool
attribute_text(PyObject *obj, PyObject *name, char *text, size_t room)
{
    PyObject *value = PyObject_GetAttr(obj, name);
    size_t length = 0;
    bool good = value != NULL && PyUnicode_CheckExact(value) && PyUnicode_IS_COMPACT_ASCII(value) &&
                (length = (size_t)PyUnicode_GET_LENGTH(value)) < room;
    if (good) {
        memcpy(text, PyUnicode_DATA(value), length);
        text[length] = 0;
    } else {
        PyErr_Clear();
    }
    Py_XDECREF(value);
    return good;
}

static bool
attribute_number(PyObject *obj, PyObject *name, uint64_t *out)
{
    PyObject *value = PyObject_GetAttr(obj, name);
    bool good = value != NULL && PyLong_CheckExact(value);
    *out = good ? PyLong_AsUnsignedLongLong(value) : 0;
    if (PyErr_Occurred()) {
        PyErr_Clear();
        good = false;
    }
    Py_XDECREF(value);
    return good;
}

/* ---- dtype to descriptor ---- */

typedef struct builder {
    pyshc_state_t *st;
    uint8_t *at, *end;
    int depth;
} builder_t;

static bool
build_bytes(builder_t *b, const void *data, size_t length)
{
    if ((size_t)(b->end - b->at) < length)
        return false;
    memcpy(b->at, data, length);
    b->at += length;
    return true;
}

static bool
build_length(builder_t *b, uint64_t length)
{
    if ((size_t)(b->end - b->at) < shc_wire_length_size(length))
        return false;
    b->at = shc_wire_put_length(b->at, length);
    return true;
}

static bool build_node(builder_t *b, PyObject *dtype);

/* Numbers by their character, because long and long long have the same name; the rest by NumPy's name, which has
 * length and unit. */
static bool
build_plain(builder_t *b, PyObject *dtype, char kind)
{
    char text[TEXT_MAX], character[TEXT_MAX];
    if (!attribute_text(dtype, b->st->codec.names.n_str, text, sizeof(text)) ||
        !attribute_text(dtype, b->st->codec.names.n_char, character, sizeof(character)))
        return false;
    if (strchr("SUVMm", kind) == NULL) {
        if (strlen(character) != 1 || strchr(NUMBER_CHARACTERS, character[0]) == NULL)
            return false;
        text[1] = character[0];
        text[2] = 0;
    }
    return build_bytes(b, "p", 1) && build_length(b, strlen(text)) && build_bytes(b, text, strlen(text));
}

static bool
build_dimensions(builder_t *b, PyObject *shape)
{
    if (!PyTuple_CheckExact(shape) || PyTuple_GET_SIZE(shape) > SHC_WIRE_DIMENSIONS ||
        !build_length(b, (uint64_t)PyTuple_GET_SIZE(shape)))
        return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(shape); i++) {
        uint64_t length = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(shape, i));
        if (PyErr_Occurred() || !build_bytes(b, &length, sizeof(length))) {
            PyErr_Clear();
            return false;
        }
    }
    return true;
}

/* (base, shape) */
static bool
build_subarray(builder_t *b, PyObject *pair)
{
    return PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2 && build_bytes(b, "a", 1) &&
           build_dimensions(b, PyTuple_GET_ITEM(pair, 1)) && build_node(b, PyTuple_GET_ITEM(pair, 0));
}

/* fields[name] is (dtype, offset), or with a title behind, which is for pickle. */
static bool
build_field(builder_t *b, PyObject *name, PyObject *fields)
{
    PyObject *field = PyUnicode_CheckExact(name) ? PyObject_GetItem(fields, name) : NULL;
    Py_ssize_t size;
    bool good = false;
    if (field != NULL && PyTuple_CheckExact(field) && PyTuple_GET_SIZE(field) == 2) {
        uint64_t offset = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(field, 1));
        PyObject *text = PyErr_Occurred() ? NULL : PyUnicode_AsEncodedString(name, "utf-8", "surrogatepass");
        if (text != NULL) {
            size = PyBytes_GET_SIZE(text);
            good = build_length(b, (uint64_t)size) && build_bytes(b, PyBytes_AS_STRING(text), (size_t)size) &&
                   build_bytes(b, &offset, sizeof(offset)) && build_node(b, PyTuple_GET_ITEM(field, 0));
            Py_DECREF(text);
        }
    }
    PyErr_Clear();
    Py_XDECREF(field);
    return good;
}

static bool
build_fields(builder_t *b, PyObject *dtype, PyObject *names, PyObject *fields)
{
    uint64_t item_size;
    uint8_t flags = attribute_is(dtype, b->st->codec.names.n_isalignedstruct, Py_True) ? SHC_WIRE_ALIGNED : 0;
    if (!attribute_number(dtype, b->st->codec.names.n_itemsize, &item_size) || !PyTuple_CheckExact(names) ||
        PyTuple_GET_SIZE(names) == 0 || !build_bytes(b, "s", 1) || !build_bytes(b, &flags, 1) ||
        !build_bytes(b, &item_size, sizeof(item_size)) || !build_length(b, (uint64_t)PyTuple_GET_SIZE(names)))
        return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        if (!build_field(b, PyTuple_GET_ITEM(names, i), fields))
            return false;
    }
    return true;
}

static bool
build_struct(builder_t *b, PyObject *dtype, PyObject *names)
{
    if (!attribute_is(dtype, b->st->codec.names.n_type, b->st->codec.void_)) /* a record array's */
        return false;
    PyObject *fields = PyObject_GetAttr(dtype, b->st->codec.names.n_fields);
    bool good = fields != NULL && build_fields(b, dtype, names, fields);
    Py_XDECREF(fields);
    PyErr_Clear();
    return good;
}

static bool
build_by_shape(builder_t *b, PyObject *dtype)
{
    char kind[2];
    PyObject *pair = PyObject_GetAttr(dtype, b->st->codec.names.n_subdtype);
    PyObject *names = pair != NULL ? PyObject_GetAttr(dtype, b->st->codec.names.n_names) : NULL;
    bool good = false;
    if (names == NULL || !attribute_text(dtype, b->st->codec.names.n_kind, kind, sizeof(kind)))
        PyErr_Clear();
    else if (pair != Py_None)
        good = build_subarray(b, pair);
    else if (names != Py_None)
        good = build_struct(b, dtype, names);
    else
        good = build_plain(b, dtype, kind[0]);
    Py_XDECREF(pair);
    Py_XDECREF(names);
    return good;
}

static bool
build_node(builder_t *b, PyObject *dtype)
{
    if (b->depth == DTYPE_DEPTH || !attribute_is(dtype, b->st->codec.names.n_hasobject, Py_False) ||
        !attribute_is(dtype, b->st->codec.names.n_metadata, Py_None))
        return false;
    b->depth++;
    bool good = build_by_shape(b, dtype);
    b->depth--;
    return good;
}

/* ---- descriptor to dtype ---- */

typedef struct parser {
    shc_wire_reader_t in; /* of private memory */
    pyshc_state_t *st;
    int depth;
} parser_t;

static PyObject *parse_node(parser_t *p);

/* NULL without an exception: not a descriptor. */
static PyObject *
bad(void)
{
    return NULL;
}

static bool
is_digits(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
    }
    return length >= 1 && length <= 9;
}

/* "8", "8[ns]", "8[25us]". NumPy would take a multiple of zero, and divide by it later. */
static bool
is_time(const char *text)
{
    static const char *const units[] = {"Y]",  "M]",  "W]",  "D]",  "h]",  "m]", "s]",
                                        "ms]", "us]", "ns]", "ps]", "fs]", "as]"};
    if (text[0] != '8' || text[1] != '[')
        return strcmp(text, "8") == 0;
    text += 2;
    size_t digits = strspn(text, "0123456789");
    if (digits > 9 || text[0] == '0')
        return false;
    for (size_t i = 0; i < SHC_ARRAY_SIZE(units); i++) {
        if (strcmp(text + digits, units[i]) == 0)
            return true;
    }
    return false;
}

static bool
is_type_name(const char *text)
{
    if (text[0] == 0 || strchr("<>|=", text[0]) == NULL || text[1] == 0)
        return false;
    if (strchr(NUMBER_CHARACTERS, text[1]) != NULL)
        return text[2] == 0;
    if (strchr("SUV", text[1]) != NULL)
        return is_digits(text + 2, strlen(text + 2));
    return strchr("Mm", text[1]) != NULL && is_time(text + 2);
}

static PyObject *
parse_plain(parser_t *p)
{
    const uint8_t *src;
    uint64_t length;
    char text[TEXT_MAX];
    if (!shc_wire_read_text(&p->in, &src, &length) || length >= TEXT_MAX)
        return bad();
    memcpy(text, src, length);
    text[length] = 0;
    if (strlen(text) != length || !is_type_name(text))
        return bad();
    return PyObject_CallFunction(p->st->codec.dtype, "s", text);
}

static PyObject *
parse_subarray(parser_t *p)
{
    uint64_t shape[SHC_WIRE_DIMENSIONS], ndim;
    if (!shc_wire_read_length(&p->in, &ndim) || ndim == 0 || ndim > SHC_WIRE_DIMENSIONS)
        return bad();
    for (unsigned i = 0; i < ndim; i++) {
        if (!shc_wire_read_u64(&p->in, &shape[i]) || shape[i] > INT32_MAX)
            return bad();
    }
    PyObject *base = parse_node(p), *result = NULL;
    PyObject *sizes = base != NULL ? pyshc_decode_shape_tuple(shape, (unsigned)ndim) : NULL;
    if (sizes != NULL)
        result = PyObject_CallFunction(p->st->codec.dtype, "((OO))", base, sizes);
    Py_XDECREF(sizes);
    Py_XDECREF(base);
    return result;
}

/* One row of {"names": [...], "formats": [...], "offsets": [...]}. */
static bool
parse_field(parser_t *p, PyObject *names, PyObject *formats, PyObject *offsets)
{
    const uint8_t *src;
    uint64_t length, offset;
    if (!shc_wire_read_text(&p->in, &src, &length) || !shc_wire_read_u64(&p->in, &offset) || offset > INT32_MAX)
        return false;
    PyObject *format = parse_node(p);
    PyObject *name =
        format != NULL ? PyUnicode_DecodeUTF8((const char *)src, (Py_ssize_t)length, "surrogatepass") : NULL;
    PyObject *number = name != NULL ? PyLong_FromUnsignedLongLong(offset) : NULL;
    bool good = number != NULL && PyList_Append(names, name) == 0 && PyList_Append(formats, format) == 0 &&
                PyList_Append(offsets, number) == 0;
    Py_XDECREF(format);
    Py_XDECREF(name);
    Py_XDECREF(number);
    return good;
}

static PyObject *
parse_fields(parser_t *p, PyObject *names, PyObject *formats, PyObject *offsets)
{
    uint8_t flags;
    uint64_t item_size, count;
    if (!shc_wire_read_u8(&p->in, &flags) || flags > SHC_WIRE_ALIGNED || !shc_wire_read_u64(&p->in, &item_size) ||
        item_size > INT32_MAX || !shc_wire_read_length(&p->in, &count) || count == 0 || count > shc_wire_left(&p->in))
        return bad();
    for (uint64_t i = 0; i < count; i++) {
        if (!parse_field(p, names, formats, offsets))
            return NULL;
    }
    return PyObject_CallFunction(p->st->codec.dtype, "({sOsOsOsKsO})", "names", names, "formats", formats, "offsets",
                                 offsets, "itemsize", (unsigned long long)item_size, "aligned",
                                 flags ? Py_True : Py_False);
}

static PyObject *
parse_struct(parser_t *p)
{
    PyObject *names = PyList_New(0), *formats = PyList_New(0), *offsets = PyList_New(0), *result = NULL;
    if (names != NULL && formats != NULL && offsets != NULL)
        result = parse_fields(p, names, formats, offsets);
    Py_XDECREF(names);
    Py_XDECREF(formats);
    Py_XDECREF(offsets);
    return result;
}

static PyObject *
parse_node(parser_t *p)
{
    uint8_t kind;
    if (p->depth == DTYPE_DEPTH || !shc_wire_read_u8(&p->in, &kind))
        return bad();
    p->depth++;
    PyObject *dtype = kind == 'p'   ? parse_plain(p)
                      : kind == 'a' ? parse_subarray(p)
                      : kind == 's' ? parse_struct(p)
                                    : bad();
    p->depth--;
    return dtype;
}

/* NULL with or without an exception: not a descriptor. An array has no sub-array as its own type, nor one without a
 * size. */
static PyObject *
parse_descriptor(pyshc_state_t *st, PyObject *descriptor, uint64_t *item_size)
{
    const uint8_t *text = (const uint8_t *)PyBytes_AS_STRING(descriptor);
    parser_t p = {.in = {.at = text, .end = text + PyBytes_GET_SIZE(descriptor)}, .st = st};
    PyObject *dtype = parse_node(&p);
    if (dtype != NULL && (shc_wire_left(&p.in) != 0 || !attribute_is(dtype, st->codec.names.n_hasobject, Py_False) ||
                          !attribute_is(dtype, st->codec.names.n_subdtype, Py_None) ||
                          !attribute_number(dtype, st->codec.names.n_itemsize, item_size)))
        Py_CLEAR(dtype);
    return dtype;
}

/* ---- memory of both ----
 *
 * A structured dtype is mutable: `array.dtype.names = ...` puts another tuple into it. An entry keeps the tuple that
 * it was made with and is worth nothing once the dtype has another. Structures within structures would have to be
 * asked one by one: they are not kept. */

static pyshc_dtype_entry_t
held(const pyshc_dtype_entry_t *entry)
{
    Py_INCREF(entry->dtype);
    Py_INCREF(entry->descriptor);
    Py_XINCREF(entry->names);
    return *entry;
}

void
pyshc_dtype_clear(pyshc_dtype_entry_t *entry)
{
    Py_CLEAR(entry->dtype);
    Py_CLEAR(entry->descriptor);
    Py_CLEAR(entry->names);
}

static bool
is_current(const pyshc_codec_state_t *cs, const pyshc_dtype_entry_t *entry)
{
    return entry->names == NULL || attribute_is(entry->dtype, cs->names.n_names, entry->names);
}

/* Notes the names; false: not to be kept. */
static bool
note_names(const pyshc_codec_state_t *cs, pyshc_dtype_entry_t *entry)
{
    const char *text = PyBytes_AS_STRING(entry->descriptor);
    if (text[0] != 's')
        return true;
    entry->names = PyObject_GetAttr(entry->dtype, cs->names.n_names);
    PyObject *fields = PyObject_GetAttr(entry->dtype, cs->names.n_fields);
    bool flat = entry->names != NULL && fields != NULL && PyTuple_CheckExact(entry->names);
    for (Py_ssize_t i = 0; flat && i < PyTuple_GET_SIZE(entry->names); i++) {
        PyObject *field = PyObject_GetItem(fields, PyTuple_GET_ITEM(entry->names, i));
        flat = field != NULL && attribute_is(PyTuple_GET_ITEM(field, 0), cs->names.n_names, Py_None) &&
               attribute_is(PyTuple_GET_ITEM(field, 0), cs->names.n_subdtype, Py_None);
        Py_XDECREF(field);
    }
    PyErr_Clear();
    Py_XDECREF(fields);
    return flat;
}

static bool
find_by_dtype(pyshc_codec_state_t *cs, PyObject *dtype, pyshc_dtype_entry_t *out)
{
    bool found = false;
    PYSHC_GUARD_LOCK(&cs->guard);
    for (unsigned i = 0; i < PYSHC_CODEC_DTYPES && !found; i++) {
        found = cs->dtypes[i].dtype == dtype;
        if (found)
            *out = held(&cs->dtypes[i]);
    }
    PYSHC_GUARD_UNLOCK(&cs->guard);
    if (found && !is_current(cs, out)) {
        pyshc_dtype_clear(out);
        found = false;
    }
    return found;
}

static bool
find_by_descriptor(pyshc_codec_state_t *cs, const uint8_t *text, size_t length, pyshc_dtype_entry_t *out)
{
    bool found = false;
    PYSHC_GUARD_LOCK(&cs->guard);
    for (unsigned i = 0; i < PYSHC_CODEC_DTYPES && !found; i++) {
        PyObject *descriptor = cs->dtypes[i].descriptor;
        found = descriptor != NULL && (size_t)PyBytes_GET_SIZE(descriptor) == length &&
                memcmp(PyBytes_AS_STRING(descriptor), text, length) == 0;
        if (found)
            *out = held(&cs->dtypes[i]);
    }
    PYSHC_GUARD_UNLOCK(&cs->guard);
    if (found && !is_current(cs, out)) {
        pyshc_dtype_clear(out);
        found = false;
    }
    return found;
}

static void
remember(pyshc_codec_state_t *cs, pyshc_dtype_entry_t *entry)
{
    if (!note_names(cs, entry))
        return;
    pyshc_dtype_entry_t kept = held(entry);
    PYSHC_GUARD_LOCK(&cs->guard);
    pyshc_dtype_entry_t *place = &cs->dtypes[cs->next_dtype++ % PYSHC_CODEC_DTYPES];
    pyshc_dtype_entry_t old = *place;
    *place = kept;
    PYSHC_GUARD_UNLOCK(&cs->guard);
    pyshc_dtype_clear(&old);
}

/* ---- what arrays use ---- */

/* Whether the descriptor leads back to an equal dtype: user-made types can look like NumPy's own. */
static bool
leads_back(pyshc_state_t *st, const pyshc_dtype_entry_t *entry, uint64_t *item_size)
{
    PyObject *again = parse_descriptor(st, entry->descriptor, item_size);
    bool same = again != NULL && PyObject_RichCompareBool(again, entry->dtype, Py_EQ) == 1;
    PyErr_Clear();
    Py_XDECREF(again);
    return same;
}

int
pyshc_dtype_describe(pyshc_state_t *st, PyObject *dtype, pyshc_dtype_entry_t *out)
{
    uint8_t text[DESCRIPTOR_MAX];
    if (find_by_dtype(&st->codec, dtype, out))
        return 0;
    builder_t b = {.st = st, .at = text, .end = text + sizeof(text)};
    if (!build_node(&b, dtype))
        return PYSHC_NOT_NATIVE;
    out->names = NULL;
    out->dtype = Py_NewRef(dtype);
    out->descriptor = PyBytes_FromStringAndSize((const char *)text, b.at - text);
    if (out->descriptor == NULL) {
        pyshc_dtype_clear(out);
        return PYSHC_RAISED;
    }
    if (!leads_back(st, out, &out->item_size)) {
        pyshc_dtype_clear(out);
        return PYSHC_NOT_NATIVE;
    }
    remember(&st->codec, out);
    return 0;
}

bool
pyshc_dtype_fits(const pyshc_dtype_entry_t *entry, uint64_t count)
{
    return entry->item_size > 0 && (count > 0 || entry->item_size <= EMPTY_ITEM_MAX);
}

static bool
parse_new(pyshc_decoder_t *d, const uint8_t *src, size_t length, pyshc_dtype_entry_t *out)
{
    PyObject *descriptor = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (descriptor == NULL)
        return false;
    shc_racy_copy(PyBytes_AS_STRING(descriptor), src, length);
    uint64_t item_size;
    PyObject *dtype = parse_descriptor(d->st, descriptor, &item_size);
    if (dtype == NULL) {
        Py_DECREF(descriptor);
        if (PyErr_Occurred())
            pyshc_decode_blame(d, "an array has a type that NumPy refuses");
        else
            pyshc_decode_corrupt(d, "an array has a type that is not allowed in messages");
        return false;
    }
    *out = (pyshc_dtype_entry_t){.dtype = dtype, .descriptor = descriptor, .item_size = item_size};
    remember(&d->st->codec, out);
    return true;
}

bool
pyshc_dtype_parse(pyshc_decoder_t *d, pyshc_dtype_entry_t *out)
{
    const uint8_t *src;
    uint64_t length;
    if (!shc_wire_read_text(&d->in, &src, &length) || length == 0 || length > DESCRIPTOR_MAX) {
        pyshc_decode_corrupt(d, "the description of an array's type has no possible length");
        return false;
    }
    return find_by_descriptor(&d->st->codec, src, (size_t)length, out) || parse_new(d, src, (size_t)length, out);
}
