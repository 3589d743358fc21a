/* Result codes of the core; see shc_status.def. */
#ifndef SHC_STATUS_H
#define SHC_STATUS_H

#include "base/shc_base.h"

enum {
#define SHC_STATUS(name, value, exception, sentence) name = (value),
#include "base/shc_status.def"
#undef SHC_STATUS
};

/* The sentence of one of our codes, or NULL for 0 > code > -4096 (an errno) and for unknown values. */
const char *shc_status_sentence(int code);

#endif
