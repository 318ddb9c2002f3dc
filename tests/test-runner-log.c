/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Log records of a runner: batches, bounds and what is said of the dropped, text that is no UTF-8, and that none is lost
 * or sent under another number when the supervisor dies before it has acknowledged.
 */

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "tests/runner-fixture.h"
#include "tests/seam.h"

static bool has_ended(void *argument) {
        return ((Fixture *) argument)->r != 0;
}

static size_t wanted_records;

static bool has_records(void *argument) {
        return ((Fixture *) argument)->n_records >= wanted_records;
}

static void await_records(Fixture *f, size_t n) {
        wanted_records = n;
        fixture_until(f, has_records, f);
        assert_int_equal(f->n_records, n);
}

static void release_log(Fixture *f) {
        f->hold_log = false;
        for (size_t i = 0; i < f->n_held; i++)
                (void) call_answer(f->held[i], &(AnswerParameters){ .status = STATUS_OK });
        f->n_held = 0;
}

static void test_log(void **state) {
        static char text[9000];
        Fixture f;

        (void) state;
        fixture_open(&f);
        for (int i = 0; i < 10; i++)
                BATON_LOG(f.runner, BATON_INFO, "part", "record %d", i);
        await_records(&f, 10);
        /* One turn, one call. */
        assert_int_equal(f.n_log_calls, 1);
        for (unsigned i = 0; i < 10; i++) {
                assert_int_equal(f.records[i].seq, i + 1);
                assert_int_equal(f.records[i].level, BATON_INFO);
                assert_true(f.records[i].line > 0);
                assert_string_equal(f.records[i].target, "part");
                assert_non_null(strstr(f.records[i].file, "test-runner-log.c"));
        }
        assert_string_equal(f.records[9].text, "record 9");

        /* Cut between two characters; what is no UTF-8 is replaced; out of range, missing. */
        memset(text, 'x', sizeof(text) - 1);
        memcpy(text + 8191, "\xc3\xa4", 2);
        baton_log(f.runner, (enum baton_level) 99, NULL, NULL, 0, "%s", text);
        baton_log(f.runner, BATON_ERROR, "\xff", "", 0, "a\xe2\x82z\xc3\xa4");
        await_records(&f, 12);
        assert_int_equal(f.records[10].length, 8191);
        assert_int_equal(f.records[10].level, 7);
        assert_string_equal(f.records[10].target, "");
        assert_string_equal(f.records[11].text, "a??z\xc3\xa4");
        assert_string_equal(f.records[11].target, "?");
        fixture_close(&f);
}

static void test_log_bounds(void **state) {
        struct baton_runner_options options = { .size = sizeof(options), .max_log_records = 300 };
        Fixture f;

        (void) state;
        fixture_open_with(&f, &options);
        f.hold_log = true;
        for (int i = 1; i <= 307; i++)
                baton_log(f.runner, BATON_INFO, "", "", 0, "record %d", i);
        /* Four calls of 64 are open, the rest waits. */
        await_records(&f, 256);
        assert_int_equal(f.n_held, 4);
        fixture_ask(&f, "baton.Runner/Ping", NULL, &(Result){ 0 });
        assert_int_equal(f.n_log_calls, 4);
        release_log(&f);
        await_records(&f, 301);
        assert_string_equal(f.records[300].text, "7 log records dropped");
        assert_string_equal(f.records[300].target, "baton");
        assert_int_equal(f.records[300].level, BATON_WARNING);
        for (unsigned i = 0; i < 301; i++)
                assert_int_equal(f.records[i].seq, i + 1);
        baton_log(f.runner, BATON_INFO, "", "", 0, "after");
        await_records(&f, 302);
        fixture_close(&f);
}

/* log_records() - in one turn, so that they go in one call, or in several that each carry 64. */
static void log_records(Fixture *f, unsigned first, unsigned last) {
        for (unsigned i = first; i <= last; i++)
                baton_log(f->runner, BATON_INFO, "", "", 0, "record %u", i);
        await_records(f, last);
}

static void test_log_renewal(void **state) {
        Fixture f;
        size_t n;

        (void) state;
        fixture_open(&f);
        f.hold_log = true;
        log_records(&f, 1, 10);
        log_records(&f, 11, 30);
        log_records(&f, 31, 100);
        assert_int_equal(f.n_held, 4);
        /* The second call is acknowledged before the supervisor dies, if by a refusal. */
        (void) call_fail(f.held[1], STATUS_RESOURCE_EXHAUSTED, "disk full");
        fixture_ask(&f, "baton.Runner/Ping", NULL, &(Result){ 0 });
        assert_int_equal(peer_renew(f.peer, 1), 0);
        f.held[1] = f.held[3];
        f.n_held = 3;
        release_log(&f);
        n = f.n_records;
        await_records(&f, n + 80);
        for (unsigned i = 0; i < 80; i++) {
                char text[32];

                (void) snprintf(text, sizeof(text), "record %u", i < 10 ? i + 1 : i + 21);
                assert_int_equal(f.records[n + i].seq, i < 10 ? i + 1 : i + 21);
                assert_string_equal(f.records[n + i].text, text);
        }
        fixture_ask(&f, "baton.Runner/Ping", NULL, &(Result){ 0 });
        assert_int_equal(f.n_records, n + 80);
        fixture_close(&f);
}

/* What was logged last is the most wanted: quitting waits until it has arrived. */
static void test_log_at_quit(void **state) {
        Fixture f;

        (void) state;
        fixture_open(&f);
        f.hold_log = true;
        baton_log(f.runner, BATON_ERROR, "", "", 0, "the reason");
        baton_runner_quit(f.runner);
        await_records(&f, 1);
        assert_int_equal(f.r, 0);
        release_log(&f);
        fixture_until(&f, has_ended, &f);
        assert_int_equal(f.r, 1);
        fixture_close(&f);
}

/* Nothing is acknowledged, however often the runner looks: what is missing is said once, when it can be. */
static void test_log_full_at_quit(void **state) {
        struct baton_runner_options options = { .size = sizeof(options), .max_log_records = 3 };
        Fixture f;

        (void) state;
        fixture_open_with(&f, &options);
        f.hold_log = true;
        for (int i = 1; i <= 5; i++)
                baton_log(f.runner, BATON_INFO, "", "", 0, "record %d", i);
        await_records(&f, 3);
        baton_runner_quit(f.runner);
        for (int i = 0; i < 5; i++)
                fixture_ask(&f, "baton.Runner/Ping", NULL, &(Result){ 0 });
        release_log(&f);
        fixture_until(&f, has_ended, &f);
        assert_int_equal(f.n_records, 4);
        assert_string_equal(f.records[3].text, "2 log records dropped");
        fixture_close(&f);
}

static void test_log_without_memory(void **state) {
        Fixture f;

        (void) state;
        fixture_open(&f);
        seam_fail_always(SEAM_MALLOC, ENOMEM);
        baton_log(f.runner, BATON_INFO, "", "", 0, "lost");
        seam_pass(SEAM_MALLOC);
        baton_log(f.runner, BATON_INFO, "", "", 0, "kept");
        await_records(&f, 2);
        assert_string_equal(f.records[0].text, "1 log record dropped");
        assert_string_equal(f.records[1].text, "kept");
        fixture_close(&f);
}

/* ---- park */

#define PARKED_RECORDS 500
#define ROOM           100

typedef struct Writer {
        Fixture *fixture;
        pthread_t thread;
        sem_t full; /* as many are in as there may be */
        atomic_uint n;
        atomic_bool over;
} Writer;

static void *write_records(void *argument) {
        Writer *writer = argument;

        for (unsigned i = 0; i < PARKED_RECORDS; i++) {
                baton_log(writer->fixture->runner, BATON_INFO, "thread", "", 0, "%u", i);
                if (atomic_fetch_add(&writer->n, 1) + 1 == ROOM)
                        (void) sem_post(&writer->full);
        }
        atomic_store(&writer->over, true);
        return NULL;
}

static void open_parked(Fixture *f, Writer *writer) {
        struct baton_runner_options options = { .size = sizeof(options), .max_log_records = ROOM, .park_log = 1 };

        fixture_open_with(f, &options);
        f->hold_log = true;
        *writer = (Writer){ .fixture = f };
        assert_int_equal(sem_init(&writer->full, 0, 0), 0);
        assert_int_equal(pthread_create(&writer->thread, NULL, write_records, writer), 0);
        /* Before the loop runs, so that they are in two calls, which can be open at once: the thread waits, or soon does. */
        while (sem_wait(&writer->full) < 0)
                ;
        await_records(f, ROOM);
}

/* A thread waits for the supervisor, the loop does not: calls go on, and what it logs itself is dropped and told. */
static void test_log_parked(void **state) {
        unsigned next = 0, n_told = 0;
        Writer writer;
        Fixture f;

        (void) state;
        open_parked(&f, &writer);
        for (unsigned i = 0; i < 20; i++) {
                Result result = { 0 };

                fixture_ask(&f, "baton.Runner/Ping", NULL, &result);
                assert_int_equal(result.status, STATUS_OK);
        }
        assert_true(atomic_load(&writer.n) <= ROOM);
        assert_int_equal(f.n_records, ROOM);
        for (unsigned i = 0; i < 3; i++)
                baton_log(f.runner, BATON_INFO, "loop", "", 0, "dropped");
        release_log(&f);
        await_records(&f, PARKED_RECORDS + 1);
        (void) pthread_join(writer.thread, NULL);
        for (unsigned i = 0; i < f.n_records; i++) {
                char text[16];

                assert_int_equal(f.records[i].seq, i + 1);
                if (strcmp(f.records[i].target, "baton") == 0) {
                        assert_string_equal(f.records[i].text, "3 log records dropped");
                        n_told++;
                        continue;
                }
                (void) snprintf(text, sizeof(text), "%u", next++);
                assert_string_equal(f.records[i].text, text);
        }
        assert_int_equal(next, PARKED_RECORDS);
        assert_int_equal(n_told, 1);
        fixture_close(&f);
}

/* Nobody waits for a supervisor that is gone. */
static void test_log_parked_at_the_end(void **state) {
        Writer writer;
        Fixture f;

        (void) state;
        open_parked(&f, &writer);
        peer_close(f.peer, STATUS_OK, "good bye");
        fixture_until(&f, has_ended, &f);
        (void) pthread_join(writer.thread, NULL);
        assert_true(atomic_load(&writer.over));
        fixture_close(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_log),
        TEST(test_log_bounds),
        TEST(test_log_renewal),
        TEST(test_log_at_quit),
        TEST(test_log_full_at_quit),
        TEST(test_log_without_memory),
        TEST(test_log_parked),
        TEST(test_log_parked_at_the_end),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
