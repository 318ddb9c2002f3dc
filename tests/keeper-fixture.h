#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The whole keeper, run in a child of the test, with the test program as its supervisor. The keeper starts it under the
 * name baton-supervisor (a symbolic link in a folder that BATON_LIBEXEC names), $TEST_SCENARIO says what it then does; a
 * scenario that finds something wrong says so and ends the tree with a status that the test does not expect. The test is a
 * subreaper: what a keeper leaves behind becomes its child and fails it.
 */

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/keeper-message.h"
#include "supervisor/keeper/keeper.h"
#include "supervisor/spawn.h"
#include "tests/seam.h"
#include "tests/test.h"

/* One life of a supervisor: what it returns is its exit status. */
typedef struct Scenario {
        const char *name;
        int (*run)(void);
} Scenario;

#define SCENARIO(_name) \
        { #_name, scenario_##_name }

typedef struct KeeperTest {
        const Scenario *scenarios;
        size_t n_scenarios;
        const struct CMUnitTest *tests;
        size_t n_tests;
} KeeperTest;

/* keeper_test_main() - main() of such a test, in both of its roles. */
int keeper_test_main(int argc, char **argv, const KeeperTest *test);

/* ----------------------------------------------------------------------------------------------- in the supervisor */

#define CHECK(_condition)                                                                                  \
        do {                                                                                               \
                if (!(_condition)) {                                                                       \
                        fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #_condition, errno); \
                        return 99;                                                                         \
                }                                                                                          \
        } while (0)

/* tell() - one message, as it is; version 0 stands for ours. 0 or -1. */
int tell(KeeperMessage message, const int *fds, size_t n_fds);
int tell_about(KeeperType type, uint64_t instance);

/* ask() - what the keeper answered; 1: something else came. EXITs that come meanwhile are kept for wait_exit(). */
int ask(KeeperMessage message, const int *fds, size_t n_fds);
int ask_reserve(uint64_t instance, const char *name, uint32_t flags);
int ask_put(uint64_t instance, unsigned kind, uint64_t tag, int fd);
int ask_drop(uint64_t instance, unsigned kind, uint64_t tag);
int ask_signal(uint64_t instance, int number);

/*
 * The table as the keeper has told it, read up to its end the first time one of these is asked. slot_told(), fd_told() -
 * what is there of @instance, or NULL, or -1 (the descriptor stays the fixture's).
 */
const KeeperMessage *slot_told(uint64_t instance);
int fd_told(uint64_t instance, unsigned kind, uint64_t tag);
size_t slots_told(void);
size_t fds_told(void);
/* most_told() - messages that came as one. */
size_t most_told(void);
/* slot_pidfd() - the descriptor that came with the slot, or -1. */
int slot_pidfd(uint64_t instance);

/* generation() - which supervisor of its keeper this is. */
uint32_t generation(void);

/* is_successor() - it was started with a predecessor; successor_fd() - its end of the pair between them, or -1. */
bool is_successor(void);
int successor_fd(void);

/*
 * wait_word() - until a message of @type comes that is none of the above: RELOAD, PING. 0 or -1. A PING is answered, unless
 * it is awaited.
 */
int wait_word(KeeperType type);
/* wait_any_word() - the same, of any type; KEEPER_NONE: the keeper is gone. */
KeeperType wait_any_word(void);
/* word_text() - what came with the last one. */
const char *word_text(void);

/* wait_exit() - how many reports of @instance came, at least one; the last in @ret_exit. */
int wait_exit(uint64_t instance, KeeperMessage *ret_exit);
/* exits_received() - how many reports of exits came altogether. */
size_t exits_received(void);

/* try_runner() - @script in a shell as @instance, standard output to @out. What spawn() said. */
int try_runner(uint64_t instance, const char *script, int out, SpawnResult *ret_result);
/* run_runner() - the same, and STARTED; start_runner() - RESERVE before it, too. 0, or what fails the scenario. */
int run_runner(uint64_t instance, const char *script, int out, SpawnResult *ret_result);
int start_runner(uint64_t instance, const char *name, uint32_t flags, const char *script, int out);
/* run_refused() - such a child is killed, be it before or after it executed anything. */
int run_refused(uint64_t instance);

/* pipe_ended() - waits until nobody holds the other end of a pipe; pipe_held() - somebody does. */
bool pipe_ended(int fd);
bool pipe_held(int fd);

/*
 * keeper_fails() - from here on a call of the keeper's fails, as the play has it, until keeper_passes(), which has it logged
 * whether that call was made (FAULT_MET).
 */
void keeper_fails(void);
void keeper_passes(void);
#define FAULT_MET "a call of the keeper has failed"

/* say_byte() - to the test, over the private lane: 'H' makes it hang up. */
int say_byte(char byte);

/* shut_down() - asks the keeper to end the tree with @status; it then kills us. */
int shut_down(int status);

/* ----------------------------------------------------------------------------------------------------- in the test */

typedef struct Outcome {
        int status; /* the keeper's */
        char log[8192];
} Outcome;

typedef struct Play {
        int lane, log; /* set by perform() */
        uint64_t stop_timeout_us;
        rlim_t nofile;
        /* What keeper_fails() makes fail: the nth call from then on. 0: nothing. */
        SeamCall fault;
        int error;
        unsigned nth;
        const char *program; /* baton-keeper as it was built; NULL: what is linked into this test */

        /* A daemon instead of a private tree, in keeper_runtime. */
        bool daemon;
        const char *socket;       /* NULL: `control' there */
        uint64_t hang_timeout_us; /* multiplied with the time factor; 0: the keeper's own */
        LadderPolicy ladder;

        /* Once this is in the log, `then' is called with the pid of the keeper; NULL: never. */
        const char *await;
        void (*then)(pid_t keeper);
} Play;

/* The folder that $BATON_LIBEXEC names in tests, and baton-keeper as it was built. */
extern char keeper_libexec[64], keeper_built[4096];
/* Where daemons run. */
extern char keeper_runtime[80];

/* perform() - a whole life of a keeper. Nothing of it may be left. */
Outcome perform(const char *scenario, Play play);

/* expect_five() - for scenarios that end by SHUTDOWN with 5, having found nothing wrong. */
void expect_five(const char *scenario);

/* skip_unless_built() - skips the test when there is no keeper_built. */
void skip_unless_built(void);

#define TEST_DAEMON(_name)                                                                             \
        static void test_##_name(void **state) {                                                       \
                Outcome outcome = perform(#_name, (Play){ .daemon = true, .ladder = ALWAYS_HEALTHY }); \
                                                                                                       \
                (void) state;                                                                          \
                if (outcome.status != 5)                                                               \
                        fail_msg("%s: status %d: %s", #_name, outcome.status, outcome.log);            \
        }                                                                                              \
        struct baton_semicolon

/* Every death of a supervisor is the first in a row. */
#define ALWAYS_HEALTHY ((LadderPolicy){ .healthy_us = 1, .delay_us = 1000 })

#define TEST_FIVE(_name)                         \
        static void test_##_name(void **state) { \
                (void) state;                    \
                expect_five(#_name);             \
        }                                        \
        struct baton_semicolon

#define assert_log(_outcome, _text)                                                                                \
        do {                                                                                                       \
                if (!strstr((_outcome).log, (_text)))                                                              \
                        fail_msg("status %d, the log lacks `%s': %s", (_outcome).status, (_text), (_outcome).log); \
        } while (0)
