/* Extents: messages that lie in memory of their own, whatever carries them.
 *
 * Overview. A message that is too long to lie inline travels as a descriptor: 16 bytes {reference, length}, in a record
 * whose tag has SHC_EXTENT_TAG set beside the message's own tag. Its bytes are a run of whole pages from the segment's
 * arena: written in place by the sender, read in place by the receiver, and held as long as the receiver likes, without
 * keeping the carrier from being used again. What was freed last is handed out first, so that a stream of large
 * messages goes to and fro in the same warm memory.
 *
 * Whose it is. OWNED by the sender, from allocation until the receiver adopts it (seg/shc_arena.h, "Blocks on their
 * way"); OWNED by the receiver until it releases it. The carrier's own words say that a message exists and who may take
 * it; the block's word says who has it; there is no third.
 *
 * Only runs, never small blocks: a small one would go to the receiver's magazine when it is released, and keep a page
 * of the arena from whoever needs all of it. So a sender that finds no memory while nothing is on its way nor held has
 * asked for more than there can ever be.
 *
 * Who looks for the dead. Whoever finds no memory sweeps what they held before it says so. (So does whoever takes an
 * end from one of them, and a receiver that has nothing to do.)
 *
 * What the system refuses. Where it has no memory left, but some of this arena is in use, there will be some when that
 * comes back: SHC_FULL, as if the arena were full. Else it is the system's error.
 *
 * Trust. Of a descriptor each number is read once. The reference is checked by the arena, the length against the
 * block's. A process that forges descriptors can take blocks from others, as it could by writing their words; nobody
 * leaves the arena's memory. */
#ifndef SHC_EXTENT_H
#define SHC_EXTENT_H

#include "seg/shc_arena.h"

#define SHC_EXTENT_TAG 0x80u
#define SHC_EXTENT_DESCRIPTOR 16u
#define SHC_EXTENT_PAGE_SHIFT 16u

typedef struct shc_extent {
    shc_ref_t ref; /* SHC_ARENA_NOTHING: none */
    uint8_t *memory;
    uint64_t length;     /* of the message; of a new one, bytes that there is room for */
    uint8_t *descriptor; /* of a new one: where in the carrier its descriptor goes */
} shc_extent_t;

/* Memory for a message of n bytes. 0; SHC_FULL; SHC_E_TOO_LARGE: never; -ENOSPC and the like. */
SHC_MUST_USE int shc_extent_allocate(shc_arena_t *arena, uint64_t n, shc_extent_t *out);

/* Writes the descriptor of a message of `length` bytes; not yet visible to anybody. */
void shc_extent_describe(const shc_extent_t *extent, uint64_t length);

/* Reads a descriptor in a record of `length` bytes. Nothing changes: whoever goes past the message adopts the block
 * first (shc_arena_adopt) and then lets others have the record. SHC_E_STALE: no message is there. */
SHC_MUST_USE int shc_extent_read(shc_arena_t *arena, const uint8_t *record, uint64_t length, shc_extent_t *out);

#endif
