/* Whether a segment is what correct processes leave, by looks alone.
 *
 * What a look means depends on who is at work. The head, the life word and the participant slots are sound word by word
 * at any time. The body is judged by its kind (`check` of its spec), which knows what may be work in progress; what it
 * finds in a segment at rest counts only if nobody living had a slot before the look, and nobody came during it. */
#ifndef SHC_FSCK_H
#define SHC_FSCK_H

#include "seg/shc_seg.h"

typedef enum shc_fsck_part {
    SHC_FSCK_NOTHING,
    SHC_FSCK_HEAD, /* identification, life, participant slots */
    SHC_FSCK_BODY,
} shc_fsck_part_t;

typedef struct shc_fsck {
    shc_seg_report_t report;
    shc_fsck_part_t part; /* where it is damaged */
    bool in_use;          /* by a living process, when it was looked at */
} shc_fsck_t;

/* 0: sound. SHC_E_CORRUPT: damaged, see out->part. SHC_AGAIN: others are at work, and it cannot be told; another look
 * may be luckier. Else why it is no segment that this build can read; *out is written in every case. */
SHC_MUST_USE int shc_fsck(int dir_fd, const char *file, shc_self_t *self, shc_fsck_t *out);

#endif
