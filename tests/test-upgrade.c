/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runners that follow one another under a client that does not stop: calls of every kind are open when one is stopped,
 * half-read and half-sent, and end in the process that they began in; new ones begin in the successor. The client sees
 * every call end as if there had been one runner, and its connection stays. When is chosen by a seed, which is printed.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "proto/peer-internal.h"
#include "proto/service.h"
#include "tests/runner-fixture.h"

enum {
        OPEN = 24,     /* calls of the client's at once */
        CROSSINGS = 4, /* in each run */
        RUNS = 12,
        ITEMS = 40,
        LARGE = 300000, /* goes by shared memory, or in an object where there is none */
};

static unsigned seed;

static unsigned choose(unsigned n) {
        seed = seed * 1103515245u + 12345u;
        return (seed >> 16) % n;
}

/* ---- the runner's methods ---- */

static void pattern(uint8_t *data, size_t size, unsigned first) {
        for (size_t i = 0; i < size; i++)
                data[i] = (uint8_t) (first + i * 7);
}

static bool has_pattern(const uint8_t *data, size_t size, unsigned first) {
        for (size_t i = 0; i < size; i++)
                if (data[i] != (uint8_t) (first + i * 7))
                        return false;
        return true;
}

static int a_pipe(void) {
        int fds[2];

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        fd_close(fds[1]);
        return fds[0];
}

/* A call that is answered some turns later: by whoever runs Runner's turn. */
typedef struct Deferred {
        struct baton_call *call; /* NULL: free */
        unsigned turns;
        size_t size;
        unsigned first;
        int fd;
} Deferred;

/* A stream of the runner's: of ITEMS items, as fast as they are taken. */
typedef struct Source {
        struct baton_call *call;
        unsigned n;
        bool waits;
} Source;

/* A stream of the caller's, echoed or counted. */
typedef struct Sink {
        struct baton_call *call;
        unsigned n, refuse;
        bool echoes, waits;
} Sink;

typedef struct Asking {
        struct baton_call *call;
} Asking;

enum { EACH = 64 };

typedef struct Runner2 {
        Deferred deferred[EACH];
        Source sources[EACH];
        Sink sinks[EACH];
        unsigned n_begun;
} Runner2;

typedef struct Process {
        Fixture f;
        Runner2 state;
        bool is_served;
} Process;

static void forget_deferred(struct baton_call *call, void *userdata) {
        Deferred *deferred = userdata;

        deferred->call = NULL;
        deferred->fd = fd_close(deferred->fd);
        (void) baton_call_fail(call, BATON_CANCELLED, "cancelled");
}

/* Back comes what was sent, with a descriptor where one came. */
static void on_echo(struct baton_call *call, void *userdata) {
        Process *process = userdata;
        Deferred *deferred = process->state.deferred;
        size_t size;
        const uint8_t *data = baton_call_data(call, &size);

        process->state.n_begun++;
        while (deferred->call)
                deferred++;
        assert_true(deferred < process->state.deferred + EACH);
        *deferred =
                (Deferred){ .call = call, .turns = choose(40), .size = size, .first = size ? data[0] : 0, .fd = -1 };
        assert_true(has_pattern(data, size, deferred->first));
        if (baton_call_n_fds(call) > 0)
                deferred->fd = baton_call_take_fd(call, 0);
        baton_call_on_cancel(call, forget_deferred, deferred);
}

static void run_deferred(Deferred *deferred) {
        uint8_t *data;

        if (!deferred->call || deferred->turns-- > 0)
                return;
        data = malloc(deferred->size + 1);
        assert_non_null(data);
        pattern(data, deferred->size, deferred->first);
        (void) baton_call_answer_fds(deferred->call, "", data, deferred->size, &deferred->fd, deferred->fd >= 0);
        deferred->call = NULL;
        deferred->fd = -1;
        free(data);
}

static void forget_source(struct baton_call *call, void *userdata) {
        ((Source *) userdata)->call = NULL;
        (void) baton_call_fail(call, BATON_CANCELLED, "cancelled");
}

static void source_writable(void *userdata) {
        ((Source *) userdata)->waits = false;
}

static void on_source(struct baton_call *call, void *userdata) {
        Process *process = userdata;
        Source *source = process->state.sources;

        process->state.n_begun++;
        while (source->call)
                source++;
        *source = (Source){ .call = call };
        baton_call_on_writable(call, source_writable, source);
        baton_call_on_cancel(call, forget_source, source);
}

static void run_source(Source *source) {
        uint8_t data[9000];
        int fd, r;

        while (source->call && !source->waits && source->n < ITEMS && choose(3) > 0) {
                fd = source->n % 8 == 3 ? a_pipe() : -1;
                pattern(data, sizeof(data), source->n);
                r = baton_call_send_fds(source->call, "", data, sizeof(data), &fd, fd >= 0, 0);
                if (r == -EAGAIN) {
                        source->waits = true;
                        fd_close(fd);
                        return;
                }
                assert_int_equal(r, 0);
                source->n++;
        }
        if (source->call && source->n == ITEMS) {
                (void) baton_call_answer(source->call, "", &source->n, sizeof(source->n));
                source->call = NULL;
        }
}

static void forget_sink(struct baton_call *call, void *userdata) {
        ((Sink *) userdata)->call = NULL;
        (void) baton_call_fail(call, BATON_CANCELLED, "cancelled");
}

static int sink_item(const struct baton_item *item, void *userdata) {
        Sink *sink = userdata;
        int r;

        if (choose(4) == 0)
                return 1;
        if (item->size > 0) {
                assert_true(has_pattern(item->data, item->size, sink->n));
                r = sink->echoes
                            ? baton_call_send_fds(sink->call, "", item->data, item->size, item->fds, item->n_fds, 0)
                            : 0;
                if (r == -EAGAIN)
                        return 1;
                assert_int_equal(r, 0);
                if (sink->echoes)
                        for (size_t i = 0; i < item->n_fds; i++)
                                item->fds[i] = -1;
                sink->n++;
        }
        if (item->end) {
                (void) baton_call_answer(sink->call, "", &sink->n, sizeof(sink->n));
                sink->call = NULL;
        }
        return 0;
}

static void sink_writable(void *userdata) {
        (void) userdata;
}

static void on_sink(struct baton_call *call, void *userdata) {
        Process *process = userdata;
        Sink *sink = process->state.sinks;

        process->state.n_begun++;
        while (sink->call)
                sink++;
        *sink = (Sink){ .call = call, .echoes = strcmp(baton_call_method(call), "test/Bidi") == 0 };
        baton_call_on_item(call, sink_item, sink);
        baton_call_on_writable(call, sink_writable, sink);
        baton_call_on_cancel(call, forget_sink, sink);
}

static void asked(const struct baton_answer *answer, void *userdata) {
        Asking *asking = userdata;

        if (answer->status == BATON_OK)
                (void) baton_call_answer(asking->call, "", answer->data, answer->size);
        else
                (void) baton_call_fail(asking->call, answer->status, "%s", answer->message);
        free(asking);
}

/* The runner calls the client, and answers with what that said. */
static void on_ask(struct baton_call *call, void *userdata) {
        Process *process = userdata;
        Asking *asking = malloc(sizeof(*asking));
        size_t size;
        const void *data = baton_call_data(call, &size);
        const struct baton_call_parameters parameters = {
                .size = sizeof(parameters), .method = "client/Echo", .data = data, .data_size = size
        };

        assert_non_null(asking);
        process->state.n_begun++;
        asking->call = call;
        assert_int_equal(baton_connection_call(baton_call_connection(call), &parameters, asked, asking, NULL), 0);
}

/* ---- the processes ---- */

static int save(struct baton_save *save_state, void *userdata) {
        (void) userdata;
        return baton_save_write(save_state, "state", 5);
}

static int restore(struct baton_restore *restore_state, void *userdata) {
        size_t size;

        (void) userdata;
        assert_memory_equal(baton_restore_data(restore_state, &size), "state", 5);
        return 0;
}

static const struct baton_service service = { .size = sizeof(service), .save = save, .restore = restore };

static Process *process_new(void) {
        Process *process = calloc(1, sizeof(*process));

        assert_non_null(process);
        fixture_open_service(&process->f, &service, process);
        fixture_add(&process->f, "test/Echo", on_echo, process);
        fixture_add(&process->f, "test/Source", on_source, process);
        fixture_add(&process->f, "test/Sink", on_sink, process);
        fixture_add(&process->f, "test/Bidi", on_sink, process);
        fixture_add(&process->f, "test/Ask", on_ask, process);
        return process;
}

static void process_turn(Process *process) {
        fixture_turn(&process->f);
        for (size_t i = 0; i < EACH; i++) {
                run_deferred(&process->state.deferred[i]);
                run_source(&process->state.sources[i]);
                if (process->state.sinks[i].call)
                        baton_call_resume(process->state.sinks[i].call);
        }
}

/* ---- the client ---- */

typedef struct Talk Talk;

typedef enum Kind { ECHO, ECHO_LARGE, ECHO_FD, SOURCE, SINK, BIDI, ASK, CANCELLED, LATE, _KIND_N } Kind;

/* One call of the client's. */
typedef struct Open {
        Talk *talk;
        Call *call; /* NULL: free */
        Kind kind;
        unsigned first, sent, received;
        size_t size;
} Open;

struct Talk {
        Endpoint *endpoint;
        Peer *peer;
        bool ready, ended;
        Open open[OPEN];
        unsigned n_begun, n_ended;
        bool stops;
};

static void client_ready(Peer *peer, bool renewed) {
        assert_false(renewed);
        ((Talk *) peer_userdata(peer))->ready = true;
}

static void client_ended(Peer *peer, Status status, const char *reason) {
        (void) status;
        ((Talk *) peer_userdata(peer))->ended = true;
        if (*reason)
                print_message("the client's connection has ended: %s\n", reason);
}

static void client_call(Peer *peer, Call *call) {
        size_t size;
        const uint8_t *payload = call_payload(call, &size);

        (void) peer;
        (void) call_answer(call, &(AnswerParameters){ .payload = payload, .size = size });
}

static const PeerHandler client_handler = { .ready = client_ready, .ended = client_ended, .call = client_call };

static bool client_item(Call *call, const Item *item, void *userdata) {
        Open *open = userdata;

        (void) call;
        if (choose(5) == 0)
                return false;
        if (!has_pattern(item->payload, item->size, open->received))
                print_message("kind %d: item %u of %zu bytes\n", open->kind, open->received, item->size);
        assert_true(has_pattern(item->payload, item->size, open->received));
        open->received++;
        return true;
}

static void client_writable(Call *call, void *userdata) {
        (void) call;
        (void) userdata;
}

static void client_done(Call *call, const Answer *answer, void *userdata) {
        Open *open = userdata;
        Status expected = open->kind == LATE ? STATUS_DEADLINE_EXCEEDED : STATUS_OK;
        unsigned n = 0;

        (void) call;
        if (answer->status != expected)
                print_message("kind %d, %u sent, %u received: %s: %s\n", open->kind, open->sent, open->received,
                              status_name(answer->status), answer->message);
        assert_int_equal(answer->status, expected);
        if (answer->size == sizeof(n))
                memcpy(&n, answer->payload, sizeof(n));
        if (open->kind == SOURCE || open->kind == SINK || open->kind == BIDI)
                assert_int_equal(n, ITEMS);
        if (open->kind == SOURCE || open->kind == BIDI)
                assert_int_equal(open->received, ITEMS);
        if (open->kind == ECHO || open->kind == ECHO_LARGE || open->kind == ECHO_FD || open->kind == ASK) {
                assert_int_equal(answer->size, open->size);
                assert_true(has_pattern(answer->payload, answer->size, open->first));
                assert_int_equal(answer->n_fds, open->kind == ECHO_FD);
        }
        open->talk->n_ended++;
        open->call = NULL;
}

static void begin(Talk *talk, Open *open) {
        static const char *const methods[_KIND_N] = {
                [ECHO] = "test/Echo",     [ECHO_LARGE] = "test/Echo", [ECHO_FD] = "test/Echo",
                [SOURCE] = "test/Source", [SINK] = "test/Sink",       [BIDI] = "test/Bidi",
                [ASK] = "test/Ask",       [CANCELLED] = "test/Bidi",  [LATE] = "test/Sink",
        };
        Kind kind = (Kind) choose(_KIND_N);
        CallParameters parameters = { .method = methods[kind] };
        PeerBuffer *buffer = NULL;
        uint8_t *data;
        size_t size;
        int fd = -1;

        *open = (Open){ .talk = talk, .kind = kind, .first = choose(256) };
        open->size = kind == ECHO_LARGE ? LARGE + choose(LARGE) : 1 + choose(2000);
        if (kind == ECHO_LARGE || kind == ECHO || kind == ECHO_FD || kind == ASK) {
                assert_int_equal(peer_buffer_new(talk->peer, open->size, &buffer), 0);
                data = peer_buffer_data(buffer, &size);
                pattern(data, size, open->first);
                parameters.buffer = buffer;
        }
        if (kind == ECHO_FD) {
                fd = a_pipe();
                parameters.fds_consume = &fd;
                parameters.n_fds = 1;
        }
        parameters.stream = kind == SINK || kind == BIDI || kind == CANCELLED || kind == LATE;
        parameters.item = kind == SOURCE || kind == BIDI || kind == CANCELLED ? client_item : NULL;
        parameters.writable = client_writable;
        parameters.timeout_us = kind == LATE ? 1000 + choose(20000) : 0;
        talk->n_begun++;
        assert_int_equal(call_start(talk->peer, &parameters, client_done, open, &open->call), 0);
}

static void send_items(Open *open) {
        uint8_t data[5000];
        int fd = -1, r;

        while (open->call && open->sent < ITEMS && choose(4) > 0) {
                if (open->kind == LATE && open->sent > ITEMS / 2)
                        return;
                fd = open->sent % 9 == 4 ? a_pipe() : -1;
                pattern(data, sizeof(data), open->sent);
                r = call_send(open->call,
                              &(ItemParameters){
                                      .payload = data, .size = sizeof(data), .fds_consume = &fd, .n_fds = fd >= 0 });
                if (r < 0)
                        fd_close(fd);
                if (r == -EAGAIN || r == -ECANCELED)
                        return;
                assert_int_equal(r, 0);
                if (++open->sent == ITEMS)
                        assert_int_equal(call_end(open->call), 0);
        }
}

static void client_turn(Talk *talk) {
        assert_int_equal(endpoint_dispatch(talk->endpoint, 0), 0);
        for (size_t i = 0; i < OPEN; i++) {
                Open *open = &talk->open[i];

                if (!open->call && !talk->stops)
                        begin(talk, open);
                if (!open->call)
                        continue;
                if (open->kind == SINK || open->kind == BIDI || open->kind == CANCELLED || open->kind == LATE)
                        send_items(open);
                if (open->call && open->kind == CANCELLED && choose(30) == 0) {
                        call_cancel(open->call);
                        open->call = NULL;
                        talk->n_ended++;
                } else if (open->call) {
                        call_resume(open->call);
                }
        }
}

/* ---- the crossing ---- */

static uint64_t event;

static void tell(Process *process, const char *method, bool handover, Result *result) {
        Baton__LifecycleEvent message = BATON__LIFECYCLE_EVENT__INIT;
        uint8_t packed[32];
        CallParameters parameters = { .method = method, .payload = packed };

        message.event = ++event;
        message.handover = handover;
        parameters.size = baton__lifecycle_event__pack(&message, packed);
        (void) fixture_call(&process->f, &parameters, result);
}

static void give(Process *process, const char *method, int fd_consume, Result *result) {
        /* Both requests have the socket's index, 0, by default. */
        CallParameters parameters = { .method = method, .fds_consume = &fd_consume, .n_fds = 1 };

        (void) fixture_call(&process->f, &parameters, result);
}

/* Those that still have calls to end. */
static struct {
        Process *process;
        Result left;
} olds[CROSSINGS];
static size_t n_olds;

/* turn() - one of everybody's, in any order. */
static void turn(Talk *talk, Process *a, Process *b) {
        if (n_olds > 0 && choose(3) == 0)
                process_turn(olds[choose((unsigned) n_olds)].process);
        switch (choose(3)) {
        case 0:
                client_turn(talk);
                break;
        case 1:
                process_turn(a);
                break;
        default:
                if (b)
                        process_turn(b);
        }
        assert_false(talk->ended);
}

static void until(Talk *talk, Process *a, Process *b, const Result *result) {
        for (unsigned i = 0; !result->done; i++) {
                assert_true(i < 2000000);
                turn(talk, a, b);
        }
        if (result->status != STATUS_OK)
                print_message("%s\n", result->message);
        assert_int_equal(result->status, STATUS_OK);
}

static void attach(Talk *talk, Process *process) {
        Baton__AttachRequest request = BATON__ATTACH_REQUEST__INIT;
        CallParameters parameters = { .method = "baton.Runner/Attach", .n_fds = 1 };
        const PeerConfig config = {
                .side = 0,
                .n_channels = 1,
                .renewal = LANE_RENEWAL_PEER,
                .share = true,
                .objects = PEER_OBJECTS_MAP,
                .software = "client 1",
        };
        uint8_t bytes[64];
        Result result;
        int fds[2], size = 8192;

        assert_int_equal(endpoint_new(&talk->endpoint), 0);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        assert_int_equal(endpoint_add_peer(talk->endpoint, &config, fds[0], &client_handler, talk, &talk->peer), 0);
        /* Little room, so that frames are seldom whole. */
        assert_int_equal(setsockopt(talk->peer->channels[0].fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
        request.name = (char *) "talk";
        parameters.fds_consume = &fds[1];
        parameters.payload = bytes;
        parameters.size = baton__attach_request__pack(&request, bytes);
        (void) fixture_call(&process->f, &parameters, &result);
        for (unsigned i = 0; !talk->ready; i++) {
                assert_true(i < 100000);
                fixture_turn(&process->f);
                assert_int_equal(endpoint_dispatch(talk->endpoint, 0), 0);
        }
        assert_int_equal(result.status, STATUS_OK);
}

/* take_back() - a successor that gives up after all: the predecessor goes on. */
static void take_back(Talk *talk, Process *a, Process *b) {
        Result started;

        fixture_close(&b->f);
        free(b);
        tell(a, "baton.Runner/Start", false, &started);
        until(talk, a, NULL, &started);
}

/* let_go() - the last that has calls to end ends them, and is gone. */
static void let_go(Talk *talk, Process *b) {
        Process *a = olds[n_olds - 1].process;

        until(talk, a, b, &olds[n_olds - 1].left);
        for (unsigned i = 0; a->f.r == 0; i++) {
                assert_true(i < 100000);
                turn(talk, a, b);
        }
        assert_int_equal(a->f.r, 1);
        n_olds--;
        fixture_close(&a->f);
        free(a);
}

/* cross() - from @a to a new one, or back to @a. Returns who serves then. */
static Process *cross(Talk *talk, Process *a) {
        Result stopped, saved = { 0 }, taken = { 0 }, started;
        Process *b = process_new();
        int fds[2];

        tell(a, "baton.Runner/Stop", true, &stopped);
        until(talk, a, b, &stopped);
        for (unsigned i = choose(50); i > 0; i--)
                turn(talk, a, b);
        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
        give(a, "baton.Runner/Save", fds[0], &saved);
        give(b, "baton.Runner/Takeover", fds[1], &taken);
        until(talk, a, b, &saved);
        until(talk, a, b, &taken);
        for (unsigned i = choose(50); i > 0; i--)
                turn(talk, a, b);
        if (choose(3) == 0) {
                take_back(talk, a, b);
                return a;
        }
        tell(b, "baton.Runner/Start", false, &started);
        until(talk, a, b, &started);
        for (unsigned i = choose(50); i > 0; i--)
                turn(talk, a, b);
        olds[n_olds].process = a;
        tell(a, "baton.Runner/Exit", false, &olds[n_olds++].left);
        if (choose(2) == 0)
                let_go(talk, b);
        return b;
}

static void run(void) {
        Talk talk = { 0 };
        Process *process = process_new();
        Result result;

        tell(process, "baton.Runner/Mount", false, &result);
        fixture_until(&process->f, result_is_done, &result);
        tell(process, "baton.Runner/Start", false, &result);
        fixture_until(&process->f, result_is_done, &result);
        attach(&talk, process);
        for (unsigned i = 0; i < CROSSINGS; i++) {
                for (unsigned n = choose(400); n > 0; n--)
                        turn(&talk, process, NULL);
                process = cross(&talk, process);
        }
        talk.stops = true;
        for (unsigned i = 0; talk.n_ended < talk.n_begun; i++) {
                assert_true(i < 2000000);
                turn(&talk, process, NULL);
        }
        while (n_olds > 0)
                let_go(&talk, process);
        peer_free(talk.peer);
        endpoint_free(talk.endpoint);
        fixture_close(&process->f);
        free(process);
}

static void test_crossings(void **state) {
        const char *given = getenv("BATON_TEST_SEED");
        unsigned first = given ? (unsigned) strtoul(given, NULL, 10) : 1;

        (void) state;
        for (unsigned i = 0; i < (given ? 1 : RUNS); i++) {
                seed = first + i;
                print_message("seed %u\n", seed);
                run();
        }
}

static const struct CMUnitTest tests[] = {
        TEST(test_crossings),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
