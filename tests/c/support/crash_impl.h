/* Kills at every machine instruction, and survivors on what is left.
 *
 * What SIGKILL leaves of a process is exactly the shared memory at that instant. So one pass over an operation is
 * enough: a traced child executes it on a live segment, and behind every instruction that changed the segment the
 * parent
 *   1. copies the segment (it is position-independent) and writes into the copy that the victim's process is gone: its
 *      pid, start time and pidfd inode are replaced by those of a real zombie, so that recovery asks the kernel as it
 *      always does;
 *   2. runs the survivors on the copy: `peer`, who was there all the time with private state of its own, and
 *      `survivor`, who joins now. They do whatever the header essay of the structure promises to be possible, and
 *      check it;
 *   3. reaps, and checks that no word names the dead and that *_check() is satisfied.
 * Everything is done twice: with the dead reaped first, and with the survivors meeting the dead process's words
 * themselves.
 *
 * Double faults: from every k-th image a traced child joins, reaps and does what `recover` says; it is killed behind
 * each of its instructions in turn, and a third process checks as above.
 *
 * A structure adds one script (crash_script_t) and its cases; see crash_ring.c. SHMCOMM_CRASH_DOUBLE says from how
 * many images per case recovery is killed (16; 0: none, "all": every one).
 *
 * Weak memory is not looked at: what the machine's other cores see in between is the business of the pair tables and
 * TSan. */
#ifndef CRASH_IMPL_H
#define CRASH_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "seg/shc_seg.h"

/* One process's view of one image of the segment. */
typedef struct crash_party {
    shc_seg_t seg;
    void *own; /* script->own_size bytes: its handle of the structure */
} crash_party_t;

typedef struct crash_case crash_case_t;

struct crash_case {
    const char *name;
    const void *plan; /* the script's own description of the case */
    bool outsider;    /* the victim does not join before the operation (which may be to join) */

    /* In the parent, on the live segment: what has happened before. May be NULL. */
    void (*setup)(crash_party_t *peer, const crash_case_t *c);
    /* In the victim, after it has joined, not traced. May be NULL. */
    void (*prepare)(crash_party_t *victim, const crash_case_t *c);
    /* In the victim, traced: the operation. */
    void (*act)(crash_party_t *victim, const crash_case_t *c);
    /* In the parent, on a copy: what must hold now whenever the victim died. Uses SURVIVES*. */
    void (*check)(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c);
};

typedef struct crash_script {
    const char *name;
    const shc_seg_spec_t *spec;
    shc_seg_create_args_t args;
    void (*init)(shc_seg_t *seg);
    size_t own_size;

    /* Fills party->own for party->seg, taking nothing. */
    void (*bind)(crash_party_t *party);
    /* party->own is a copy of another party's, whose segment lay elsewhere: makes its pointers lead to party->seg. */
    void (*rebase)(crash_party_t *party);
    /* What a successor does at once, for double faults. May be NULL (joining and reaping are always part of it). */
    void (*recover)(crash_party_t *survivor, const crash_case_t *c);
    /* Whether a word of the structure names this participant. May be NULL. */
    bool (*owns)(const crash_party_t *party, uint32_t index, uint32_t generation);
    /* The structure's *_check. */
    int (*verify)(const crash_party_t *party);
} crash_script_t;

/* Runs all cases, prints a table, and fails the test if a survivor failed anywhere. */
void crash_run(const crash_script_t *script, const crash_case_t *cases, size_t n);

/* ---- for scripts ---- */

/* Ends this survivor's run as failed and says where the victim was. */
#define SURVIVES(cond) ((cond) ? (void)0 : crash_failed(__FILE__, __LINE__, "%s", #cond))
#define SURVIVES_EQ(a, b) crash_expect_eq(__FILE__, __LINE__, #a " == " #b, (long long)(a), (long long)(b))

_Noreturn __attribute__((format(printf, 3, 4))) void crash_failed(const char *file, int line, const char *format, ...);
void crash_expect_eq(const char *file, int line, const char *text, long long a, long long b);

/* Makes a participant whose process is dead (another one each time it is called, up to two); returns its owner word.
 * For setup. */
uint64_t crash_plant_dead(crash_party_t *peer);

/* In the survivor's part: whether the dead were reaped before it (else it meets their words itself). */
bool crash_reaped_before(void);

/* In the survivor's part: whether this is behind a double fault, so that recover() has run, in part or completely. */
bool crash_is_double(void);

/* The victim's participant in the image at hand: false if it is in no slot. */
bool crash_victim_slot(const crash_party_t *party, uint32_t *index, uint32_t *generation);

#endif
