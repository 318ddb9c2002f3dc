/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What other threads than the loop's may do: answer, send items of both directions, log; wait where a stream takes no
 * more, and be let go when nobody waits for the call. The loop is the main thread's, which runs the supervisor's end, too.
 * Threads make no assertions: they count what they see.
 */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "tests/runner-fixture.h"
#include "tests/seam.h"

#define THREADS   4u
#define CALLS     400u
#define ITEMS     3000u
#define ITEM_SIZE 300u
#define JOBS      1024u

/* ---- the workers ---- */

typedef struct Job {
        struct baton_call *call;
        uint32_t number;
        struct baton_request *request;
        unsigned n_items; /* to be sent before the answer */
} Job;

typedef struct Workers {
        Fixture *fixture;
        pthread_t threads[THREADS];
        pthread_mutex_t lock;
        pthread_cond_t more;
        Job jobs[JOBS];
        size_t n_jobs, next;
        bool stop;
        atomic_uint n_bad;       /* results that should not be */
        atomic_uint n_cancelled; /* sends or answers that came too late */
        atomic_uint n_done;      /* jobs */
} Workers;

static void put_job(Workers *workers, Job job) {
        (void) pthread_mutex_lock(&workers->lock);
        workers->jobs[workers->n_jobs++ % JOBS] = job;
        (void) pthread_cond_signal(&workers->more);
        (void) pthread_mutex_unlock(&workers->lock);
}

static bool get_job(Workers *workers, Job *ret_job) {
        bool found;

        (void) pthread_mutex_lock(&workers->lock);
        while (workers->next == workers->n_jobs && !workers->stop)
                (void) pthread_cond_wait(&workers->more, &workers->lock);
        found = workers->next < workers->n_jobs;
        if (found)
                *ret_job = workers->jobs[workers->next++ % JOBS];
        (void) pthread_mutex_unlock(&workers->lock);
        return found;
}

/* send_items() - numbers, in order. False: nobody waits any more. */
static bool send_items(Workers *workers, const Job *job) {
        uint8_t bytes[ITEM_SIZE] = { 0 };
        int r;

        for (uint32_t i = 0; i < job->n_items; i++) {
                memcpy(bytes, &i, sizeof(i));
                r = job->call ? baton_call_send(job->call, "a.Number", bytes, sizeof(bytes))
                              : baton_request_send(job->request, "a.Number", bytes, sizeof(bytes));
                if (r == -ECANCELED)
                        return false;
                atomic_fetch_add(&workers->n_bad, r != 0);
        }
        return true;
}

static void answer(Workers *workers, const Job *job) {
        int r = baton_call_answer(job->call, "a.Number", &job->number, sizeof(job->number));

        atomic_fetch_add(&workers->n_cancelled, r == -ECANCELED);
        atomic_fetch_add(&workers->n_bad, r != 0 && r != -ECANCELED);
}

static void *work(void *argument) {
        Workers *workers = argument;
        Job job;

        while (get_job(workers, &job)) {
                if (!send_items(workers, &job))
                        atomic_fetch_add(&workers->n_cancelled, 1);
                BATON_LOG(workers->fixture->runner, BATON_INFO, "worker", "job %u", job.number);
                atomic_fetch_add(&workers->n_done, 1); /* before what wakes the loop, which looks at it */
                if (job.call) {
                        answer(workers, &job);
                } else {
                        (void) baton_request_end(job.request);
                        baton_request_unref(job.request);
                }
        }
        return NULL;
}

static void workers_start(Workers *workers, Fixture *fixture) {
        *workers = (Workers){ .fixture = fixture };
        (void) pthread_mutex_init(&workers->lock, NULL);
        (void) pthread_cond_init(&workers->more, NULL);
        for (unsigned i = 0; i < THREADS; i++)
                assert_int_equal(pthread_create(&workers->threads[i], NULL, work, workers), 0);
}

static void workers_stop(Workers *workers) {
        (void) pthread_mutex_lock(&workers->lock);
        workers->stop = true;
        (void) pthread_cond_broadcast(&workers->more);
        (void) pthread_mutex_unlock(&workers->lock);
        for (unsigned i = 0; i < THREADS; i++)
                assert_int_equal(pthread_join(workers->threads[i], NULL), 0);
        (void) pthread_cond_destroy(&workers->more);
        (void) pthread_mutex_destroy(&workers->lock);
        assert_int_equal(workers->n_bad, 0);
}

/* number_of_request() - what a handler reads before it hands the call over. */
static uint32_t number_of_request(struct baton_call *call) {
        uint32_t number = 0;
        size_t size;
        const void *data = baton_call_data(call, &size);

        memcpy(&number, data, MIN(size, sizeof(number)));
        return number;
}

static void hand_over(struct baton_call *call, void *userdata) {
        put_job(userdata, (Job){ .call = call, .number = number_of_request(call) });
}

static void hand_over_stream(struct baton_call *call, void *userdata) {
        put_job(userdata, (Job){ .call = call, .number = number_of_request(call), .n_items = ITEMS });
}

/* ---- the supervisor's end ---- */

typedef struct Caller {
        Call *call;
        uint32_t number, taken, shown;
        bool refuse, done, any_answer;
        Status status;
        unsigned n_fds;
} Caller;

typedef struct Callers {
        Caller callers[CALLS];
        size_t n;
} Callers;

static bool caller_item(Call *call, const Item *item, void *userdata) {
        Caller *caller = userdata;
        uint32_t number;

        (void) call;
        caller->shown++;
        if (caller->refuse)
                return false;
        memcpy(&number, item->payload, sizeof(number));
        assert_int_equal(number, caller->taken);
        caller->taken++;
        caller->n_fds += (unsigned) item->n_fds;
        return true;
}

static void caller_done(Call *call, const Answer *answer, void *userdata) {
        Caller *caller = userdata;

        (void) call;
        assert_false(caller->done);
        caller->done = true;
        caller->status = answer->status;
        if (answer->status != STATUS_OK || caller->any_answer)
                return;
        assert_int_equal(answer->size, sizeof(caller->number));
        assert_memory_equal(answer->payload, &caller->number, sizeof(caller->number));
}

static void caller_start(Fixture *f, Caller *caller, const char *method, uint64_t timeout_us) {
        CallParameters parameters = {
                .method = method,
                .payload = &caller->number,
                .size = sizeof(caller->number),
                .timeout_us = timeout_us,
                .item = caller_item,
        };

        assert_int_equal(call_start(f->peer, &parameters, caller_done, caller, &caller->call), 0);
}

static bool caller_is_done(void *caller) {
        return ((Caller *) caller)->done;
}

static bool caller_was_shown(void *caller) {
        return ((Caller *) caller)->shown > 0;
}

static bool callers_are_done(void *argument) {
        const Callers *callers = argument;

        for (size_t i = 0; i < callers->n; i++)
                if (!callers->callers[i].done)
                        return false;
        return true;
}

static bool nothing_is_logged(void *argument) {
        const Workers *workers = argument;

        return workers->fixture->n_records == atomic_load(&workers->n_done);
}

/* ---- tests ---- */

static void test_answers(void **state) {
        static Callers callers;
        static Workers workers;
        Fixture f;

        (void) state;
        callers = (Callers){ .n = CALLS };
        fixture_open(&f);
        workers_start(&workers, &f);
        fixture_add(&f, "Work", hand_over, &workers);
        for (uint32_t i = 0; i < CALLS; i++) {
                callers.callers[i].number = i;
                caller_start(&f, &callers.callers[i], "Work", 0);
        }
        fixture_until(&f, callers_are_done, &callers);
        for (uint32_t i = 0; i < CALLS; i++)
                assert_int_equal(callers.callers[i].status, STATUS_OK);
        fixture_until(&f, nothing_is_logged, &workers);
        assert_int_equal(f.n_records, CALLS);
        for (size_t i = 0; i < f.n_records; i++)
                assert_int_equal(f.records[i].seq, i + 1);
        workers_stop(&workers);
        fixture_close(&f);
}

/* Four streams at once, each from a thread of its own, more than the outboxes hold; answers and records beside them. */
static void test_streams(void **state) {
        static Callers callers;
        static Workers workers;
        Fixture f;

        (void) state;
        callers = (Callers){ .n = THREADS * 2 };
        fixture_open(&f);
        workers_start(&workers, &f);
        fixture_add(&f, "Stream", hand_over_stream, &workers);
        for (uint32_t i = 0; i < callers.n; i++)
                caller_start(&f, &callers.callers[i], "Stream", 0);
        fixture_until(&f, callers_are_done, &callers);
        for (uint32_t i = 0; i < callers.n; i++) {
                assert_int_equal(callers.callers[i].status, STATUS_OK);
                assert_int_equal(callers.callers[i].taken, ITEMS);
        }
        workers_stop(&workers);
        fixture_close(&f);
}

typedef struct Echoes {
        uint32_t taken, expected;
        bool done;
        enum baton_status status;
} Echoes;

static int echoed(const struct baton_item *item, void *userdata) {
        Echoes *echoes = userdata;
        uint32_t number;

        memcpy(&number, item->data, sizeof(number));
        assert_int_equal(number, echoes->taken);
        echoes->taken++;
        return 0;
}

static void echoes_answered(const struct baton_answer *answer, void *userdata) {
        Echoes *echoes = userdata;

        echoes->done = true;
        echoes->status = answer->status;
}

static bool echoes_are_done(void *argument) {
        const Echoes *echoes = argument;

        return echoes[0].done && echoes[1].done;
}

static struct baton_request *start_request(Fixture *f, Echoes *echoes) {
        struct baton_call_parameters parameters = {
                .size = sizeof(parameters),
                .method = "test.Stream",
                .stream = 1,
                .on_item = echoed,
        };
        struct baton_request *request;

        assert_int_equal(baton_runner_call(f->runner, &parameters, echoes_answered, echoes, &request), 0);
        baton_request_ref(request);
        return request;
}

static void test_requests(void **state) {
        static Workers workers;
        Echoes echoes[2] = { 0 };
        Fixture f;

        (void) state;
        fixture_open(&f);
        workers_start(&workers, &f);
        for (unsigned i = 0; i < 2; i++)
                put_job(&workers, (Job){ .request = start_request(&f, &echoes[i]), .n_items = ITEMS });
        fixture_until(&f, echoes_are_done, echoes);
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(echoes[i].status, BATON_OK);
                assert_int_equal(echoes[i].taken, ITEMS);
        }
        workers_stop(&workers);
        fixture_close(&f);
}

static bool one_is_done(void *argument) {
        const Workers *workers = argument;

        return atomic_load(&workers->n_done) == 1;
}

/* A thread that waits for a stream that stands still is let go when nobody waits for the call. */
static void test_cancelled(void **state) {
        static Workers workers;
        Caller caller = { .refuse = true };
        Fixture f;

        (void) state;
        fixture_open(&f);
        workers_start(&workers, &f);
        fixture_add(&f, "Stream", hand_over_stream, &workers);
        caller_start(&f, &caller, "Stream", 0);
        fixture_until(&f, caller_was_shown, &caller);
        call_cancel(caller.call);
        fixture_until(&f, one_is_done, &workers);
        workers_stop(&workers);
        assert_int_equal(workers.n_cancelled, 2);
        fixture_close(&f);
}

static void test_deadline(void **state) {
        static Workers workers;
        Caller caller = { .refuse = true };
        Fixture f;

        (void) state;
        fixture_open(&f);
        workers_start(&workers, &f);
        fixture_add(&f, "Stream", hand_over_stream, &workers);
        caller_start(&f, &caller, "Stream", 200 * USEC_PER_MSEC);
        fixture_until(&f, caller_is_done, &caller);
        assert_int_equal(caller.status, STATUS_DEADLINE_EXCEEDED);
        fixture_until(&f, one_is_done, &workers);
        workers_stop(&workers);
        fixture_close(&f);
}

/* The runner's end lets them go, too; what they hand in afterwards is refused. */
static void test_end(void **state) {
        static Workers workers;
        Caller caller = { .refuse = true };
        Echoes echoes[2] = { 0 };
        Fixture f;

        (void) state;
        fixture_open(&f);
        workers_start(&workers, &f);
        fixture_add(&f, "Stream", hand_over_stream, &workers);
        caller_start(&f, &caller, "Stream", 0);
        fixture_until(&f, caller_was_shown, &caller);
        put_job(&workers, (Job){ .request = start_request(&f, &echoes[0]), .n_items = ITEMS });
        f.peer = peer_free(f.peer);
        while (f.r == 0)
                f.r = baton_runner_dispatch(f.runner, 1000);
        workers_stop(&workers);
        assert_int_equal(workers.n_done, 2);
        assert_true(workers.n_cancelled >= 2);
        for (size_t i = 0; i < FIXTURE_MAX; i++)
                if (f.streams[i].call)
                        (void) call_fail(f.streams[i].call, STATUS_ABORTED, "closing");
        baton_runner_free(f.runner);
        endpoint_free(f.endpoint);
}

/* ---- one thread, step by step ---- */

typedef struct Step {
        struct baton_call *call;
        struct baton_request *request;
        void (*function)(struct Step *step);
        atomic_bool done;
        int results[4];
        unsigned n_sent, n_writable;
        int fds[2];
} Step;

static void *run_step(void *argument) {
        Step *step = argument;

        step->function(step);
        atomic_store(&step->done, true);
        return NULL;
}

/* in_thread() - @function in a thread of its own, to its end; the loop stands still. */
static void in_thread(Step *step, void (*function)(Step *step)) {
        pthread_t thread;

        step->function = function;
        atomic_store(&step->done, false);
        assert_int_equal(pthread_create(&thread, NULL, run_step, step), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
}

static void keep(struct baton_call *call, void *userdata) {
        ((Step *) userdata)->call = call;
}

static bool is_kept(void *step) {
        return ((Step *) step)->call;
}

static void on_writable(void *userdata) {
        ((Step *) userdata)->n_writable++;
}

static bool was_writable(void *step) {
        return ((Step *) step)->n_writable > 0;
}

static int send_number(Step *step, uint32_t number) {
        uint8_t bytes[64 * 1024] = { 0 };

        memcpy(bytes, &number, sizeof(number));
        return baton_call_send_fds(step->call, "", bytes, sizeof(bytes), NULL, 0, BATON_NO_WAIT);
}

static void fill(Step *step) {
        int r;

        while ((r = send_number(step, step->n_sent)) == 0)
                step->n_sent++;
        step->results[0] = r;
}

/* Full is -EAGAIN for who does not want to wait; told on the loop's thread, and everything arrives in order. */
static void test_no_wait(void **state) {
        Step step = { 0 };
        Caller caller = { .refuse = true };
        Fixture f;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Keep", keep, &step);
        caller_start(&f, &caller, "Keep", 0);
        fixture_until(&f, is_kept, &step);
        baton_call_on_writable(step.call, on_writable, &step);
        in_thread(&step, fill);
        assert_int_equal(step.results[0], -EAGAIN);
        fixture_until(&f, caller_was_shown, &caller);
        step.n_writable = 0;
        /* The loop's own thread does not get in between, and does not wait. */
        in_thread(&step, fill);
        assert_int_equal(send_number(&step, step.n_sent), -EAGAIN);
        assert_int_equal(step.n_writable, 0);
        caller.refuse = false;
        call_resume(caller.call);
        fixture_until(&f, was_writable, &step);
        in_thread(&step, fill);
        assert_int_equal(baton_call_answer(step.call, "", &caller.number, sizeof(caller.number)), 0);
        fixture_until(&f, caller_is_done, &caller);
        assert_int_equal(caller.status, STATUS_OK);
        assert_int_equal(caller.taken, step.n_sent);
        fixture_close(&f);
}

static void send_descriptors(Step *step) {
        static uint8_t bytes[300 * 1024];
        uint32_t number = 0;

        step->results[0] = baton_call_send_fds(step->call, "", bytes, sizeof(bytes), step->fds, 2, 0);
        step->results[1] = baton_call_send_fds(step->call, "\xff", NULL, 0, step->fds, 2, 0);
        step->results[2] = baton_call_send_fds(step->call, "", &number, sizeof(number), step->fds, 2, 0);
        step->results[3] = baton_call_add_detail(step->call, "a.Detail", "more", 4) +
                           baton_call_add_metadata(step->call, "key", "value", 5) +
                           baton_call_fail(step->call, BATON_ABORTED, "%s", "in a thread");
}

static void test_descriptors(void **state) {
        Step step = { 0 };
        Caller caller = { 0 };
        Fixture f;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Keep", keep, &step);
        caller_start(&f, &caller, "Keep", 0);
        fixture_until(&f, is_kept, &step);
        assert_int_equal(pipe2(step.fds, O_CLOEXEC), 0);
        in_thread(&step, send_descriptors);
        fixture_until(&f, caller_is_done, &caller);
        assert_int_equal(step.results[0], -EMSGSIZE);
        assert_int_equal(step.results[1], -EINVAL);
        assert_int_equal(step.results[2], 0);
        assert_int_equal(step.results[3], 0);
        assert_int_equal(caller.n_fds, 2);
        assert_int_equal(caller.status, STATUS_ABORTED);
        fixture_close(&f);
}

static void hand_in(Step *step) {
        int fds[2];

        step->results[0] = baton_call_send_fds(step->call, "", "x", 1, step->fds, 2, 0);
        if (pipe2(fds, O_CLOEXEC) == 0)
                step->results[1] = baton_call_answer_fds(step->call, "", "x", 1, fds, 2);
}

/* Open ones are forgotten with the runner, whatever was handed in for them. */
static void test_forgotten(void **state) {
        Step step = { 0 };
        Caller caller = { 0 };
        Fixture f;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Keep", keep, &step);
        caller_start(&f, &caller, "Keep", 0);
        fixture_until(&f, is_kept, &step);
        assert_int_equal(pipe2(step.fds, O_CLOEXEC), 0);
        in_thread(&step, hand_in);
        assert_true(step.results[0] == 0 && step.results[1] == 0);
        fixture_close(&f);
}

static void send_and_answer(Step *step) {
        step->results[0] = baton_call_send(step->call, "", "x", 1);
        step->results[1] = baton_call_answer(step->call, "", "x", 1);
}

/* Without memory an item is refused, and the call still ends: the caller learns why. */
static void test_no_memory(void **state) {
        Fixture f;

        (void) state;
        for (unsigned i = 0; i < 2; i++) {
                Step step = { 0 };
                Caller caller = { 0 };

                fixture_open(&f);
                fixture_add(&f, "Keep", keep, &step);
                caller_start(&f, &caller, "Keep", 0);
                fixture_until(&f, is_kept, &step);
                /* First the copies of item and answer, then the outbox. */
                seam_fail_from(i == 0 ? SEAM_MALLOC : SEAM_CALLOC, 1, ENOMEM);
                in_thread(&step, send_and_answer);
                seam_reset();
                assert_int_equal(step.results[0], -ENOMEM);
                assert_int_equal(step.results[1], i == 0 ? -ENOMEM : 0);
                caller.any_answer = true;
                fixture_until(&f, caller_is_done, &caller);
                assert_int_equal(caller.status, i == 0 ? STATUS_RESOURCE_EXHAUSTED : STATUS_OK);
                assert_int_equal(caller.taken, 0);
                fixture_close(&f);
        }
}

static void hand_in_pipe(Step *step) {
        step->results[0] = step->call ? baton_call_send_fds(step->call, "", "x", 1, step->fds, 2, 0)
                                      : baton_request_send_fds(step->request, "", "x", 1, step->fds, 2, 0);
}

static void let_go(Step *step) {
        baton_request_unref(step->request);
}

/* without_memory() - one turn of the runner in which descriptors cannot be sent. */
static void without_memory(Fixture *f) {
        seam_fail_from(SEAM_MALLOC, 1, ENOMEM);
        assert_int_equal(baton_runner_dispatch(f->runner, 0), 0);
        seam_reset();
}

/* An item that was accepted and cannot be sent is not missing silently: the call ends so. */
static void test_missing_item(void **state) {
        Echoes echoes = { 0 };
        Caller caller = { 0 };
        Step step = { 0 };
        Fixture f;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Keep", keep, &step);
        step.request = start_request(&f, &echoes);
        fixture_until(&f, fixture_has_streams, &(FixtureStreams){ &f, 1 });
        assert_int_equal(pipe2(step.fds, O_CLOEXEC), 0);
        in_thread(&step, hand_in_pipe);
        in_thread(&step, let_go);
        without_memory(&f);
        assert_true(step.results[0] == 0 && echoes.done);
        assert_int_equal(echoes.status, BATON_RESOURCE_EXHAUSTED);
        caller_start(&f, &caller, "Keep", 0);
        fixture_until(&f, is_kept, &step);
        assert_int_equal(pipe2(step.fds, O_CLOEXEC), 0);
        in_thread(&step, hand_in_pipe);
        without_memory(&f);
        assert_int_equal(baton_call_send(step.call, "", "x", 1), -ENOMEM);
        assert_int_equal(baton_call_answer(step.call, "", "x", 1), 0);
        fixture_until(&f, caller_is_done, &caller);
        assert_int_equal(caller.status, STATUS_RESOURCE_EXHAUSTED);
        fixture_close(&f);
}

static const struct CMUnitTest tests[] = {
        TEST_SLOW(test_answers, 30), TEST_SLOW(test_streams, 30), TEST(test_requests),
        TEST(test_cancelled),        TEST(test_deadline),         TEST(test_end),
        TEST(test_no_wait),          TEST(test_descriptors),      TEST(test_forgotten),
        TEST(test_no_memory),        TEST(test_missing_item),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
