/* A named buffer: bytes that every process maps, with a small head.
 *
 * Overview. The data are the user's: reads and writes are plain copies without any lock, and two processes that
 * write the same bytes at once get some mixture of both, as with any shared memory. The head tells what the buffer
 * is; `used` is the highest end of any write since the last clear, so that a reader knows how much of it means
 * something.
 *
 * Guarantees
 *   (a) Size and place of the data are private copies: no word of the segment can lead a reader out of it.
 *   (b) used never exceeds size, whatever the segment says.
 *   (c) flags, user, checksum and used are single words: a kill leaves the old or the new value.
 *
 * Progress: wait-free, except note_write, which retries while other writers raise `used` (lock-free).
 *
 * Pairs
 *   A1 <- AR1: who reads `used` sees the bytes that the writer copied before it raised the mark.
 *
 * Crash points: a writer killed half-way leaves half its bytes and the old mark. Nothing to repair. */
#ifndef SHC_BUFFER_H
#define SHC_BUFFER_H

#include "ds/shc_buffer_shm.h"
#include "seg/shc_seg.h"

typedef struct shc_buffer {
    shc_buffer_shm_t *shm;
    uint8_t *data;
    uint64_t size;
} shc_buffer_t;

extern const shc_seg_spec_t shc_buffer_spec;

uint64_t shc_buffer_body_size(uint64_t size);

/* For shc_seg_create: writes the head. */
void shc_buffer_init(shc_seg_t *seg);

void shc_buffer_open(shc_buffer_t *buffer, shc_seg_t *seg);

/* Bytes up to the highest end of any write. */
uint64_t shc_buffer_used(const shc_buffer_t *buffer);

/* [offset, offset + length) has been written; the caller has checked that it lies inside. */
void shc_buffer_note_write(shc_buffer_t *buffer, uint64_t offset, uint64_t length);

/* Zeroes a range; the mark falls back if the range covers its end. */
void shc_buffer_clear(shc_buffer_t *buffer, uint64_t offset, uint64_t length);

uint32_t shc_buffer_checksum(const shc_buffer_t *buffer);

/* Read-only: the head is as its creator wrote it and the mark is inside. 0 or SHC_E_CORRUPT. */
SHC_MUST_USE int shc_buffer_check(const shc_buffer_t *buffer);

#endif
