/* A child process that runs one operation under ptrace, so that its parent can stop it behind every machine
 * instruction.
 *
 *     trace_require();                                      in the test: skips it where this cannot be done
 *     pid_t victim = trace_start(prepare, act, arg);        the child has run prepare(arg) and stands before act(arg)
 *     while (trace_step(victim)) look at what it did;       one instruction each, false once act has returned
 *     trace_kill(victim);                                   SIGKILL; it stays behind as a zombie, as killed workers do
 *     trace_bury(victim);                                   waits for it
 *
 * The markers around act are int3 instructions. trace_require also ties the test to the CPU that it is on: stepping
 * is three times faster when tracer and tracee take turns on one core. */
#ifndef CRASH_TRACE_H
#define CRASH_TRACE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "os/shc_os.h"

typedef void (*trace_fn)(void *arg);

/* Skips the test on machines whose processes cannot be single-stepped. */
void trace_require(void);

/* Forks. `prepare` may be NULL. The child is gone when the calling process is. */
pid_t trace_start(trace_fn prepare, trace_fn act, void *arg);

/* Lets it execute one instruction (a system call counts as one). False: act has returned. */
bool trace_step(pid_t pid);

/* Lets it run on until it enters or leaves a system call. False: act has returned. */
bool trace_to_syscall(pid_t pid);

/* Lets it run to the end of act, then to its own end; fails the test unless it ends well. */
void trace_finish(pid_t pid);

/* Lets go of it: it runs on untraced. */
void trace_detach(pid_t pid);

/* Address of its next instruction, as an offset into the program (what addr2line -e PROGRAM wants). */
uint64_t trace_where(pid_t pid);

/* Whether it has just been stopped at the door of a futex call. */
bool trace_at_futex(pid_t pid);

/* Whether its next instruction is a system call. */
bool trace_before_syscall(pid_t pid);

/* Ends a traced or untraced child for good and leaves the zombie. */
void trace_kill(pid_t pid);
void trace_bury(pid_t pid);

/* Children that have ended and that nobody has waited for: they play the dead processes in shared memory. Made when
 * first asked for; the test buries all of them when done. */
#define TRACE_CORPSES 4u
const shc_identity_t *trace_corpse(unsigned i);
void trace_bury_corpses(void);

#endif
