#include "sync/shc_event.h"

void
shc_event_wake(shc_event_shm_t *ev, uint32_t count)
{
    uint32_t v = shc_a32_load_relaxed(&ev->word);
    if (!(v & SHC_EVENT_SLEEPERS))
        return;
    /* A failed exchange means that another notifier woke somebody after our change: its sleepers look again and see
     * it. */
    if (shc_a32_cas_seq_cst(&ev->word, &v, (v & ~SHC_EVENT_SLEEPERS) + 2)) /* AR1 */
        (void)shc_os_futex_wake(&ev->word, count);
}

uint32_t
shc_event_prepare(shc_event_shm_t *ev)
{
    uint32_t v = shc_a32_fetch_or_seq_cst(&ev->word, SHC_EVENT_SLEEPERS) | SHC_EVENT_SLEEPERS; /* AR2 */
    shc_fence_seq_cst();                                                                       /* SC1 */
    return v;
}

int
shc_event_wait(shc_event_shm_t *ev, uint32_t prepared, uint64_t deadline_ns)
{
    return shc_os_futex_wait(&ev->word, prepared, deadline_ns);
}

void
shc_event_pass_on(shc_event_shm_t *ev)
{
    (void)shc_event_prepare(ev);
}
