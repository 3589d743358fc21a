/* Segments for tests, in the test's own folder.
 *
 *     fix_open();                                           once per test: the folder and this process's identity
 *     CHECK_OK(fix_create_ring("a", 8, 4096, &seg));        ... "a" is the public name of the file
 *     CHECK_OK(fix_attach("a", &shc_ring_spec, &seg));
 *     fix_leave(&seg, "a");                                 leaves and unmaps
 *     fix_close();
 *
 * The fixture is one global: every test has a process of its own, and a forked child goes on with what it inherits. */
#ifndef SEGFIX_H
#define SEGFIX_H

#include <stdbool.h>

#include "ds/shc_buffer.h"
#include "ds/shc_cells.h"
#include "ds/shc_objects.h"
#include "ds/shc_pool.h"
#include "ds/shc_ring_extent.h"
#include "seg/shc_arena.h"
#include "seg/shc_seg.h"

typedef struct segfix {
    int dir_fd;
    shc_self_t self;
} segfix_t;

extern segfix_t fix;

void fix_open(void);
void fix_close(void);

#define FIX_PARTICIPANTS 4u

shc_seg_create_args_t fix_buffer_args(uint64_t size);
shc_seg_create_args_t fix_ring_args(uint64_t capacity, uint64_t data_bytes);
/* With an arena of so many pages of 64 KiB for its large messages. */
shc_seg_create_args_t fix_ring_extent_args(uint64_t capacity, uint64_t data_bytes, uint64_t pages);
shc_seg_create_args_t fix_objects_args(uint64_t max_size, uint64_t slot_size);

/* A segment whose body is an arena and nothing else: a kind for tests only. Its config words are the arena's. */
#define FIX_KIND_ARENA 0xfffffffeu
extern const shc_seg_spec_t fix_arena_spec;
/* pages, initial, page_shift, growth and records are the caller's; the rest is laid out. */
shc_seg_create_args_t fix_arena_args(shc_arena_geometry_t *g, uint32_t participants);
void fix_arena_geometry(const shc_seg_t *seg, shc_arena_geometry_t *g);
void fix_arena_init(shc_seg_t *seg);
void fix_arena_open(shc_arena_t *arena, shc_seg_t *seg);

/* A segment whose body is a cell ring and nothing else: another kind for tests only. Its config words are the
 * ring's. */
#define FIX_KIND_CELLS 0xfffffffdu
#define FIX_CELLS_HOLDS 8u
extern const shc_seg_spec_t fix_cells_spec;
shc_seg_create_args_t fix_cells_args(uint64_t capacity, uint64_t entries, uint64_t cells, uint32_t participants);
void fix_cells_init(shc_seg_t *seg);
void fix_cells_open(shc_cells_t *c, const shc_seg_t *seg);

int fix_create_buffer(const char *file, uint64_t size, shc_seg_t *seg);
int fix_create_ring(const char *file, uint64_t capacity, uint64_t data_bytes, shc_seg_t *seg);
int fix_create_objects(const char *file, uint64_t max_size, uint64_t slot_size, shc_seg_t *seg);
int fix_create_with(const char *file, const shc_seg_spec_t *spec, const shc_seg_create_args_t *args, shc_seg_t *seg);
int fix_attach(const char *file, const shc_seg_spec_t *spec, shc_seg_t *seg);
int fix_attach_any_owner(const char *file, const shc_seg_spec_t *spec, shc_seg_t *seg);
void fix_leave(shc_seg_t *seg, const char *file);

bool fix_exists(const char *file);
unsigned fix_count_files(void);
int fix_sweep(void);

/* Writes a file as it stands here; what was there before is replaced in place. */
void fix_write_file(const char *file, const void *bytes, size_t n);
/* Reads up to n bytes; returns how many. */
size_t fix_read_file(const char *file, void *bytes, size_t n);

/* A slot of the table as if another process, dead by now, stood in it. Returns its owner word. */
uint64_t fix_plant_dead(const shc_seg_t *seg, uint32_t index, uint32_t generation, uint32_t phase);
/* The same for the living parent of the test. */
uint64_t fix_plant_living(const shc_seg_t *seg, uint32_t index, uint32_t generation, uint32_t phase);

/* The identity of a process that is certainly dead; a zombie until the test ends where the system sees through that. */
const shc_identity_t *fix_corpse(void);

uint32_t fix_phase(const shc_seg_t *seg, uint32_t index);
uint32_t fix_generation(const shc_seg_t *seg, uint32_t index);
uint32_t fix_life(const shc_seg_t *seg);

/* Pages that end (and begin, up to rounding) at pages that nobody may touch: an image of n bytes lies flush at the
 * end. */
typedef struct fix_guarded {
    uint8_t *bytes;
    size_t size;
    uint8_t *mapping;
    size_t mapped;
} fix_guarded_t;

fix_guarded_t fix_guard(size_t n);
void fix_unguard(fix_guarded_t *g);

/* Joins an adopted image as this process, in slot 0 .. count-1. */
int fix_join(shc_seg_t *seg);

#endif
