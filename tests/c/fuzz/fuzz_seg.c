/* Files that pretend to be segments. Input: a kind, a length, hostile writes; then operations on the file and on
 * what was attached. See tests/SCENARIOS.md. */
#include <errno.h>

#include "fuzz/fuzz_impl.h"

#define NAME "shmcomm.fuzz"
#define WRITES_MAX 64u
#define OPS_MAX 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    bool ready;
    fuzz_dir_t dir;
    uint8_t pristine[2][FUZZ_SIZE];
    uint8_t bytes[FUZZ_SIZE];
} all;

static const shc_seg_spec_t *const specs[] = {&shc_buffer_spec, &shc_ring_spec};

static void
tear_down(void)
{
    fuzz_dir_close(&all.dir);
}

static void
set_up(void)
{
    all.ready = true;
    fuzz_dir_open(&all.dir);
    for (unsigned i = 0; i < 2; i++)
        fuzz_pristine(&all.dir, specs[i], all.pristine[i]);
    (void)atexit(tear_down);
}

static void
write_file(size_t size)
{
    int fd = openat(all.dir.fd, NAME, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0 && write(fd, all.bytes, size) == (ssize_t)size);
    (void)close(fd);
}

/* What an operation on a name may say. */
static void
check_status(int r)
{
    bool outcome = r == 0 || r == SHC_BUSY || r == SHC_GONE;
    bool refusal = r == SHC_E_CORRUPT || r == SHC_E_NOT_SEGMENT || r == SHC_E_KIND || r == SHC_E_VERSION ||
                   r == SHC_E_FINGERPRINT || r == SHC_E_FOREIGN_PIDNS || r == SHC_E_PARTICIPANTS;
    FUZZ_CHECK(outcome || refusal || r == -ENOENT || r == -EEXIST || r == -ENOMEM);
}

static void
use_attached(shc_seg_t *seg, fuzz_input_t *in)
{
    for (unsigned i = 0; i < OPS_MAX && in->left > 0; i++) {
        unsigned op = (unsigned)fuzz_take(in, 1);
        if (op >= 192)
            fuzz_mutate(in, seg->base, seg->id.size);
        else
            fuzz_seg_op(seg, op % (FUZZ_SEG_OPS - 1), fuzz_take(in, 5));
    }
    if (fuzz_take(in, 1) % 4 == 0)
        check_status(shc_seg_unlink(seg, all.dir.fd, NAME));
}

static void
attach(unsigned kind, fuzz_input_t *in)
{
    int fd;
    shc_os_file_info_t info;
    shc_seg_t seg;
    int r = shc_seg_locate(all.dir.fd, NAME, false, &fd, &info);
    check_status(r);
    if (r != 0)
        return;
    r = shc_seg_attach(all.dir.fd, NAME, fd, &info, &all.dir.self, specs[kind], &seg);
    check_status(r);
    if (r != 0)
        return;
    use_attached(&seg, in);
    shc_seg_leave(&seg, all.dir.fd, NAME);
    shc_seg_unmap(&seg);
}

static void
create(unsigned kind)
{
    shc_seg_t seg;
    shc_seg_create_args_t args = fuzz_args(specs[kind]);
    void (*init)(shc_seg_t *) = kind == 1 ? shc_ring_init : shc_buffer_init;
    int r = shc_seg_create(all.dir.fd, NAME, &all.dir.self, specs[kind], &args, init, &seg);
    check_status(r);
    if (r != 0)
        return;
    shc_seg_leave(&seg, all.dir.fd, NAME);
    shc_seg_unmap(&seg);
}

static void
look(void)
{
    shc_seg_report_t report;
    shc_seg_slot_t slots[4];
    check_status(shc_seg_inspect(all.dir.fd, NAME, &all.dir.self, &report));
    FUZZ_CHECK(shc_seg_list_participants(all.dir.fd, NAME, &all.dir.self, slots, 4) <= 4);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input_t in = {data, size};
    if (!all.ready)
        set_up();
    unsigned kind = (unsigned)fuzz_take(&in, 1) & 1;
    size_t length = (size_t)fuzz_take(&in, 2);
    length = length % 4 != 0 ? FUZZ_SIZE : length / 4 % (FUZZ_SIZE + 1);
    memcpy(all.bytes, all.pristine[kind], FUZZ_SIZE);
    for (uint64_t n = fuzz_take(&in, 1) % WRITES_MAX; n > 0 && in.left > 0; n--)
        fuzz_mutate(&in, all.bytes, FUZZ_SIZE);
    write_file(length);
    for (unsigned i = 0; i < OPS_MAX && in.left > 0; i++) {
        switch (fuzz_take(&in, 1) % 6) {
        case 0:
        case 1:
            attach(kind, &in);
            break;
        case 2:
            look();
            break;
        case 3:
            check_status(shc_seg_reap(all.dir.fd, NAME, &all.dir.self, fuzz_take(&in, 1) & 1));
            break;
        case 4:
            FUZZ_CHECK(shc_seg_sweep_dir(all.dir.fd, "", &all.dir.self, SHC_NEVER, NULL, NULL, NULL) == 0);
            break;
        default:
            create((unsigned)fuzz_take(&in, 1) & 1);
            break;
        }
    }
    check_status(shc_seg_force_unlink(all.dir.fd, NAME, &all.dir.self));
    (void)unlinkat(all.dir.fd, NAME, 0);
    return 0;
}
