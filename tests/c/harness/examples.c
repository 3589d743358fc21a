/* Tests that fail, each in one way: tests/test_c.py runs them to see that the harness notices. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "t.h"

TEST(passes)
{
    CHECK(1 + 1 == 2);
    CHECK_EQ(2, 2u);
    CHECK_NE(-1, UINT64_MAX); /* by value, not by bits */
    CHECK_LT(-1, 0u);
    CHECK_LE(INT64_MIN, -1);
    CHECK_GT(UINT64_MAX, INT64_MAX);
    CHECK_STR("a", "a");
    CHECK_MEM("abc", "abd", 2);
    CHECK_OK(0);
}

TEST(check_fails)
{
    CHECK(1 + 1 == 3);
}

TEST(compares_numbers)
{
    int small = -1;
    CHECK_EQ(small, UINT64_MAX);
}

TEST(compares_text)
{
    CHECK_STR("left", "right");
}

TEST(compares_memory)
{
    CHECK_MEM("abc", "abd", 3);
}

TEST(status_is_not_ok)
{
    CHECK_OK(-10001);
}

TEST(skips)
{
    T_SKIP("there is no reason");
}

TEST(crashes)
{
    raise(SIGSEGV);
}

TEST_LIMIT(hangs, 1)
{
    for (;;)
        pause();
}

TEST_LIMIT(leaves_a_file_and_hangs, 1)
{
    char path[200];
    snprintf(path, sizeof path, "%s/forgotten", t_dir());
    CHECK_EQ(close(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600)), 0);
    printf("%s\n", t_dir());
    fflush(stdout);
    for (;;)
        pause();
}

TEST(leaves_a_descriptor)
{
    CHECK_GE(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
}

static void *
sleep_for_ever(void *arg)
{
    for (;;)
        pause();
    return arg;
}

TEST(leaves_a_thread)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, sleep_for_ever, NULL), 0);
}

TEST(leaves_a_process)
{
    if (fork() == 0)
        sleep_for_ever(NULL);
}

TEST(leaves_a_file)
{
    char path[200];
    snprintf(path, sizeof path, "%s/forgotten", t_dir());
    CHECK_EQ(close(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600)), 0);
}

TEST(child_fails)
{
    int pid = fork();
    if (pid == 0)
        CHECK(!"the child is not content");
    CHECK_EQ(t_wait(pid), 0);
}
