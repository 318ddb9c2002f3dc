/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The chronicle: what one supervisor writes, the next one knows, wherever the first was killed; a memory that is full is
 * replaced by one that has what is still worth knowing; and one into which anything was written breaks nothing.
 */

#include "supervisor/chronicle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cmsg.h"
#include "common/fd.h"
#include "common/keeper-message.h"
#include "common/memfd.h"
#include "supervisor/config-save.h"
#include "supervisor/runner-internal.h"
#include "supervisor/upgrade-history.h"
#include "tests/seam.h"
#include "tests/snapshot-fixture.h"
#include "tests/test.h"

static void open_fixture(SupervisorFixture *f) {
        snapshot_fixture_open(f);
        f->supervisor->followed = true;
}

static Runner *find(const SupervisorFixture *f, const char *name) {
        Runner *runner = runner_find(f->supervisor, name);

        assert_non_null(runner);
        return runner;
}

/* keep() - what the keeper would have: the last memory that it was given; -1: none. */
static int keep(SupervisorFixture *f, unsigned *ret_n) {
        int memory = -1, fds[KEEPER_FDS_MAX];
        KeeperMessage message;
        CmsgInfo info;

        *ret_n = 0;
        while (cmsg_receive(f->keeper, &message, sizeof(message), fds, KEEPER_FDS_MAX, &info) > 0) {
                bool ours = message.type == KEEPER_PUT && message.fd_kind == KEEPER_FD_HISTORY &&
                            message.fd_tag == KEEPER_HISTORY_RUNNERS && info.n_fds == 1;

                if (ours) {
                        fd_close(memory);
                        memory = fds[0];
                        *ret_n += 1;
                } else {
                        fd_close_all(fds, info.n_fds);
                }
        }
        return memory;
}

/* follow() - the next supervisor, up to where it recovers runners. @fd_consume: of the memory. */
static void follow(SupervisorFixture *f, int fd_consume) {
        open_fixture(f);
        chronicle_stored(f->supervisor->chronicle, fd_consume);
        chronicle_read(f->supervisor->chronicle);
        for (Runner *runner = runner_first(f->supervisor); runner; runner = runner_next(runner)) {
                chronicle_configure(runner, 0);
                chronicle_restore(runner);
        }
}

static void end(Runner *runner, uint64_t instance) {
        const RunnerExit exit = {
                .instance = instance,
                .ended_us = 1000 + instance,
                .pid = (int) instance,
                .cause = RUNNER_CAUSE_ITSELF,
                .exit = { EXIT_EXITED, (int) instance % 100 },
        };

        runner_note_exit(runner, &exit);
        chronicle_exit(runner, &exit);
}

static void upgrade(Runner *runner, uint64_t from, const char *why) {
        UpgradeRecord record = {
                .begun_us = 5,
                .from = from,
                .to = from + 1,
                .phase = why ? UPGRADE_CROSSING : UPGRADE_OVER,
                .why = why ? strdup(why) : NULL,
        };

        record.phase_us[UPGRADE_CROSSING] = 7;
        upgrade_history_add(&runner->upgrades, &record);
        chronicle_upgrade(runner);
}

/* use() - as after an upgrade to another program. */
static void use(Runner *runner, const char *program) {
        RunnerConfig *config;

        assert_int_equal(runner_config_with_program(runner->config, program, &config), 0);
        runner_config_unref(runner->config);
        runner->config = config;
        chronicle_program(runner);
}

static void test_what_was_is_known(void **state) {
        SupervisorFixture f, g;
        Runner *runner;
        unsigned n;
        int memory;

        (void) state;
        open_fixture(&f);
        end(find(&f, "slow"), 1); /* nothing is written before that may be */
        runner_forget_exits(find(&f, "slow"));
        chronicle_begin(f.supervisor->chronicle);
        memory = keep(&f, &n);
        assert_int_equal(memory, -1); /* and no memory is made before there is something to write */
        for (uint64_t i = 1; i <= RUNNER_EXITS_MAX + 5; i++)
                end(find(&f, "failed"), i);
        end(find(&f, "web.2"), 77);
        upgrade(find(&f, "native"), 3, NULL);
        upgrade(find(&f, "native"), 4, "it would not");
        use(find(&f, "web.2"), "/another");
        use(find(&f, "web.3"), "/another");
        use(find(&f, "web.3"), "/x"); /* as a reload would */
        runner = find(&f, "backs");
        runner->state = POLICY_BACKOFF;
        runner->unmet = UNMET_GROUP;
        runner_set_why(runner, "exited with status 3");
        chronicle_why(runner);
        memory = keep(&f, &n);
        assert_true(memory >= 0 && n == 1);
        supervisor_fixture_close(&f);

        follow(&g, memory);
        runner = find(&g, "failed");
        assert_int_equal(runner->n_exits, RUNNER_EXITS_MAX);
        for (unsigned i = 0; i < RUNNER_EXITS_MAX; i++)
                assert_int_equal(runner_exit(runner, i)->instance, RUNNER_EXITS_MAX + 5 - i);
        assert_int_equal(runner_exit(runner, 0)->ended_us, 1000 + RUNNER_EXITS_MAX + 5);
        assert_int_equal(runner_exit(runner, 0)->exit.status, RUNNER_EXITS_MAX + 5);
        end(runner, RUNNER_EXITS_MAX + 5); /* the keeper tells of it once more */
        assert_int_equal(runner_exit(runner, 1)->instance, RUNNER_EXITS_MAX + 4);
        assert_int_equal(find(&g, "slow")->n_exits, 0);
        runner = find(&g, "web.2");
        assert_int_equal(runner->n_exits, 1);
        assert_string_equal(runner->config->command[0], "/another");
        assert_string_equal(runner->config->command[1], "a");
        assert_string_equal(find(&g, "web.1")->config->command[0], "/x");
        assert_string_equal(find(&g, "web.3")->config->command[0], "/x");
        runner = find(&g, "native");
        assert_true(runner->upgrades->n == 2 && runner->upgrades->n_done == 1 && runner->upgrades->n_failed == 1);
        assert_int_equal(runner->upgrades->records[0].from, 3);
        assert_int_equal(runner->upgrades->records[0].phase_us[UPGRADE_CROSSING], 7);
        assert_null(runner->upgrades->records[0].why);
        assert_int_equal(runner->upgrades->records[1].phase, UPGRADE_CROSSING);
        assert_string_equal(runner->upgrades->records[1].why, "it would not");
        runner = find(&g, "backs");
        assert_true(chronicle_restore_why(runner));
        assert_string_equal(runner->why, "exited with status 3");
        assert_int_equal(runner->unmet, UNMET_GROUP);
        assert_false(chronicle_restore_why(find(&g, "native")));

        /* It writes on, in a memory of its own, which begins with all of that. */
        chronicle_begin(g.supervisor->chronicle);
        end(find(&g, "slow"), 200);
        memory = keep(&g, &n);
        assert_int_equal(n, 1);
        supervisor_fixture_close(&g);
        follow(&f, memory);
        assert_int_equal(find(&f, "slow")->n_exits, 1);
        assert_int_equal(find(&f, "failed")->n_exits, RUNNER_EXITS_MAX);
        assert_int_equal(find(&f, "native")->upgrades->n, 2);
        assert_string_equal(find(&f, "web.2")->config->command[0], "/another");
        supervisor_fixture_close(&f);
}

/* committing() - the memory of a supervisor that makes instance 9, of another program, the active one; and is told no. */
static int committing(bool fails) {
        SupervisorFixture f;
        RunnerConfig *config;
        Runner *runner;
        unsigned n;
        int memory;

        open_fixture(&f);
        chronicle_begin(f.supervisor->chronicle);
        runner = find(&f, "native");
        use(runner, "/second");
        assert_int_equal(runner_config_with_program(runner->config, "/third", &config), 0);
        chronicle_program_of(runner, config, 9);
        runner_config_unref(config);
        if (fails)
                chronicle_program(runner);
        memory = keep(&f, &n);
        supervisor_fixture_close(&f);
        return memory;
}

/* The program of a successor counts if that is the one that serves, which only the keeper's word on it decides. */
static void test_in_the_middle_of_an_upgrade(void **state) {
        SupervisorFixture g;
        Runner *runner;

        (void) state;
        follow(&g, committing(false));
        runner = find(&g, "native");
        assert_string_equal(runner->config->command[0], "/second");
        chronicle_configure(runner, 8);
        assert_string_equal(runner->config->command[0], "/second");
        chronicle_configure(runner, 9);
        assert_string_equal(runner->config->command[0], "/third");
        supervisor_fixture_close(&g);

        follow(&g, committing(true));
        chronicle_configure(find(&g, "native"), 9);
        assert_string_equal(find(&g, "native")->config->command[0], "/second");
        supervisor_fixture_close(&g);
}

static Runner *make_transient(SupervisorFixture *f, const char *name) {
        RunnerConfig draft = RUNNER_CONFIG_NULL, *config;
        const char *const command[] = { "/made", "by", "hand", NULL };
        Runner *runner;

        draft.name = (char *) name;
        draft.command = command;
        draft.stop_timeout_us = 12345;
        assert_int_equal(runner_config_new(&config, &draft), 0);
        assert_int_equal(runner_new(&runner, f->supervisor, config, 0), 0);
        runner_config_unref(config);
        runner->transient = true;
        return runner;
}

static void test_of_clients(void **state) {
        SupervisorFixture f, g;
        RunnerConfig *config;
        unsigned n;
        int memory;

        (void) state;
        open_fixture(&f);
        chronicle_begin(f.supervisor->chronicle);
        chronicle_made(make_transient(&f, "made.1"));
        chronicle_made(make_transient(&f, "made.2"));
        end(find(&f, "slow"), 1);
        runner_forget(find(&f, "made.1"));
        runner_forget(find(&f, "slow"));
        memory = keep(&f, &n);
        supervisor_fixture_close(&f);
        follow(&g, memory);
        assert_null(chronicle_configuration(g.supervisor->chronicle, "made.1"));
        assert_null(chronicle_configuration(g.supervisor->chronicle, "native"));
        config = chronicle_configuration(g.supervisor->chronicle, "made.2");
        assert_non_null(config);
        assert_string_equal(config->command[2], "hand");
        assert_int_equal(config->stop_timeout_us, 12345);
        runner_config_unref(config);
        assert_int_equal(find(&g, "slow")->n_exits, 0); /* another one of that name */
        supervisor_fixture_close(&g);
}

static void test_it_does_not_grow_for_ever(void **state) {
        SupervisorFixture f, g;
        struct stat st;
        unsigned n;
        int memory;

        (void) state;
        open_fixture(&f);
        chronicle_begin(f.supervisor->chronicle);
        upgrade(find(&f, "native"), 3, "once");
        for (uint64_t i = 1; i <= 20000; i++)
                end(find(&f, i % 2 ? "failed" : "web.1"), i);
        memory = keep(&f, &n);
        assert_true(n > 5);
        assert_int_equal(fstat(memory, &st), 0);
        assert_int_equal(st.st_size, 64 * 1024);
        supervisor_fixture_close(&f);
        follow(&g, memory);
        assert_int_equal(find(&g, "failed")->n_exits, RUNNER_EXITS_MAX);
        assert_int_equal(runner_exit(find(&g, "web.1"), 0)->instance, 20000);
        assert_int_equal(find(&g, "native")->upgrades->n, 1);
        supervisor_fixture_close(&g);
}

/* damaged() - the memory of a supervisor, with @at changed to @value. */
static int damaged(const uint8_t *image, size_t size, size_t at, uint8_t value) {
        void *memory;
        int fd;

        assert_int_equal(memfd_shared("test", size, 0, &fd, &memory), 0);
        memcpy(memory, image, size);
        ((uint8_t *) memory)[at] = value;
        assert_int_equal(munmap(memory, size), 0);
        return fd;
}

static void test_damaged(void **state) {
        SupervisorFixture f, g;
        struct stat st;
        unsigned n;
        uint8_t *image;
        uint64_t head;
        int memory;

        (void) state;
        open_fixture(&f);
        chronicle_begin(f.supervisor->chronicle);
        end(find(&f, "failed"), 1);
        upgrade(find(&f, "native"), 3, "why");
        use(find(&f, "web.2"), "/another");
        chronicle_made(make_transient(&f, "made"));
        memory = keep(&f, &n);
        supervisor_fixture_close(&f);
        assert_int_equal(fstat(memory, &st), 0);
        image = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_SHARED, memory, 0);
        assert_true(image != MAP_FAILED);
        memcpy(&head, image + 16, sizeof(head));
        assert_true(head > 64 && head < 2048);
        open_fixture(&g);
        for (size_t at = 0; at < 64 + head; at++)
                for (unsigned bit = 0; bit < 8; bit += 7) {
                        Chronicle *chronicle;

                        assert_int_equal(chronicle_new(&chronicle, g.supervisor), 0);
                        chronicle_stored(chronicle,
                                         damaged(image, (size_t) st.st_size, at, image[at] ^ (uint8_t) (1u << bit)));
                        chronicle_read(chronicle);
                        chronicle_free(chronicle);
                }
        supervisor_fixture_close(&g);
        follow(&g, open("/dev/null", O_RDWR | O_CLOEXEC));
        chronicle_begin(g.supervisor->chronicle);
        end(find(&g, "failed"), 1);
        supervisor_fixture_close(&g);
        assert_int_equal(munmap(image, (size_t) st.st_size), 0);
        fd_close(memory);
}

static int without_memory(void *argument) {
        SupervisorFixture *f = argument;
        unsigned n;

        for (uint64_t i = 0; i < 3000; i++) /* more than one memory */
                end(find(f, "failed"), i);
        fd_close(keep(f, &n));
        return 0;
}

/* Where there is none, all goes on, and what comes after is known to who follows. */
static void test_no_memory(void **state) {
        static const SeamCall calls[] = { SEAM_MEMFD_CREATE, SEAM_FTRUNCATE, SEAM_MMAP };
        SupervisorFixture f, g;
        unsigned n;
        int memory;

        (void) state;
        open_fixture(&f);
        chronicle_begin(f.supervisor->chronicle);
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                assert_true(seam_each_tolerated(calls[i], ENOMEM, without_memory, &f) > 0);
        seam_fail_always(SEAM_REALLOC, ENOMEM);
        end(find(&f, "web.1"), 4);
        seam_pass(SEAM_REALLOC);
        for (uint64_t i = 0; i < 3000; i++)
                end(find(&f, "failed"), i);
        memory = keep(&f, &n);
        supervisor_fixture_close(&f);
        follow(&g, memory);
        assert_int_equal(runner_exit(find(&g, "failed"), 0)->instance, 2999);
        assert_int_equal(runner_exit(find(&g, "web.1"), 0)->instance, 4);
        supervisor_fixture_close(&g);
}

static const struct CMUnitTest tests[] = {
        TEST(test_what_was_is_known), TEST(test_in_the_middle_of_an_upgrade),
        TEST(test_of_clients),        TEST(test_it_does_not_grow_for_ever),
        TEST(test_damaged),           TEST(test_no_memory),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
