/* SPDX-License-Identifier: Apache-2.0 */

/* Covers common/pace: nothing without long work, and a real sleep, which lets others run, now and then in it. */

#include "tests/test.h"

#include <sys/resource.h>

#include "common/clock.h"
#include "common/pace.h"

static long n_sleeps(void) {
        struct rusage usage;

        assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
        return usage.ru_nvcsw;
}

static void wait_us(uint64_t us) {
        uint64_t begun = clock_now();

        while (clock_now() - begun < us)
                ;
}

static void test_nothing_begun(void **state) {
        (void) state;
        wait_us(1000);
        assert_false(pace_keep());
        pace_begin();
        pace_end();
        wait_us(1000);
        assert_false(pace_keep());
}

static void keep(void) {
        for (int i = 0; i < 3; i++) {
                long before = n_sleeps();

                wait_us(1000);
                assert_true(pace_keep());
                assert_true(n_sleeps() > before);
        }
        pace_end();
}

static void test_rests(void **state) {
        long before;

        (void) state;
        pace_begin();
        keep();
        pace_begin_idly();
        keep();
        before = n_sleeps();
        pace_rest(); /* without any long work */
        assert_true(n_sleeps() > before);
}

static const struct CMUnitTest tests[] = {
        TEST(test_nothing_begun),
        TEST(test_rests),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
