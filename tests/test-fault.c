/* SPDX-License-Identifier: Apache-2.0 */

/* Fault points: what one may be called, and that it happens at its place, once, and is taken back. */

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/fault.h"
#include "tests/seam.h"
#include "tests/test.h"

static void test_words(void **state) {
        static const struct {
                const char *text;
                int result; /* as the predecessor */
        } words[] = {
                { "check:kill", 0 },
                { "start@predecessor:refuse", 0 },
                { "copy@successor:hang", 1 },
                { "freeze:emfile", 0 },
                { "resume@successor:kill", 1 },
                { "delta:sendmsg=ENOBUFS", 0 },
                { "delta@successor:recvmsg=ENOMEM,3", 1 },
                { "", -EINVAL },
                { "kill", -EINVAL },
                { ":kill", -EINVAL },
                { "copy:", -EINVAL },
                { "copy:die", -EINVAL },
                { "later:kill", -EINVAL },
                { "cop:kill", -EINVAL },
                { "copy@:kill", -EINVAL },
                { "copy@nobody:kill", -EINVAL },
                { "copy:kill@successor", -EINVAL },
                { "check@successor:kill", -EINVAL },
                { "freeze@successor:kill", -EINVAL },
                { "copy:sendmsg", -EINVAL },
                { "copy:sendmsg=", -EINVAL },
                { "copy:sendmsg=EWHAT", -EINVAL },
                { "copy:sendmsg=ENOMEM,", -EINVAL },
                { "copy:sendmsg=ENOMEM,0", -EINVAL },
                { "copy:fork=ENOMEM", -EINVAL },
                { "copy:=ENOMEM", -EINVAL },
        };
        char reason[FAULT_REASON_SIZE];

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
                *reason = '\0';
                if (fault_set(words[i].text, FAULT_PREDECESSOR, reason) != words[i].result)
                        fail_msg("%s", words[i].text);
                assert_int_equal(words[i].result < 0, *reason != '\0');
                fault_end();
        }
        assert_int_equal(fault_set("copy@successor:refuse", FAULT_SUCCESSOR, reason), 0);
        fault_end();
}

static void test_it_happens_once(void **state) {
        char reason[FAULT_REASON_SIZE];

        (void) state;
        assert_int_equal(fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_COPY), 0);
        assert_int_equal(fault_set("copy:refuse", FAULT_PREDECESSOR, reason), 0);
        assert_int_equal(fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_START), 0);
        assert_int_equal(fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_COPY), 0);
        assert_int_equal(fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_COPY), -ECANCELED);
        assert_int_equal(fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_COPY), 0);
        assert_int_equal(fault_set("copy:refuse", FAULT_PREDECESSOR, reason), 0);
        fault_end();
        assert_int_equal(fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_COPY), 0);
}

static void test_descriptors(void **state) {
        char reason[FAULT_REASON_SIZE];
        int fd;

        (void) state;
        assert_int_equal(fault_set("copy:emfile", FAULT_PREDECESSOR, reason), 0);
        fd = dup(0);
        assert_true(fd >= 0);
        fd_close(fd);
        (void) fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_COPY);
        assert_int_equal(dup(0), -1);
        assert_int_equal(errno, EMFILE);
        fault_end();
        fd = dup(0);
        assert_true(fd >= 0);
        fd_close(fd);
}

static void test_calls(void **state) {
        char reason[FAULT_REASON_SIZE];
        int pair[2];

        (void) state;
        assert_int_equal(fault_set("copy:socketpair=ENFILE,2", FAULT_PREDECESSOR, reason), 0);
        (void) fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_COPY);
        for (int i = 0; i < 3; i++) {
                int r = socketpair(AF_UNIX, SOCK_STREAM, 0, pair);

                assert_int_equal(r, i == 1 ? -1 : 0);
                if (r == 0)
                        fd_close_all(pair, 2);
        }
        fault_end();
}

static void test_kill(void **state) {
        char reason[FAULT_REASON_SIZE];
        int status;
        pid_t pid;

        (void) state;
        pid = fork();
        if (pid == 0) {
                (void) fault_set("delta:kill", FAULT_PREDECESSOR, reason);
                (void) fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_DELTA);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static const struct CMUnitTest tests[] = {
        TEST(test_words), TEST(test_it_happens_once), TEST(test_descriptors), TEST(test_calls), TEST(test_kill),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
