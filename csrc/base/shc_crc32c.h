/* CRC-32C (Castagnoli): the checksum that x86-64 and arm64 compute in hardware. */
#ifndef SHC_CRC32C_H
#define SHC_CRC32C_H

#include "base/shc_base.h"

/* The checksum of a text continued: `crc` is that of what came before, 0 at the start. Splitting a text anywhere
 * gives the same result. "123456789" has 0xe3069283. */
uint32_t shc_crc32c(uint32_t crc, const void *data, size_t n);

/* The same without special instructions; shc_crc32c() falls back on it, and tests compare the two. */
uint32_t shc_crc32c_portable(uint32_t crc, const void *data, size_t n);

#endif
