/* The test's own directory (t_dir), where it looks into it and mounts on it. */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t.h"

typedef struct scratch {
    const char *path;
    int fd;
    bool mounted;
} scratch_t;

static inline bool
scratch_open(scratch_t *s)
{
    s->path = t_dir();
    s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    s->mounted = false;
    return s->fd >= 0;
}

/* Empties it; the harness removes it. */
static inline void
scratch_close(scratch_t *s)
{
    DIR *dir = fdopendir(s->fd);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e != NULL; e = readdir(dir))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlinkat(s->fd, e->d_name, 0) != 0)
            (void)unlinkat(s->fd, e->d_name, AT_REMOVEDIR);
    (void)closedir(dir);
    if (s->mounted)
        (void)umount2(s->path, MNT_DETACH);
}

/* With a tmpfs of its own on it ("size=64k"), which only this process sees and which goes with it. False: not permitted
 * here. */
static inline bool
scratch_open_mounted(scratch_t *s, const char *options)
{
    s->path = t_dir();
    s->mounted = unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                 mount("tmpfs", s->path, "tmpfs", 0, options) == 0;
    s->fd = s->mounted ? open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
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
