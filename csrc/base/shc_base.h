/* Compiler facts that every layer needs: the only file that spells attributes and builtins. */
#ifndef SHC_BASE_H
#define SHC_BASE_H

#include <stddef.h>
#include <stdint.h>

#define SHC_MUST_USE __attribute__((warn_unused_result))
#define SHC_COLD __attribute__((cold, noinline))
#define SHC_NOINLINE __attribute__((noinline))
#define SHC_ALWAYS_INLINE inline __attribute__((always_inline))
#define SHC_UNUSED __attribute__((unused))
#define SHC_LIKELY(x) __builtin_expect(!!(x), 1)
#define SHC_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define SHC_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Asks for a line that is about to be written, so that the store need not wait for it. The builtin is no help on x86:
 * without a flag for newer CPUs it asks for the line to be read. Where prefetchw is unknown it does nothing. */
#if defined(__x86_64__)
#define SHC_PREFETCH_WRITE(p) __asm__("prefetchw %0" : : "m"(*(const char *)(p)))
#else
#define SHC_PREFETCH_WRITE(p) __builtin_prefetch((p), 1, 3)
#endif

/* Instructions beyond the baseline: a function may use them after asking the CPU (x86) or because the build promised
 * them (arm64). */
#if defined(__x86_64__)
#define SHC_CRC32C_X86 1
#define SHC_TARGET(isa) __attribute__((target(isa)))
#define SHC_CPU_HAS(isa) __builtin_cpu_supports(isa)
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#define SHC_CRC32C_ARM 1
#endif

#if defined(__SANITIZE_THREAD__)
#define SHC_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHC_TSAN 1
#endif
#endif
#ifndef SHC_TSAN
#define SHC_TSAN 0
#endif

/* A number that is this living thread's alone in its process. */
static SHC_ALWAYS_INLINE uintptr_t
shc_thread_pointer(void)
{
#if defined(__x86_64__)
    uintptr_t number;
    __asm__("mov %%fs:0, %0" : "=r"(number));
    return number;
#else
    return (uintptr_t)__builtin_thread_pointer();
#endif
}

/* A word that one process stores and another polls sits alone on SHC_HOT_PAD bytes: two 64-byte lines, because x86
 * prefetches lines in pairs and some arm64 parts have 128-byte lines. */
#define SHC_CACHE_LINE 64
#define SHC_HOT_PAD 128

/* Asserts state OUR bugs, never what another process wrote (that is a status). Levels: 0 release, 1 cheap, 2 checks
 * after every mutation. A failing assert traps: the core neither prints nor exits. */
#ifndef SHC_ASSERT_LEVEL
#define SHC_ASSERT_LEVEL 0
#endif
#if SHC_ASSERT_LEVEL >= 1
#define SHC_ASSERT(cond) ((cond) ? (void)0 : __builtin_trap())
#else
#define SHC_ASSERT(cond) ((void)0)
#endif
#if SHC_ASSERT_LEVEL >= 2
#define SHC_ASSERT_FULL(cond) SHC_ASSERT(cond)
#else
#define SHC_ASSERT_FULL(cond) ((void)0)
#endif

#endif
