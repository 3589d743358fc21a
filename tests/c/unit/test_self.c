/* The calling process's identity and epoch. */
#include "sync/shc_self.h"

#include <unistd.h>

#include "support/proc.h"
#include "t.h"

static shc_self_t self;

TEST(init_gives_an_identity_and_an_epoch)
{
    CHECK_OK(shc_self_init(&self));
    CHECK_EQ(self.id.pid, getpid());
    CHECK_EQ(self.id.uid, geteuid());
    CHECK_GT(shc_self_epoch(&self), 0);
    CHECK_EQ(shc_self_epoch(&self), self.epoch);
}

TEST(refresh_changes_nothing_in_the_same_process)
{
    CHECK_OK(shc_self_init(&self));
    uint64_t epoch = shc_self_epoch(&self);
    CHECK_OK(shc_self_refresh(&self));
    CHECK_EQ(shc_self_epoch(&self), epoch);
}

static void
grandchild(void *arg)
{
    uint64_t *epoch = arg;
    CHECK_EQ(shc_self_epoch(&self), 0);
    CHECK_OK(shc_self_refresh(&self));
    CHECK_EQ(self.id.pid, getpid());
    CHECK_NE(shc_self_epoch(&self), *epoch);
    CHECK_GT(shc_self_epoch(&self), 0);
}

static void
child(void *arg)
{
    uint64_t parents = *(uint64_t *)arg;
    CHECK_EQ(shc_self_epoch(&self), 0);
    CHECK_NE(self.id.pid, getpid());
    CHECK_OK(shc_self_refresh(&self));
    CHECK_EQ(self.id.pid, getpid());
    uint64_t mine = shc_self_epoch(&self);
    CHECK_GT(mine, 0);
    CHECK_NE(mine, parents);
    proc_join(proc_start(grandchild, &mine));
    CHECK_EQ(shc_self_epoch(&self), mine);
}

TEST(a_forked_child_reads_epoch_0_until_it_refreshes)
{
    CHECK_OK(shc_self_init(&self));
    uint64_t epoch = shc_self_epoch(&self);
    proc_join(proc_start(child, &epoch));
    CHECK_EQ(shc_self_epoch(&self), epoch);
    CHECK_EQ(self.id.pid, getpid());
}

static void
unrefreshed_child(void *arg)
{
    proc_join(proc_start(grandchild, arg));
    CHECK_EQ(shc_self_epoch(&self), 0);
}

TEST(a_grandchild_of_a_child_that_never_refreshed_is_told_apart_too)
{
    CHECK_OK(shc_self_init(&self));
    uint64_t epoch = shc_self_epoch(&self);
    proc_join(proc_start(unrefreshed_child, &epoch));
}
