/* SPDX-License-Identifier: Apache-2.0 */

/* Roles, as a table of users and groups; those of a real connection; near names, as a table. */

#include "supervisor/role.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/near.h"
#include "tests/test.h"

static void test_roles(void **state) {
        const RolePolicy none = { .owner = 500 }, all = { .owner = 500, true, 27, ROLE_READ };
        const gid_t groups[] = { 4, 27, 99 };

        (void) state;
        assert_int_equal(role_of(&none, 0, 0, NULL, 0), ROLE_ADMIN);
        assert_int_equal(role_of(&none, 500, 27, NULL, 0), ROLE_ADMIN);
        assert_int_equal(role_of(&none, 501, 27, groups, 3), ROLE_NOTHING);
        assert_int_equal(role_of(&none, 501, 0, NULL, 0), ROLE_NOTHING); /* no group is not group 0 */
        assert_int_equal(role_of(&all, 501, 27, NULL, 0), ROLE_OPERATE);
        assert_int_equal(role_of(&all, 501, 1, groups, 3), ROLE_OPERATE);
        assert_int_equal(role_of(&all, 501, 1, groups, 1), ROLE_READ);
        assert_int_equal(role_of(&all, (uid_t) -2, (gid_t) -2, NULL, 0), ROLE_READ);
        assert_string_equal(role_name(ROLE_OPERATE), "operate");
        assert_string_equal(role_name(_ROLE_N), "nothing");
}

static void test_of_a_socket(void **state) {
        RolePolicy policy = { .owner = geteuid() };
        struct ucred who;
        int pair[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        assert_int_equal(role_of_socket(&policy, pair[0], &who), ROLE_ADMIN);
        assert_int_equal(who.uid, geteuid());
        assert_int_equal(who.pid, getpid());
        assert_int_equal(role_of_socket(&policy, STDERR_FILENO, &who), ROLE_NOTHING);
        fd_close_all(pair, 2);
}

static const char *near(const char *wanted, const char *const *names, char text[NEAR_TEXT_SIZE]) {
        Near all = { .wanted = wanted };

        for (size_t i = 0; names[i]; i++)
                near_offer(&all, names[i]);
        return near_text(&all, text);
}

static void test_near_names(void **state) {
        static const char *const names[] = { "web.1", "web.2", "web.3", "web.10", "postgres", "db", "mailer", NULL };
        static const struct {
                const char *wanted, *text;
        } rows[] = {
                { "postgers", "; did you mean postgres?" },
                { "postgre", "; did you mean postgres?" },
                { "post", "; did you mean postgres?" },
                { "Mailer", "; did you mean mailer?" },
                { "web", "; did you mean web.1, web.2 or web.3?" },
                { "web.11", "; did you mean web.1 or web.10?" },
                { "bd", "; did you mean db?" },
                { "xy", "" },
                { "mayl", "" },
                { "", "" },
                { "something.else", "" },
        };
        char text[NEAR_TEXT_SIZE], huge[300];

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                assert_string_equal(near(rows[i].wanted, names, text), rows[i].text);
        memset(huge, 'x', sizeof(huge) - 1);
        huge[sizeof(huge) - 1] = '\0';
        assert_string_equal(near(huge, names, text), "");
}

static const struct CMUnitTest tests[] = { TEST(test_roles), TEST(test_of_a_socket), TEST(test_near_names) };

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
