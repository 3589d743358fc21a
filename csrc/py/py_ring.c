/* RingBufferChannel: making it, opening it, looking at it. Moving messages is in py_ring_send.c, py_ring_receive.c and
 * py_ring_lease.c. */
#include "py/py_ring.h"

#include "base/shc_math.h"
#include "py/pyshc_place.h"
#include "py/pyshc_refusal.h"

/* Default memory: room for `capacity` messages of about 100 bytes. */
#define DEFAULT_MESSAGE_BYTES 128
#define DEFAULT_BUFFER_BYTES_MIN (UINT64_C(64) * 1024)

/* Large messages may take so much memory, if no buffer_size sets a limit: address space until it is used. */
#define LARGE_BYTES (UINT64_C(4) << 30)
#define LARGE_BYTES_MIN (UINT64_C(64) << 20)

/* ---- creating and opening ---- */

static void
bind_ring(pyshc_shared_t *shared)
{
    shc_ring_open(&shared->ring, &shared->seg);
    shared->rejoined = pyshc_ring_reopen_extents;
    shared->leaving = pyshc_ring_leave_extents;
}

static void
wake_ring(pyshc_shared_t *shared)
{
    shc_event_notify_all(&shared->ring.shm->items);
    shc_event_notify_all(&shared->ring.shm->space);
    shc_event_notify_all(&shared->reservation_over);
}

/* Where so large a file or mapping is not allowed, half of it, and so on; where memory cannot be reserved piece by
 * piece, none. */
static bool
make_do(shc_seg_create_args_t *args, int status)
{
    uint64_t bytes = shc_ring_extent_bytes(args->config);
    if (bytes == 0)
        return false;
    bytes = status == -EOPNOTSUPP || bytes / 2 < LARGE_BYTES_MIN ? 0 : bytes / 2;
    shc_ring_set_extent_bytes(args->config, bytes);
    return shc_ring_lay_out(args) == 0;
}

const pyshc_kind_t pyshc_ring_kind = {
    .spec = &shc_ring_spec,
    .init = shc_ring_init,
    .bind = bind_ring,
    .wake = wake_ring,
    .codec_config = SHC_RING_CONFIG_CODEC,
    .envelope_config = SHC_RING_CONFIG_ENVELOPE,
    .lay_out = shc_ring_lay_out,
    .make_do = make_do,
};

typedef struct ring_options {
    uint64_t capacity;    /* 0: not given */
    uint64_t buffer_size; /* 0: not given */
    pyshc_envelope_options_t envelope;
    uint64_t envelope_word; /* of one that is created */
} ring_options_t;

static bool
parse_options(PyObject *capacity, PyObject *buffer_size, PyObject *const *envelope, ring_options_t *out)
{
    out->capacity = out->buffer_size = 0;
    out->envelope = (pyshc_envelope_options_t){envelope[0], envelope[1], envelope[2]};
    if (!pyshc_envelope_word(&out->envelope, &out->envelope_word))
        return false;
    if (capacity != NULL && !pyshc_parse_integer(capacity, "capacity", 1, SHC_RING_CAPACITY_MAX, &out->capacity))
        return false;
    if (buffer_size == NULL || buffer_size == Py_None)
        return true;
    return pyshc_parse_integer(buffer_size, "buffer_size", 1, SHC_RING_DATA_BYTES_MAX, &out->buffer_size);
}

static uint64_t
data_bytes_for(const ring_options_t *options)
{
    uint64_t wanted = options->buffer_size;
    if (wanted == 0) {
        wanted = options->capacity * DEFAULT_MESSAGE_BYTES;
        wanted = wanted < DEFAULT_BUFFER_BYTES_MIN ? DEFAULT_BUFFER_BYTES_MIN : wanted;
    }
    uint64_t bytes = shc_ceil_pow2(wanted);
    return bytes < SHC_RING_DATA_BYTES_MIN ? SHC_RING_DATA_BYTES_MIN : bytes;
}

static bool
create(pyshc_handle_t *h, const pyshc_creation_t *creation, const ring_options_t *options, bool *exists)
{
    shc_seg_create_args_t args = {0};
    uint64_t data_bytes = data_bytes_for(options);
    args.sparse = true;
    shc_ring_set_extent_bytes(args.config, options->buffer_size == 0 ? LARGE_BYTES : 0);
    args.config[SHC_RING_CONFIG_CAPACITY] = options->capacity;
    args.config[SHC_RING_CONFIG_DATA_BYTES] = data_bytes;
    args.config[SHC_RING_CONFIG_CODEC] = (uint64_t)h->codec.kind;
    args.config[SHC_RING_CONFIG_ENVELOPE] = options->envelope_word;
    if (!pyshc_handle_create(h, &pyshc_ring_kind, creation, &args, exists))
        return false;
    return h->shared == NULL || pyshc_envelope_begin(h, options->envelope_word, options->envelope.key);
}

PyDoc_STRVAR(
    ring_doc,
    "RingBufferChannel(capacity, *, buffer_size=None, codec='auto', spin=None, compression=None,\n"
    "                  compression_threshold=None, encryption_key=None, name=None, mode=0o600, persist=False, "
    "directory=None,\n"
    "                  max_participants=128)\n--\n\n"
    "A channel from one producer process to one consumer process: a ring of bytes in shared memory, wait-free.\n\n"
    "capacity: messages it holds at most, 1 to 8388607.\n"
    "buffer_size: by default the ring has 128 bytes for each message and at least 64 KiB; what is longer than half of "
    "that, or than 64 KiB,\n"
    "gets memory of its own when it is sent, 4 GiB in all. A stated size, rounded up to a power of two and to 4096, is "
    "reserved at once and is\n"
    "all there is, and no message may take more than half of it. In the ring a message takes its bytes plus 8, rounded "
    "up to 8: for 1000\n"
    "messages of 1 kB at a time say buffer_size=1000 * 1032.\n"
    "codec: 'auto', 'native', 'pickle', 'raw' or an object with dumps and loads. spin: seconds to spin before "
    "sleeping, 0 to 1; None\n"
    "learns it. compression: None, 'lz4', 'zstd' or 'zlib'; messages of compression_threshold (1024) bytes or more are "
    "compressed if that\n"
    "makes them smaller. encryption_key: 32 bytes, for AES-256-GCM; whoever attaches has to have it.\n"
    "name, mode, persist, directory, max_participants: see SharedObject.\n\n"
    "An end belongs to the process that uses it first, until that process closes the channel or dies; a second one "
    "gets BusyError.\n"
    "Threads of one process share its ends.\n\n"
    "Raises FileExistsError if a living object has the name, OSError(ENOSPC) if the memory is not there.\n\n"
    ">>> with RingBufferChannel(1024) as channel:\n"
    "...     channel.send({'answer': 42})\n"
    "...     channel.receive()\n"
    "{'answer': 42}");

static PyObject *
ring_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"capacity", "buffer_size",        "codec",
                                        "spin",     PYSHC_ENVELOPE_NAMES, PYSHC_CREATION_NAMES};
    PyObject *v[7 + PYSHC_CREATION_COUNT];
    ring_options_t options;
    if (!pyshc_parse_tuple("RingBufferChannel", args, kwargs, names, 7 + PYSHC_CREATION_COUNT, 1, 1, v) ||
        !parse_options(v[0], v[1], v + 4, &options))
        return NULL;
    pyshc_handle_t *h = pyshc_handle_new(type);
    pyshc_creation_t creation = {v[7], v[8], v[9], v[10], v[11]};
    if (h != NULL && !(pyshc_channel_parse_codec(h, v[2]) && pyshc_channel_parse_spin(h, v[3]) &&
                       create(h, &creation, &options, NULL)))
        Py_CLEAR(h);
    return (PyObject *)h;
}

PyDoc_STRVAR(
    attach_doc,
    "attach($type, name, *, timeout=0, directory=None, codec=None, spin=None, encryption_key=None, "
    "foreign=False)\n--\n\n"
    "Open an existing channel by name, waiting up to timeout seconds for it to appear.\n\n"
    "codec: by default what its creator chose; if that was an object, it has to be said here, too "
    "(ValueError). foreign=True accepts\n"
    "an object of another user. encryption_key: that of its creator, if it is encrypted (ValueError); compression "
    "is what its\n"
    "creator chose.\n"
    "Raises FileNotFoundError; LayoutError if the name is something else; PermissionError; OSError if all "
    "participants' slots are taken.\n\n"
    ">>> with RingBufferChannel(8, name='jobs') as jobs, RingBufferChannel.attach('jobs') as same:\n"
    "...     jobs.send('sweep')\n"
    "...     same.receive()\n"
    "'sweep'");

static PyObject *
ring_attach(PyObject *cls, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return pyshc_channel_attach(cls, &pyshc_ring_kind, args, nargs, kwnames);
}

/* Whether a stated buffer_size is all that the ring has. */
static bool
size_agrees(pyshc_handle_t *h, uint64_t asked)
{
    if (!h->shared->ring.has_extents)
        return pyshc_channel_number_agrees(h, "buffer_size", h->shared->seg.id.config[SHC_RING_CONFIG_DATA_BYTES],
                                           asked);
    pyshc_handle_disagree(h, "buffer_size", PyUnicode_FromString("None"),
                          PyUnicode_FromFormat("%llu", (unsigned long long)asked));
    return false;
}

static bool
agrees(pyshc_handle_t *h, const pyshc_opening_t *opening)
{
    const ring_options_t *options = opening->options;
    uint64_t capacity = h->shared->seg.id.config[SHC_RING_CONFIG_CAPACITY];
    if (options->capacity != 0 && !pyshc_channel_number_agrees(h, "capacity", capacity, options->capacity))
        return false;
    if (options->buffer_size != 0 && !size_agrees(h, data_bytes_for(options)))
        return false;
    uint64_t word = pyshc_channel_envelope_word(h);
    return pyshc_handle_agrees(h, &opening->creation) && pyshc_channel_codec_agrees(h, opening->codec) &&
           pyshc_envelope_agrees(h, word, &options->envelope) && pyshc_envelope_begin(h, word, options->envelope.key);
}

PyDoc_STRVAR(open_doc,
             "open($type, name, capacity=None, *, buffer_size=None, codec=None, spin=None, compression=None,\n"
             "     compression_threshold=None, encryption_key=None, mode=0o600, persist=False, directory=None,\n"
             "     max_participants=128)\n--\n\n"
             "Attach to the channel of that name, or create it if there is none; of several processes that do so at "
             "once, one creates.\n\n"
             "capacity is needed to create. What is stated and the existing channel has otherwise is a LayoutError "
             "(buffer_size is rounded\n"
             "up first, and of two codecs that are objects none is another); what is not stated is taken as it is. An "
             "existing one of another\n"
             "user is a PermissionError: only attach() has foreign=. Raises ValueError if it has to create and has no "
             "capacity.");

static bool
create_open(pyshc_handle_t *h, const pyshc_opening_t *opening, bool *exists)
{
    return create(h, &opening->creation, opening->options, exists);
}

static bool
has_capacity(const pyshc_opening_t *opening)
{
    const ring_options_t *options = opening->options;
    if (options->capacity == 0)
        PyErr_Format(PyExc_ValueError, "there is no channel named %R, and creating it needs a capacity",
                     opening->creation.name);
    return options->capacity != 0;
}

static PyObject *
ring_open(PyObject *cls, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"name",      "capacity",           "buffer_size", "codec",
                                        "spin",      PYSHC_ENVELOPE_NAMES, "mode",        "persist",
                                        "directory", "max_participants"};
    PyObject *v[12];
    ring_options_t options;
    if (!pyshc_parse("open", args, nargs, kwnames, names, 12, 2, 1, v) ||
        !parse_options(v[1] == Py_None ? NULL : v[1], v[2], v + 5, &options))
        return NULL;
    const pyshc_opening_t opening = {.kind = &pyshc_ring_kind,
                                     .creation = {v[0], v[8], v[9], v[10], v[11]},
                                     .codec = v[3],
                                     .spin = v[4],
                                     .options = &options,
                                     .agrees = agrees,
                                     .create = create_open,
                                     .check = has_capacity};
    return pyshc_channel_open(cls, &opening);
}

/* ---- pickling ---- */

PyDoc_STRVAR(rebuild_doc, "_rebuild($type, name, namespace, directory, codec, spin, encryption_key, /)\n--\n\nAttach "
                          "as the pickled handle was.");

static PyObject *
ring_rebuild(PyObject *cls, PyObject *const *args, Py_ssize_t nargs)
{
    return pyshc_channel_rebuild(cls, &pyshc_ring_kind, args, nargs);
}

/* ---- ends ---- */

static void
raise_busy(pyshc_handle_t *h, int end)
{
    uint32_t pid = shc_ring_holder_pid(&h->shared->ring, end);
    /* A channel goes one way only, which is what whoever holds its other end seems not to know. */
    bool answers = shc_a32_load_relaxed(&h->shared->end_users[1 - end]) != 0;
    PyErr_Format(h->st->BusyError,
                 "the %s end of %R belongs to process %u, which is alive; it is free when that process closes the "
                 "channel or ends%s",
                 end == SHC_RING_PRODUCER ? "sending" : "receiving", h, (unsigned)pid,
                 answers ? "; this process has the other end: use a second channel for the other direction" : "");
}

int
pyshc_ring_enter_slow(pyshc_handle_t *h, int end)
{
    pyshc_mutex_t *mutex = pyshc_ring_mutex(h->shared, end);
    if (!pyshc_envelope_check(h) || !pyshc_mutex_lock(mutex))
        return PYSHC_RAISED;
    if (pyshc_handle_is_closed(h)) {
        pyshc_mutex_unlock(mutex);
        return pyshc_handle_raise_closed(h);
    }
    int r = pyshc_ring_has_end(h, end) ? 0 : pyshc_shared_take_end(h->shared, end);
    if (r == 0) {
        shc_a64_store_relaxed(&h->taken[end], h->shared->seg.epoch);
        return 0;
    }
    pyshc_mutex_unlock(mutex);
    if (r == SHC_BUSY)
        raise_busy(h, end);
    else
        pyshc_channel_raise(h, r);
    return PYSHC_RAISED;
}

static void
advise_size(uint64_t size, char out[64])
{
    uint64_t needed = size < SHC_RING_DATA_BYTES_MAX / 4 ? shc_ceil_pow2(2 * (size + SHC_RING_RECORD_HEAD)) : 0;
    if (size == 0)
        PyOS_snprintf(out, 64, "create it with a larger buffer_size");
    else if (needed != 0 && shc_ring_payload_max(needed, false) >= size)
        PyOS_snprintf(out, 64, "create it with buffer_size=%llu", (unsigned long long)needed);
    else
        PyOS_snprintf(out, 64, "send it in parts");
}

int
pyshc_ring_refuse_size(pyshc_handle_t *h, int status, uint64_t size, bool exact)
{
    char advice[64];
    if (status != SHC_E_TOO_LARGE) {
        pyshc_refuse_growth(h, status, "message", size);
        return PYSHC_RAISED;
    }
    advise_size(size, advice);
    return pyshc_channel_refuse_too_large(h, size, exact, pyshc_ring_message_max(&h->shared->ring), advice);
}

/* ---- looking ---- */

/* Backlog as this process must see it: what it has taken itself does not count, though its space may still be held. */
static uint64_t
length_of(pyshc_handle_t *h)
{
    uint64_t messages, bytes;
    pyshc_shared_t *shared = h->shared;
    if (shc_ring_shutdown_flags(&shared->ring) & SHC_RING_IMMEDIATE)
        return 0; /* nobody will get what is left */
    if (shc_a32_load_relaxed(&shared->end_users[SHC_RING_CONSUMER]) == 0) {
        shc_ring_backlog(&shared->ring, &messages, &bytes);
        return messages;
    }
    /* A finaliser may come here from inside a call on this very end: then nobody else can be in it. */
    bool entered = !pyshc_mutex_is_mine(&shared->receive_lock) && pyshc_mutex_lock(&shared->receive_lock);
    shc_ring_backlog(&shared->ring, &messages, &bytes);
    uint64_t held = shc_ring_held(&shared->ring);
    if (entered)
        pyshc_mutex_unlock(&shared->receive_lock);
    return held < messages ? messages - held : 0;
}

static Py_ssize_t
ring_length(PyObject *self)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (!pyshc_handle_pin(h))
        return -1;
    Py_ssize_t n = (Py_ssize_t)length_of(h);
    pyshc_handle_unpin(h);
    return n;
}

static PyObject *
ring_is_empty(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Py_ssize_t n = ring_length(self);
    return n < 0 ? NULL : PyBool_FromLong(n == 0);
}

static PyObject *
ring_is_full(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    uint64_t messages, bytes;
    if (!pyshc_handle_pin(h))
        return NULL;
    shc_ring_t *ring = &h->shared->ring;
    shc_ring_backlog(ring, &messages, &bytes);
    bool full = messages >= ring->capacity || bytes + 2 * SHC_RING_RECORD_HEAD > ring->units << 3;
    pyshc_handle_unpin(h);
    return PyBool_FromLong(full);
}

static PyObject *
ring_clear(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (!pyshc_handle_pin(h))
        return NULL;
    int r = pyshc_ring_enter(h, SHC_RING_CONSUMER);
    if (r == 0) {
        r = pyshc_ring_clear_all(h->shared);
        pyshc_ring_leave_receive(h->shared);
        shc_event_notify_all(&h->shared->ring.shm->space);
    }
    PyObject *result = r == 0 ? Py_NewRef(Py_None) : pyshc_channel_raise(h, r);
    pyshc_handle_unpin(h);
    return result;
}

static PyObject *
ring_shutdown(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"immediate"};
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *v[1];
    bool immediate = false;
    if (!pyshc_parse("shutdown", args, nargs, kwnames, names, 1, 1, 0, v) || !pyshc_parse_flag(v[0], &immediate) ||
        !pyshc_handle_pin(h))
        return NULL;
    shc_ring_shutdown(&h->shared->ring, immediate);
    shc_event_notify_all(&h->shared->reservation_over);
    pyshc_handle_unpin(h);
    Py_RETURN_NONE;
}

/* Joins nothing, waits for nothing and raises nothing: errors and debuggers ask for it, in forked children too. */
static PyObject *
ring_repr(PyObject *self)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    reprfunc plain = h->st->shared_object_type->tp_repr;
    bool ours = shc_a64_load_acquire(&h->epoch) == shc_self_epoch(&pyshc_self); /* A1 */
    if (!ours || pyshc_handle_is_closed(h))
        return plain(self);
    if (!pyshc_handle_pin(h)) {
        PyErr_Clear(); /* closed since it was looked at */
        return plain(self);
    }
    uint64_t messages, bytes;
    const shc_ring_t *ring = &h->shared->ring;
    shc_ring_backlog(ring, &messages, &bytes);
    bool over = shc_ring_shutdown_flags(ring) != 0;
    PyObject *text = PyUnicode_FromFormat("<%s %R, %llu of %llu messages%s>", pyshc_handle_type_name(h), h->name,
                                          (unsigned long long)messages, (unsigned long long)ring->capacity,
                                          over ? ", shut down" : "");
    pyshc_handle_unpin(h);
    return text;
}

static PyObject *
ring_get_capacity(PyObject *self, void *Py_UNUSED(closure))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (!pyshc_handle_pin(h))
        return NULL;
    PyObject *capacity = PyLong_FromUnsignedLongLong(h->shared->ring.capacity);
    pyshc_handle_unpin(h);
    return capacity;
}

static PyObject *
ring_get_buffer_size(PyObject *self, void *Py_UNUSED(closure))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (!pyshc_handle_pin(h))
        return NULL;
    PyObject *bytes = PyLong_FromUnsignedLongLong(h->shared->ring.units << 3);
    pyshc_handle_unpin(h);
    return bytes;
}

static PyObject *
holds_of(pyshc_shared_t *shared, uint32_t index, uint32_t generation)
{
    const shc_ring_shm_t *shm = shared->ring.shm;
    uint64_t word = (uint64_t)(index + 1) | (uint64_t)generation << 12;
    bool sends = shc_a64_load_relaxed(&shm->producer) == word;
    bool receives = shc_a64_load_relaxed(&shm->consumer) == word;
    if (sends && receives)
        return Py_BuildValue("(ss)", "sending end", "receiving end");
    if (sends || receives)
        return Py_BuildValue("(s)", sends ? "sending end" : "receiving end");
    return PyTuple_New(0);
}

static PyObject *
ring_stats_fields(pyshc_handle_t *h)
{
    const shc_ring_t *ring = &h->shared->ring;
    const shc_ring_shm_t *shm = ring->shm;
    uint64_t messages, bytes;
    shc_ring_backlog(ring, &messages, &bytes);
    uint64_t peak = shc_a64_load_relaxed(&shm->peak);
    uint64_t waiters = shc_participant_count_waiters(&h->shared->seg.participants, &pyshc_self.id);
    uint32_t flags = shc_ring_shutdown_flags(ring);
    shc_arena_stats_t large;
    int r = pyshc_ring_extent_stats(h->shared, &large);
    if (r != 0)
        return r == PYSHC_RAISED ? NULL : pyshc_channel_raise(h, r);
    PyObject *envelope = pyshc_envelope_describe(pyshc_channel_envelope_word(h));
    PyObject *participants = envelope != NULL ? pyshc_participants(h->shared, holds_of) : NULL;
    if (participants == NULL) {
        Py_XDECREF(envelope);
        return NULL;
    }
    PyObject *fields = Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:I,s:O,s:O,s:O,s:N}", "bytes_total",
        (unsigned long long)ring->units << 3, "bytes_used", (unsigned long long)bytes, "capacity",
        (unsigned long long)ring->capacity, "length", (unsigned long long)length_of(h), "sent",
        (unsigned long long)shc_a64_load_relaxed(&shm->sent), "received",
        (unsigned long long)shc_a64_load_relaxed(&shm->received), "lost", 0ULL, "peak_length",
        (unsigned long long)(peak > messages ? peak : messages), "waiters", (unsigned long long)waiters,
        "sender_deaths", (unsigned long long)shc_a64_load_relaxed(&shm->producer_deaths), "receiver_deaths",
        (unsigned long long)shc_a64_load_relaxed(&shm->consumer_deaths), "bytes_large_total",
        (unsigned long long)large.bytes_total, "bytes_large_reserved", (unsigned long long)large.bytes_backed,
        "bytes_large_used", (unsigned long long)large.bytes_used, "large_messages", (unsigned long long)large.runs,
        "large_fragmentation", large.fragmentation, "is_shutdown", flags ? Py_True : Py_False, "compression",
        PyTuple_GET_ITEM(envelope, 0), "encrypted", PyTuple_GET_ITEM(envelope, 1), "participants", participants);
    Py_DECREF(envelope);
    return fields;
}

static PyObject *
ring_stats(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (!pyshc_handle_pin(h))
        return NULL;
    PyObject *stats = pyshc_make_stats("RingStats", ring_stats_fields(h));
    pyshc_handle_unpin(h);
    return stats;
}

/* ---- the type ---- */

PyDoc_STRVAR(send_doc,
             "send($self, obj, timeout=None)\n--\n\n"
             "Send an object, waiting up to timeout seconds (None: for ever) while the channel is full.\n\n"
             "Raises Full when the time is over, ShutDown, BusyError, NotEncodableError, MessageTooLargeError; "
             "OSError(ENOSPC) if\n"
             "the system has no memory for a large one; BufferError if this thread has a reservation open (another "
             "thread's is waited\n"
             "for); ValueError after close().\n\n"
             ">>> with RingBufferChannel(8) as channel:\n"
             "...     channel.send([1, 'two'], timeout=0.5)\n"
             "...     channel.receive(timeout=0.5)\n"
             "[1, 'two']");
PyDoc_STRVAR(
    try_send_doc,
    "try_send($self, obj, /)\n--\n\n"
    "Send without waiting: False if the channel is full, or if another thread has a reservation open.\n\n"
    "obj is positional only, which saves time. Raises what send() raises, but for Full.\n\n"
    ">>> with RingBufferChannel(1) as channel:\n"
    "...     channel.try_send('a'), channel.try_send('b'), channel.try_receive(), channel.try_receive('none')\n"
    "(True, False, 'a', 'none')");
PyDoc_STRVAR(enqueue_doc,
             "enqueue($self, obj, /)\n--\n\nSend without waiting, as try_send(): False if the channel is full.");
PyDoc_STRVAR(
    send_batch_doc,
    "send_batch($self, objs, timeout=None)\n--\n\n"
    "Send all objects of an iterable, in order, as they come; returns how many that were.\n\n"
    "Up to 64 are published at a time. What an iterator (a generator, say) has yielded is sent before it is "
    "asked for more, so it\n"
    "may be slow, wait for an answer, or never end. timeout: seconds for the whole call; when they are over, a "
    "full channel is not\n"
    "waited for, and an iterator is asked for nothing more. 0 sends what there is room for.\n\n"
    "Every exception, the iterator's own too, has the number of messages that were sent as its attribute "
    "`sent`: go on with\n"
    "objs[error.sent:]. An iterator has then been asked for one more, which was not sent.\n"
    "Raises what send() raises.\n\n"
    ">>> with RingBufferChannel(8) as channel:\n"
    "...     channel.send_batch('abc'), channel.receive_batch(10)\n"
    "(3, ['a', 'b', 'c'])");
PyDoc_STRVAR(
    receive_doc,
    "receive($self, timeout=None, *, copy=True)\n--\n\n"
    "The oldest message, waiting up to timeout seconds (None: for ever).\n\n"
    "copy=False: arrays and bytes-like objects in it are read-only views of shared memory, in use until the last view "
    "is garbage. Bytes\n"
    "come as memoryviews. At most 64 messages that lie in the ring may be in use at a time (BufferError); large ones "
    "have memory of their own.\n"
    "Raises Empty when the time is over, ShutDown when nothing will come any more, BusyError, CorruptedError, "
    "ValueError after close(),\n"
    "and what unpickling or the codec raises. A message that cannot be read is taken all the same: the next call "
    "gives the next one.\n\n"
    ">>> with RingBufferChannel(8) as channel:\n"
    "...     channel.send(b'pixels')\n"
    "...     bytes(channel.receive(copy=False))\n"
    "b'pixels'");
PyDoc_STRVAR(try_receive_doc, "try_receive($self, default=None)\n--\n\n"
                              "The oldest message, or default if there is none.\n\n"
                              "Raises what receive() raises, but for Empty.");
PyDoc_STRVAR(dequeue_doc, "dequeue($self, default=None)\n--\n\n"
                          "The oldest message, or default if there is none: try_receive().");
PyDoc_STRVAR(peek_doc,
             "peek($self, default=None)\n--\n\nA copy of the oldest message, which stays; default if there is none.\n\n"
             "Takes the receiving end, as receive() does: to look from outside, use len(), is_empty() or stats().");
PyDoc_STRVAR(receive_batch_doc,
             "receive_batch($self, count, timeout=None)\n--\n\n"
             "Wait for a message up to timeout seconds, then take what is there: a list of 1 to count messages.\n\n"
             "If one of them cannot be read, the exception has those before it as its attribute `received`. Raises "
             "what receive() raises.");
PyDoc_STRVAR(reserve_doc,
             "reserve($self, nbytes, timeout=None)\n--\n\n"
             "Room for a message of nbytes, written in place: `with channel.reserve(n) as buf:` sends it "
             "as bytes when the block ends.\n\n"
             "Until then other threads that send wait for it, up to their timeout; in the thread that made it, "
             "sending is a BufferError.\n"
             "A reservation that is dropped is aborted. To send less than was reserved, call commit(nbytes) "
             "inside the block.\n"
             "Raises what send() raises; MessageTooLargeError for more than half of a stated buffer_size.\n\n"
             ">>> with RingBufferChannel(8) as channel:\n"
             "...     with channel.reserve(5) as room:\n"
             "...         room[:] = b'hello'\n"
             "...     channel.receive()\n"
             "b'hello'");
PyDoc_STRVAR(reserve_array_doc, "reserve_array($self, shape, dtype, timeout=None)\n--\n\n"
                                "Room for a NumPy array, written in place: `with channel.reserve_array((480, 640), "
                                "'u1') as a:` sends it when the block ends.\n"
                                "Its content is undefined until it is written.\n\n"
                                "At the end of the block the array becomes read-only; slices and other views of it do "
                                "not: never write\n"
                                "through them afterwards, or messages change that were sent. Otherwise as reserve(). "
                                "Raises ImportError without NumPy.");
PyDoc_STRVAR(shutdown_doc,
             "shutdown($self, immediate=False)\n--\n\n"
             "No more sends: they raise ShutDown. Receivers get what is left and then ShutDown; with immediate=True, "
             "at once.\n\n"
             "Either side may call it, and more than once. It is for ever, and for all who have the channel open.");
PyDoc_STRVAR(clear_doc,
             "clear($self, /)\n--\n\nForget all messages that wait to be received. Takes the receiving end.");
PyDoc_STRVAR(is_empty_doc, "is_empty($self, /)\n--\n\nTrue if no message waits.");
PyDoc_STRVAR(is_full_doc, "is_full($self, /)\n--\n\nTrue if not even a small message can be sent now.");
PyDoc_STRVAR(stats_doc, "stats($self, /)\n--\n\nA RingStats: counts, bytes and participants at about this moment.");

#define FAST(f) ((PyCFunction)(void (*)(void))(f))

static PyMethodDef ring_methods[] = {
    {"attach", FAST(ring_attach), METH_FASTCALL | METH_KEYWORDS | METH_CLASS, attach_doc},
    {"open", FAST(ring_open), METH_FASTCALL | METH_KEYWORDS | METH_CLASS, open_doc},
    {"_rebuild", FAST(ring_rebuild), METH_FASTCALL | METH_CLASS, rebuild_doc},
    {"__reduce__", pyshc_channel_reduce, METH_NOARGS, NULL},
    {"send", FAST(pyshc_ring_send), METH_FASTCALL | METH_KEYWORDS, send_doc},
    {"try_send", pyshc_ring_try_send, METH_O, try_send_doc},
    {"enqueue", pyshc_ring_try_send, METH_O, enqueue_doc},
    {"send_batch", FAST(pyshc_ring_send_batch), METH_FASTCALL | METH_KEYWORDS, send_batch_doc},
    {"receive", FAST(pyshc_ring_receive), METH_FASTCALL | METH_KEYWORDS, receive_doc},
    {"try_receive", FAST(pyshc_ring_try_receive), METH_FASTCALL | METH_KEYWORDS, try_receive_doc},
    {"dequeue", FAST(pyshc_ring_try_receive), METH_FASTCALL | METH_KEYWORDS, dequeue_doc},
    {"peek", FAST(pyshc_ring_peek), METH_FASTCALL | METH_KEYWORDS, peek_doc},
    {"receive_batch", FAST(pyshc_ring_receive_batch), METH_FASTCALL | METH_KEYWORDS, receive_batch_doc},
    {"reserve", FAST(pyshc_ring_reserve), METH_FASTCALL | METH_KEYWORDS, reserve_doc},
    {"reserve_array", FAST(pyshc_ring_reserve_array), METH_FASTCALL | METH_KEYWORDS, reserve_array_doc},
    {"shutdown", FAST(ring_shutdown), METH_FASTCALL | METH_KEYWORDS, shutdown_doc},
    {"clear", ring_clear, METH_NOARGS, clear_doc},
    {"is_empty", ring_is_empty, METH_NOARGS, is_empty_doc},
    {"is_full", ring_is_full, METH_NOARGS, is_full_doc},
    {"stats", ring_stats, METH_NOARGS, stats_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ring_getset[] = {
    {"capacity", ring_get_capacity, NULL, "Messages that it holds at most.", NULL},
    {"buffer_size", ring_get_buffer_size, NULL, "Bytes of the ring; large messages may have more.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ring_slots[] = {
    {Py_tp_doc, (void *)ring_doc},     {Py_tp_new, ring_new},       {Py_tp_methods, ring_methods},
    {Py_tp_getset, ring_getset},       {Py_sq_length, ring_length}, {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, pyshc_ring_next}, {Py_tp_repr, ring_repr},     {0, NULL},
};

PyType_Spec pyshc_ring_spec = {
    .name = "shmcomm.RingBufferChannel",
    .basicsize = sizeof(pyshc_ring_object_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = ring_slots,
};
