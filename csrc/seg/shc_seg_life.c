/* The life of a segment's name: who removes it, and when. The argument is in shc_seg.h. */
#include "seg/shc_seg_internal.h"

/* OPEN(n) -> OPEN(n + 1): completes an attach. False if the name is doomed or gone. */
bool
shc_seg__confirm(shc_seg_t *seg)
{
    shc_a64_t *life = &shc_seg_shm(seg)->life;
    uint64_t word = shc_a64_load_relaxed(life);
    while (shc_seg_life_state(word) == SHC_SEG_OPEN) {
        uint64_t next = shc_seg_life_word(SHC_SEG_OPEN, 0, shc_seg_life_number(word) + 1);
        if (shc_a64_cas_seq_cst(life, &word, next)) /* AR1 */
            return true;
    }
    return false;
}

/* What `life` was before we doomed the name, as something that was not seen before: who has read the older word cannot
 * go on from it. */
static uint64_t
undoomed(uint64_t before)
{
    bool was_open = shc_seg_life_state(before) == SHC_SEG_OPEN;
    return was_open ? shc_seg_life_word(SHC_SEG_OPEN, 0, shc_seg_life_number(before) + 1) : before;
}

/* The name is ours to remove: `life` went from `before` to DOOMED(me). If the system refuses, it goes back. */
static int
remove_name(shc_seg_t *seg, int dir_fd, const char *file, uint64_t before)
{
    bool same = false;
    int r = shc_os_file_is(dir_fd, file, seg->dev, seg->ino, &same);
    if (r == 0 && same)
        r = shc_os_file_unlink(dir_fd, file);
    r = r == -ENOENT ? 0 : r;
    uint64_t after = r == 0 ? shc_seg_life_word(SHC_SEG_UNLINKED, 0, 0) : undoomed(before);
    shc_a64_store_release(&shc_seg_shm(seg)->life, after); /* R1 */
    return r;
}

static uint64_t
doomed_by_me(const shc_seg_t *seg)
{
    return shc_seg_life_word(SHC_SEG_DOOMED, seg->index, seg->generation);
}

/* What DOOMED says of its owner: nobody living will finish the removal. */
static bool
remover_is_dead(const shc_seg_t *seg, uint64_t word)
{
    shc_identity_t visitor = {.pid = shc_seg_life_number(word), .pidns = seg->self->id.pidns};
    if (shc_seg_life_index(word) == SHC_SEG_LIFE_VISITOR)
        return visitor.pid == 0 || shc_os_is_dead(&visitor, &seg->self->id);
    return shc_participant_is_dead(&seg->participants, shc_seg_life_index(word), shc_seg_life_number(word), UINT32_MAX,
                                   &seg->self->id);
}

int
shc_seg__remove_if_unused(shc_seg_t *seg, int dir_fd, const char *file)
{
    shc_a64_t *life = &shc_seg_shm(seg)->life;
    uint64_t word = shc_a64_load_acquire(life); /* A1 */
    while (shc_seg_life_state(word) == SHC_SEG_OPEN) {
        if (shc_participant_count_alive(&seg->participants, seg->index, 1, &seg->self->id) != 0)
            return SHC_BUSY;
        uint64_t before = word;
        if (shc_a64_cas_seq_cst(life, &word, doomed_by_me(seg))) /* AR1 */
            return remove_name(seg, dir_fd, file, before);
    }
    bool abandoned = shc_seg_life_state(word) == SHC_SEG_DOOMED && remover_is_dead(seg, word);
    return abandoned ? shc_seg__remove(seg, dir_fd, file) : SHC_GONE;
}

/* 0 if the name may be doomed from this word on, else why it is not ours to remove. */
static int
may_doom(const shc_seg_t *seg, int dir_fd, const char *file, uint64_t word)
{
    bool same = false;
    switch (shc_seg_life_state(word)) {
    case SHC_SEG_OPEN:
        return 0;
    case SHC_SEG_DOOMED:
        return remover_is_dead(seg, word) ? 0 : SHC_GONE;
    default: /* The name is gone, or a scribbler says so: no such word may make it eternal. */
        return shc_os_file_is(dir_fd, file, seg->dev, seg->ino, &same) == 0 && same ? 0 : -ENOENT;
    }
}

int
shc_seg__remove(shc_seg_t *seg, int dir_fd, const char *file)
{
    shc_a64_t *life = &shc_seg_shm(seg)->life;
    uint64_t word = shc_a64_load_acquire(life); /* A1 */
    for (;;) {
        uint64_t before = word;
        int r = may_doom(seg, dir_fd, file, word);
        if (r != 0)
            return r;
        if (shc_a64_cas_seq_cst(life, &word, doomed_by_me(seg))) /* AR1 */
            return remove_name(seg, dir_fd, file, before);
    }
}

int
shc_seg_unlink(shc_seg_t *seg, int dir_fd, const char *file)
{
    return shc_seg__remove(seg, dir_fd, file);
}

void
shc_seg_leave(shc_seg_t *seg, int dir_fd, const char *file)
{
    if (seg->epoch == 0 || seg->epoch != shc_self_epoch(seg->self)) {
        seg->epoch = 0;
        return; /* the slot is the parent's */
    }
    shc_participant_begin_leave(&seg->participants, seg->index);
    if (!(seg->id.flags & SHC_SEG_FLAG_PERSIST)) {
        int r = shc_seg__remove_if_unused(seg, dir_fd, file);
        (void)r; /* still used, gone already, or left to the next sweep because the system refused */
    }
    shc_participant_end_leave(&seg->participants, seg->index);
    seg->epoch = 0;
}

int
shc_seg__join(shc_seg_t *seg)
{
    uint32_t index, generation;
    int r = shc_participant_join(&seg->participants, &seg->self->id, &index, &generation);
    if (r == SHC_FULL) {
        (void)shc_seg_reap_participants(seg);
        r = shc_participant_join(&seg->participants, &seg->self->id, &index, &generation);
    }
    if (r != 0)
        return SHC_E_PARTICIPANTS;
    seg->index = index;
    seg->generation = generation;
    seg->epoch = seg->self->epoch;
    return 0;
}

/* If no slot is free, those of the dead are none of a visitor's: it could not sweep what they held. Then its pid is its
 * name. */
void
shc_seg__visit(shc_seg_t *seg)
{
    if (shc_participant_visit(&seg->participants, &seg->self->id, &seg->index, &seg->generation) != 0) {
        seg->index = SHC_SEG_LIFE_VISITOR;
        seg->generation = seg->self->id.pid;
    }
    seg->epoch = seg->self->epoch;
}

void
shc_seg__end_visit(shc_seg_t *seg)
{
    if (seg->index != SHC_SEG_LIFE_VISITOR)
        shc_participant_end_leave(&seg->participants, seg->index);
    seg->epoch = 0;
}

int
shc_seg_rejoin(shc_seg_t *seg)
{
    int r = shc_self_refresh(seg->self);
    if (r != 0 || seg->epoch == seg->self->epoch)
        return r;
    r = shc_seg__join(seg);
    if (r == 0)
        (void)shc_seg__confirm(seg); /* with the name gone the memory still serves those who have it */
    return r;
}

uint32_t
shc_seg_reap_participants(shc_seg_t *seg)
{
    return shc_participant_reap(&seg->participants, &seg->self->id, seg->spec->sweep, seg);
}
