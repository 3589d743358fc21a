#include "sync/shc_pace.h"

#include "os/shc_os.h"

#define STAND_OFF_NS UINT64_C(2000)
#define GAIN_WORTH 8
#define STREAK_MAX 64
#define PATIENCE_MIN 8
#define PATIENCE_MAX 4096

static uint64_t
earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void
pause_until(shc_pace_t *pace, uint64_t now_ns, uint64_t end_ns)
{
    for (; now_ns < end_ns; now_ns = shc_os_now_ns())
        shc_pause();
    shc_a64_store_relaxed(&pace->looked_ns, now_ns);
}

void
shc_pace_before_look(shc_pace_t *pace, uint64_t deadline_ns)
{
    uint32_t standing = shc_a32_load_relaxed(&pace->standing);
    if (standing == 0)
        return;
    /* When the plain look before a trial began is not known: asking the clock would cost each of them 20 ns. */
    uint64_t now = shc_os_now_ns(), began = standing == 1 ? now : shc_a64_load_relaxed(&pace->looked_ns);
    pause_until(pace, now, earlier(began + STAND_OFF_NS, deadline_ns));
}

void
shc_pace_stand_off(shc_pace_t *pace, uint64_t now_ns, uint64_t deadline_ns)
{
    if (shc_pace_stands_off(pace))
        pause_until(pace, now_ns, earlier(now_ns + STAND_OFF_NS, deadline_ns));
}

static uint32_t
patience_of(const shc_pace_t *pace)
{
    uint32_t patience = shc_a32_load_relaxed(&pace->patience);
    return patience != 0 ? patience : PATIENCE_MIN;
}

/* The coming looks are plain; `left` of them until a trial. */
static void
go_plain(shc_pace_t *pace, uint32_t patience, uint32_t left)
{
    shc_a32_store_relaxed(&pace->patience, patience);
    shc_a32_store_relaxed(&pace->plain, patience - left);
    shc_a32_store_relaxed(&pace->standing, 0);
}

static void
count_plain(shc_pace_t *pace, uint32_t gain)
{
    uint32_t plain = shc_a32_load_relaxed(&pace->plain) + 1;
    shc_a32_store_relaxed(&pace->plain, plain);
    shc_a32_store_relaxed(&pace->plain_gain, gain);
    shc_a32_store_relaxed(&pace->standing, plain >= patience_of(pace));
}

static void
lose_patience(shc_pace_t *pace)
{
    uint32_t patience = 2 * patience_of(pace);
    patience = patience < PATIENCE_MAX ? patience : PATIENCE_MAX;
    go_plain(pace, patience, patience);
}

void
shc_pace_after_look(shc_pace_t *pace, uint64_t gained)
{
    uint32_t gain = gained < UINT32_MAX / 2 ? (uint32_t)gained : UINT32_MAX / 2;
    uint32_t standing = shc_a32_load_relaxed(&pace->standing);
    bool pays = gain >= GAIN_WORTH && gain / 2 >= shc_a32_load_relaxed(&pace->plain_gain);
    if (standing == 0)
        count_plain(pace, gain);
    else if (standing == 1 && !pays)
        lose_patience(pace);
    else if (standing < STREAK_MAX && pays)
        shc_a32_store_relaxed(&pace->standing, standing + 1);
    else
        go_plain(pace, PATIENCE_MIN, 1);
}
