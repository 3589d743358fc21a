/* A directory of its own on the shared-memory file system, for one test. */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct scratch {
    char path[64];
    int fd;
    bool mounted;
} scratch_t;

static inline bool
scratch_open(scratch_t *s)
{
    (void)snprintf(s->path, sizeof(s->path), "%s/shmcomm-test.XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    s->mounted = false;
    if (mkdtemp(s->path) == NULL)
        return false;
    s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return s->fd >= 0;
}

static inline void
scratch_close(scratch_t *s)
{
    DIR *dir = fdopendir(s->fd);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e != NULL; e = readdir(dir))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            (void)unlinkat(s->fd, e->d_name, unlinkat(s->fd, e->d_name, 0) == 0 ? 0 : AT_REMOVEDIR);
    (void)closedir(dir);
    if (s->mounted)
        (void)umount2(s->path, MNT_DETACH);
    (void)rmdir(s->path);
}

/* A tmpfs with these mount options ("size=64k"). False: not permitted here. */
static inline bool
scratch_open_mounted(scratch_t *s, const char *options)
{
    if (!scratch_open(s))
        return false;
    s->mounted = mount("tmpfs", s->path, "tmpfs", 0, options) == 0;
    if (!s->mounted) {
        scratch_close(s);
        return false;
    }
    (void)close(s->fd);
    s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return s->fd >= 0;
}

static inline bool
scratch_has(const scratch_t *s, const char *name)
{
    struct stat st;
    return fstatat(s->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* How many entries the directory has; the name of the last one seen goes to `name` unless it is NULL. */
static inline unsigned
scratch_count(const scratch_t *s, char name[256])
{
    unsigned n = 0;
    DIR *dir = opendir(s->path);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e != NULL; e = readdir(dir)) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (name != NULL)
            (void)snprintf(name, 256, "%s", e->d_name);
        n++;
    }
    if (dir != NULL)
        (void)closedir(dir);
    return n;
}

#endif
