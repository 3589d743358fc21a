/* The table of result codes, shc_status.def. */
#include "base/shc_status.h"

#include <string.h>

#include "t.h"

typedef struct row {
    const char *name;
    int value;
    const char *exception;
    const char *sentence;
} row_t;

static const row_t rows[] = {
#define SHC_STATUS(name, value, exception, sentence) {#name, (value), #exception, (sentence)},
#include "base/shc_status.def"
#undef SHC_STATUS
};

TEST(every_code_has_its_sentence)
{
    for (size_t i = 0; i < SHC_ARRAY_SIZE(rows); i++)
        CHECK_STR(shc_status_sentence(rows[i].value), rows[i].sentence);
}

TEST(unknown_codes_and_errno_have_no_sentence)
{
    CHECK_STR(shc_status_sentence(-1), NULL);
    CHECK_STR(shc_status_sentence(-4095), NULL);
    CHECK_STR(shc_status_sentence(1000000), NULL);
    CHECK_STR(shc_status_sentence(INT32_MIN), NULL);
}

TEST(names_tell_outcomes_from_failures)
{
    for (size_t i = 0; i < SHC_ARRAY_SIZE(rows); i++) {
        bool failure = strncmp(rows[i].name, "SHC_E_", 6) == 0;
        if (failure)
            CHECK_LT(rows[i].value, -10000);
        else
            CHECK_GE(rows[i].value, 0);
    }
}

TEST(a_failure_always_names_its_exception)
{
    for (size_t i = 0; i < SHC_ARRAY_SIZE(rows); i++)
        if (rows[i].value < 0)
            CHECK(strcmp(rows[i].exception, "None") != 0);
}

TEST(sentences_start_small_and_have_no_full_stop)
{
    for (size_t i = 0; i < SHC_ARRAY_SIZE(rows); i++) {
        const char *s = rows[i].sentence;
        CHECK(s[0] >= 'a' && s[0] <= 'z');
        CHECK_NE(s[strlen(s) - 1], '.');
    }
}
