#include "base/shc_status.h"

const char *
shc_status_sentence(int code)
{
    switch (code) {
#define SHC_STATUS(name, value, exception, sentence)                                                                   \
    case name:                                                                                                         \
        return sentence;
#include "base/shc_status.def"
#undef SHC_STATUS
    default:
        return NULL;
    }
}
