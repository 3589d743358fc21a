/* Between shc_os_common.c and the body of the system; nobody else includes this. */
#ifndef SHC_OS_BODY_H
#define SHC_OS_BODY_H

#include "os/shc_os.h"

/* ---- what each body gives to the common part ---- */

/* Reserves memory for the bytes [from, from + n), extending the file where it is shorter. -EINTR leaves this range
 * as it was; -EOPNOTSUPP: the system or the file system has no such call. */
SHC_MUST_USE int shc__os_allocate(int fd, uint64_t from, uint64_t n);

/* Makes a hole of the bytes [from, from + n), the size staying as it is. -EINTR: do it again; -EOPNOTSUPP as above. */
SHC_MUST_USE int shc__os_punch(int fd, uint64_t from, uint64_t n);

/* Bytes of memory that a file on fd's file system could still get without the system running out: UINT64_MAX if that
 * file system is not in memory, or if nobody knows. */
uint64_t shc__os_memory_available(int fd);

/* ---- what the common part gives to the bodies ---- */

/* Reads up to n bytes of a file of the system. 0 and *got, or -errno. */
SHC_MUST_USE int shc__os_read_file(const char *path, void *buf, size_t n, size_t *got);

/* The inode of a file; 0 if there is none of that name. */
uint64_t shc__os_inode_of(const char *path);

/* The PID namespace of the calling process as shc_identity_t wants it: 0 on a system without /proc. Only a stat(2), so
 * every body asks: without it, a process of another PID namespace would take ours for dead. */
uint64_t shc__os_pid_namespace(void);

/* Whether pid is a dead child of ours that nobody has waited for. */
bool shc__os_is_zombie_child(uint32_t pid);

/* shc_os_file_new and shc_os_file_publish by way of a private name. */
SHC_MUST_USE int shc__os_named_new(int dir_fd, uint32_t mode, const shc_identity_t *maker, int *fd,
                                   char tmp_name[SHC_OS_TMP_NAME]);
SHC_MUST_USE int shc__os_named_publish(int dir_fd, const char *tmp_name, const char *name);

/* Gives a new file just these permission bits, whatever the umask; closes it on failure. */
SHC_MUST_USE int shc__os_set_mode(int fd, uint32_t mode);

#endif
