/* SPDX-License-Identifier: Apache-2.0 */

/* Addresses of sockets: what is one, what is none, and that each is written as it would be read. */

#include "supervisor/socket-address.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/macro.h"
#include "tests/test.h"

static void test_good(void **state) {
        static const struct {
                SocketType type;
                const char *text, *written;
        } cases[] = {
                { SOCKET_TCP, "127.0.0.1:80", "127.0.0.1:80" },
                { SOCKET_UDP, "[::1]:65535", "[::1]:65535" },
                { SOCKET_TCP, "80", "[::]:80" },
                { SOCKET_TCP, "*:80", "[::]:80" },
                { SOCKET_TCP, "0.0.0.0:1", "0.0.0.0:1" },
                { SOCKET_UDP, "[fe80::1]:53", "[fe80::1]:53" },
                { SOCKET_UNIX_STREAM, "/run/x", "/run/x" },
                { SOCKET_UNIX_DGRAM, "@x", "@x" },
                { SOCKET_UNIX_SEQPACKET, "/:80", "/:80" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                char text[SOCKET_ADDRESS_TEXT_SIZE];
                SocketAddress address;

                assert_int_equal(socket_address_parse(cases[i].type, cases[i].text, &address), 0);
                assert_string_equal(
                        socket_address_text((const struct sockaddr *) &address.storage, address.length, text),
                        cases[i].written);
                assert_int_equal(!socket_address_path(&address), *cases[i].written != '/');
        }
}

static void test_bad(void **state) {
        static const char *const inet[] = { "",         "x",           ":80",          "0",
                                            "65536",    "127.0.0.1",   "::1:80",       "[::1]",
                                            "[::1]80",  "1.2.3:x",     "[1.2.3.4]:80", "host:80",
                                            "[]:80",    "127.0.0.1:",  "80 ",          "-1",
                                            "[::g]:80", "1.2.3.4.5:80" };
        static const char *const local[] = { "", "/", "@", "x", "./x" };
        char text[120];
        SocketAddress address;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(inet); i++)
                assert_int_equal(socket_address_parse(SOCKET_TCP, inet[i], &address), -EINVAL);
        for (size_t i = 0; i < ARRAY_SIZE(local); i++)
                assert_int_equal(socket_address_parse(SOCKET_UNIX_STREAM, local[i], &address), -EINVAL);
        (void) memset(text, 'x', sizeof(text));
        text[0] = '/';
        text[108] = '\0';
        assert_int_equal(socket_address_parse(SOCKET_UNIX_STREAM, text, &address), -ENAMETOOLONG);
        text[107] = '\0';
        assert_int_equal(socket_address_parse(SOCKET_UNIX_STREAM, text, &address), 0);
        assert_string_equal(socket_address_path(&address), text);
}

static void test_types(void **state) {
        SocketType type;
        int fds[2];

        (void) state;
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
        assert_true(socket_type_of(fds[0], &type));
        assert_int_equal(type, SOCKET_UNIX_SEQPACKET);
        (void) close(fds[0]);
        (void) close(fds[1]);
        fds[0] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        assert_true(socket_type_of(fds[0], &type));
        assert_int_equal(type, SOCKET_UDP);
        (void) close(fds[0]);
        assert_int_equal(pipe(fds), 0);
        assert_false(socket_type_of(fds[0], &type));
        (void) close(fds[0]);
        (void) close(fds[1]);
}

static const struct CMUnitTest tests[] = {
        TEST(test_good),
        TEST(test_bad),
        TEST(test_types),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
