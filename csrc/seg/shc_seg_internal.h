/* Shared between the files of this module only. */
#ifndef SHC_SEG_INTERNAL_H
#define SHC_SEG_INTERNAL_H

#include <errno.h>

#include "seg/shc_seg.h"

bool shc_seg__confirm(shc_seg_t *seg);
SHC_MUST_USE int shc_seg__join(shc_seg_t *seg);

/* For who only removes the name: a name to be stamped with, which does not count as a user. A free slot or none: nobody
 * is reaped, as nothing is known of the kind. */
void shc_seg__visit(shc_seg_t *seg);
void shc_seg__end_visit(shc_seg_t *seg);

/* Last one out: removes the name if no other living process uses the segment. 0, SHC_BUSY (used), SHC_GONE (somebody
 * else removes or has removed it), or why the system refused (then nothing has changed). */
SHC_MUST_USE int shc_seg__remove_if_unused(shc_seg_t *seg, int dir_fd, const char *file);

/* Removes the name whatever others do: 0, SHC_GONE (a living process is at it), -ENOENT, or why the system refused. */
SHC_MUST_USE int shc_seg__remove(shc_seg_t *seg, int dir_fd, const char *file);

/* Maps and validates; the handle has joined nothing. fd stays the caller's. spec NULL: any kind (its body is not
 * looked at). */
SHC_MUST_USE int shc_seg__map(int fd, const shc_os_file_info_t *info, shc_self_t *self, const shc_seg_spec_t *spec,
                              shc_seg_t *out);

#endif
