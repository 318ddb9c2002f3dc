/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Sealed objects between two peers of the engine: what goes so and what does not, in calls, answers and items; limits of
 * both sides; memory that fails. And by hand: objects that are none.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/memfd.h"
#include "tests/peer-host.h"
#include "tests/seam.h"
#include "tests/test.h"

#define LARGE  ((size_t) 20 << 20) /* more than a frame */
#define MEDIUM ((size_t) 2 << 20)  /* less, but worth an object */
#define WINDOW ((size_t) 256 << 10)

typedef struct Pair {
        TestPeer a, b;
        TestPeer *all[2];
} Pair;

static unsigned n_shared, n_inline;
static ArenaView kept[4];
static unsigned n_kept;
static bool keep_views;

static uint8_t *pattern(size_t size) {
        static uint8_t bytes[LARGE];

        for (size_t i = 0; i < size; i += 509)
                bytes[i] = (uint8_t) (i * 7 + 3);
        return bytes;
}

static bool is_pattern(const uint8_t *data, size_t size) {
        for (size_t i = 0; i < size; i += 509)
                if (data[i] != (uint8_t) (i * 7 + 3))
                        return false;
        return true;
}

static void keep(ArenaView *view) {
        n_shared += view != NULL;
        n_inline += view == NULL;
        if (!view || !keep_views)
                return;
        kept[n_kept++] = *view;
        *view = ARENA_VIEW_NULL;
}

static PeerBuffer *buffer_of(Peer *peer, size_t size) {
        PeerBuffer *buffer;
        size_t room;

        assert_int_equal(peer_buffer_new(peer, size, &buffer), 0);
        memcpy(peer_buffer_data(buffer, &room), pattern(size), size);
        assert_int_equal(room, size);
        return buffer;
}

static bool on_item(Call *call, const Item *item, void *userdata) {
        unsigned *n_items = userdata;

        (void) call;
        assert_true(is_pattern(item->payload, item->size));
        keep(item->shared);
        *n_items += 1;
        return true;
}

static unsigned n_items_up;

/* echo() - the payload, from where it lies; "sum" its length alone; "items" sends it as an item before. */
static void echo(Peer *peer, Call *call) {
        const Baton__Envelope *envelope = call_envelope(call);
        AnswerParameters answer = { .type = envelope->type };
        size_t n_fds, size;

        answer.payload = call_payload(call, &size);
        assert_true(is_pattern(answer.payload, size));
        answer.size = strcmp(envelope->method, "length") == 0 ? 0 : size;
        keep(call_shared(call));
        (void) call_fds(call, &n_fds);
        assert_int_equal(n_fds, strcmp(envelope->method, "fds") == 0 ? 1 : 0);
        if (call_takes_items(call)) {
                call_on_stream(call, on_item, NULL, &n_items_up);
                test_keep(peer, call);
                return;
        }
        if (strcmp(envelope->method, "items") == 0) {
                ItemParameters item = { .buffer = buffer_of(peer, size) };

                assert_int_equal(call_send(call, &item), 0);
        }
        (void) call_answer(call, &answer);
}

static void pair_open_with(Pair *pair, const PeerLimits *a, PeerObjects a_objects, const PeerLimits *b,
                           PeerObjects b_objects) {
        PeerConfig config = {
                .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_PEER, .limits = a, .objects = a_objects
        };
        int fds[2];

        memset(pair, 0, sizeof(*pair));
        n_shared = n_inline = n_kept = n_items_up = 0;
        keep_views = false;
        pair->all[0] = &pair->a;
        pair->all[1] = &pair->b;
        pair->b.on_call = echo;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        test_peer_new(&pair->a, &config, fds[0]);
        config = (PeerConfig){
                .side = 1, .n_channels = 1, .renewal = LANE_RENEWAL_SELF, .limits = b, .objects = b_objects
        };
        test_peer_new(&pair->b, &config, fds[1]);
}

static void pair_open(Pair *pair) {
        pair_open_with(pair, NULL, PEER_OBJECTS_MAP, NULL, PEER_OBJECTS_MAP);
        test_settle(pair->all, 2);
}

static void pair_close(Pair *pair) {
        test_peer_free(&pair->a);
        test_peer_free(&pair->b);
}

typedef struct Heard {
        unsigned n, n_items;
        Status status;
        bool good, shared;
        size_t size;
        char message[256];
} Heard;

static void on_done(Call *call, const Answer *answer, void *userdata) {
        Heard *heard = userdata;

        (void) call;
        heard->n++;
        heard->status = answer->status;
        heard->shared = answer->shared;
        heard->size = answer->size;
        heard->good = is_pattern(answer->payload, answer->size);
        (void) snprintf(heard->message, sizeof(heard->message), "%s", answer->message);
}

static bool on_answer_item(Call *call, const Item *item, void *userdata) {
        Heard *heard = userdata;

        return on_item(call, item, &heard->n_items);
}

static void start(Pair *pair, const CallParameters *parameters, Heard *heard) {
        *heard = (Heard){ 0 };
        assert_int_equal(call_start(pair->a.peer, parameters, on_done, heard, NULL), 0);
}

static void call_with(Pair *pair, const CallParameters *parameters, Heard *heard) {
        start(pair, parameters, heard);
        test_settle(pair->all, 2);
        assert_int_equal(heard->n, 1);
}

static void assert_echo(const Heard *heard, size_t size, bool shared) {
        assert_int_equal(heard->status, STATUS_OK);
        assert_true(heard->good);
        assert_int_equal(heard->size, size);
        assert_int_equal(heard->shared, shared);
}

/* ---- what goes so */

static void test_buffers(void **state) {
        CallParameters parameters = { .method = "m" };
        PeerBuffer *buffer;
        Heard heard;
        Pair pair;

        (void) state;
        pair_open(&pair);
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        call_with(&pair, &parameters, &heard);
        assert_echo(&heard, LARGE, true); /* the answer is no buffer, but too large for a frame */
        assert_int_equal(n_shared, 1);
        parameters.buffer = buffer_of(pair.a.peer, MEDIUM);
        call_with(&pair, &parameters, &heard);
        assert_echo(&heard, MEDIUM, false); /* no buffer, and a frame holds it */
        assert_int_equal(n_shared, 2);
        parameters.buffer = buffer_of(pair.a.peer, 1000);
        call_with(&pair, &parameters, &heard);
        assert_echo(&heard, 1000, false);
        assert_int_equal(n_inline, 1);
        /* It may be parsed where it is: a type makes no difference. */
        parameters.type = "a.Message";
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        call_with(&pair, &parameters, &heard);
        assert_echo(&heard, LARGE, true);
        /* Trimmed; to less than is worth it; to nothing; never sent. */
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        assert_int_equal(peer_buffer_trim(parameters.buffer, LARGE + 1), -ERANGE);
        assert_int_equal(peer_buffer_trim(parameters.buffer, MEDIUM + 13), 0);
        call_with(&pair, &parameters, &heard);
        assert_echo(&heard, MEDIUM + 13, false);
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        assert_int_equal(peer_buffer_trim(parameters.buffer, 5), 0);
        call_with(&pair, &parameters, &heard);
        assert_echo(&heard, 5, false);
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        assert_int_equal(peer_buffer_trim(parameters.buffer, 0), 0);
        call_with(&pair, &parameters, &heard);
        assert_echo(&heard, 0, false);
        buffer = buffer_of(pair.a.peer, LARGE);
        pair_close(&pair);
        (void) peer_buffer_free(buffer);
}

/* Plain payloads, with and without descriptors beside them, and up to the last byte that a frame takes. */
static void test_payloads(void **state) {
        CallParameters parameters = { .method = "length", .payload = pattern(LARGE), .size = LARGE };
        unsigned before;
        Heard heard;
        Pair pair;
        int fds[2];

        (void) state;
        pair_open(&pair);
        call_with(&pair, &parameters, &heard);
        assert_int_equal(heard.status, STATUS_OK);
        assert_int_equal(n_shared, 1);
        assert_int_equal(pipe(fds), 0);
        parameters.method = "fds";
        parameters.fds_consume = fds;
        parameters.n_fds = 1;
        call_with(&pair, &parameters, &heard);
        fd_close(fds[1]);
        assert_echo(&heard, LARGE, true);
        parameters = (CallParameters){ .method = "length", .payload = pattern(LARGE) };
        before = n_inline;
        for (parameters.size = (8u << 20) - 120; parameters.size < (8u << 20); parameters.size++) {
                call_with(&pair, &parameters, &heard);
                assert_int_equal(heard.status, STATUS_OK);
        }
        assert_true(n_inline > before && n_shared > 2);
        pair_close(&pair);
}

/* What was asked before Hello, when nobody knew what the peer takes. */
static void test_before_hello(void **state) {
        CallParameters parameters = { .method = "length", .payload = pattern(LARGE), .size = LARGE };
        PeerLimits none = { 0 };
        Heard heard[2];
        Pair pair;

        (void) state;
        pair_open_with(&pair, NULL, PEER_OBJECTS_MAP, NULL, PEER_OBJECTS_MAP);
        start(&pair, &parameters, &heard[0]);
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        start(&pair, &parameters, &heard[1]);
        test_settle(pair.all, 2);
        for (int i = 0; i < 2; i++)
                assert_int_equal(heard[i].status, STATUS_OK);
        assert_int_equal(n_shared, 2);
        pair_close(&pair);

        pair_open_with(&pair, NULL, PEER_OBJECTS_MAP, &none, PEER_OBJECTS_NONE);
        parameters.buffer = NULL;
        call_with(&pair, &parameters, &heard[0]);
        assert_int_equal(heard[0].status, STATUS_RESOURCE_EXHAUSTED);
        pair_close(&pair);

        /* No memory when it comes to it. */
        pair_open_with(&pair, NULL, PEER_OBJECTS_MAP, NULL, PEER_OBJECTS_MAP);
        start(&pair, &parameters, &heard[0]);
        seam_fail(SEAM_MEMFD_CREATE, 1, EMFILE);
        test_settle(pair.all, 2);
        seam_pass(SEAM_MEMFD_CREATE);
        assert_int_equal(heard[0].status, STATUS_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(heard[0].message, "no memory for an object"));
        pair_close(&pair);
}

/* Items: a window that they do not fit in, both ways. */
static void test_items(void **state) {
        CallParameters parameters = { .method = "items", .item = on_answer_item };
        ItemParameters item = { .payload = pattern(LARGE), .size = WINDOW + 1 };
        Heard heard;
        Call *call;
        Pair pair;

        (void) state;
        pair_open(&pair);
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        call_with(&pair, &parameters, &heard);
        assert_int_equal(heard.status, STATUS_OK);
        assert_int_equal(heard.n_items, 1);
        assert_int_equal(n_shared, 2);

        heard = (Heard){ 0 };
        parameters = (CallParameters){ .method = "m", .stream = true };
        test_n_kept = 0;
        assert_int_equal(call_start(pair.a.peer, &parameters, on_done, &heard, &call), 0);
        test_settle(pair.all, 2);
        for (unsigned i = 0; i < 100; i++) { /* credit comes back */
                assert_int_equal(call_send(call, &item), 0);
                test_settle(pair.all, 2);
        }
        item = (ItemParameters){ .buffer = buffer_of(pair.a.peer, LARGE) };
        assert_int_equal(call_send(call, &item), 0);
        assert_int_equal(call_end(call), 0);
        test_settle(pair.all, 2);
        assert_int_equal(n_items_up, 102);
        assert_int_equal(n_shared, 103);
        test_end_kept(0);
        test_settle(pair.all, 2);
        assert_int_equal(heard.n, 1);
        pair_close(&pair);
}

/* An item that was not taken waits in its place, and its bytes with it. */
static bool refuse_first(Call *call, const Item *item, void *userdata) {
        Heard *heard = userdata;

        if (heard->n_items == 0) {
                heard->n_items = 1;
                return false;
        }
        return on_answer_item(call, item, heard);
}

static void test_item_waits(void **state) {
        CallParameters parameters = { .method = "items", .item = refuse_first };
        Heard heard = { 0 };
        Call *call;
        Pair pair;

        (void) state;
        pair_open(&pair);
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        assert_int_equal(call_start(pair.a.peer, &parameters, on_done, &heard, &call), 0);
        test_settle(pair.all, 2);
        assert_int_equal(heard.n, 0); /* the answer, an object too, waits behind it */
        call_resume(call);
        test_settle(pair.all, 2);
        assert_int_equal(heard.n_items, 2);
        assert_echo(&heard, LARGE, true);
        pair_close(&pair);
}

/* ---- limits */

static void test_not_accepted(void **state) {
        static const char *const said =
                "the call has 20971520 bytes, the peer accepts frames of 8388608 and objects of 0";
        CallParameters parameters = { .method = "m" };
        Heard heard;
        Pair pair;

        (void) state;
        pair_open_with(&pair, NULL, PEER_OBJECTS_MAP, NULL, PEER_OBJECTS_NONE);
        test_settle(pair.all, 2);
        parameters.buffer = buffer_of(pair.a.peer, MEDIUM);
        call_with(&pair, &parameters, &heard);
        assert_echo(&heard, MEDIUM, false);
        assert_int_equal(n_shared, 0);
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        call_with(&pair, &parameters, &heard);
        assert_int_equal(heard.status, STATUS_RESOURCE_EXHAUSTED);
        assert_string_equal(heard.message, said);
        pair_close(&pair);
}

/* A buffer that was made for another peer, which takes objects, goes as what this one takes. */
static void test_other_peer(void **state) {
        CallParameters parameters = { .method = "m" };
        Pair pair, other;
        Heard heard;

        (void) state;
        pair_open(&pair);
        pair_open_with(&other, NULL, PEER_OBJECTS_MAP, NULL, PEER_OBJECTS_NONE);
        test_settle(other.all, 2);
        parameters.buffer = buffer_of(pair.a.peer, MEDIUM);
        call_with(&other, &parameters, &heard);
        assert_echo(&heard, MEDIUM, false);
        assert_int_equal(n_shared, 0);
        pair_close(&other);
        pair_close(&pair);
}

static void test_answer_too_large(void **state) {
        const PeerLimits limits = { .max_object = MEDIUM };
        CallParameters parameters = { .method = "m" };
        Heard heard;
        Pair pair;

        (void) state;
        pair_open_with(&pair, &limits, PEER_OBJECTS_MAP, NULL, PEER_OBJECTS_MAP);
        test_settle(pair.all, 2);
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        call_with(&pair, &parameters, &heard);
        assert_int_equal(heard.status, STATUS_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(heard.message,
                               "the answer has 20971520 bytes and 0 descriptors; accepted are frames of "
                               "8388608, objects of 2097152, and 64"));
        pair_close(&pair);
}

/* What is held counts, also when its peer is gone and back; what is released does not. */
static void test_held(void **state) {
        const PeerLimits limits = { .max_object = LARGE + MEDIUM };
        CallParameters parameters = { .method = "length" };
        Heard heard;
        Pair pair;

        (void) state;
        pair_open_with(&pair, NULL, PEER_OBJECTS_MAP, &limits, PEER_OBJECTS_MAP);
        test_settle(pair.all, 2);
        keep_views = true;
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        call_with(&pair, &parameters, &heard);
        assert_int_equal(heard.status, STATUS_OK);
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        call_with(&pair, &parameters, &heard);
        assert_int_equal(heard.status, STATUS_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(heard.message, "more than is accepted together with those that are held"));
        assert_int_equal(peer_renew(pair.b.peer, 1), 0);
        test_settle(pair.all, 2);
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        call_with(&pair, &parameters, &heard);
        assert_int_equal(heard.status, STATUS_RESOURCE_EXHAUSTED);
        peer_view_release(pair.b.peer, &kept[0]);
        parameters.buffer = buffer_of(pair.a.peer, LARGE);
        call_with(&pair, &parameters, &heard);
        assert_int_equal(heard.status, STATUS_OK);
        /* It stays what it is when everybody else is gone. */
        pair_close(&pair);
        assert_true(is_pattern(kept[1].memory, kept[1].size));
        arena_view_release(&kept[1]);
}

/* ---- memory */

static const SeamCall sender_calls[] = { SEAM_MEMFD_CREATE, SEAM_FTRUNCATE, SEAM_MMAP,
                                         SEAM_MALLOC,       SEAM_CALLOC,    SEAM_FCNTL };

/* Whatever fails at the sender: the buffer is private memory, or a copy is made, or the call fails; no more. */
static void test_sender_fails(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(sender_calls); i++) {
                for (unsigned nth = 1; nth < 12; nth++) {
                        CallParameters parameters = { .method = "m" };
                        Heard heard = { 0 };
                        size_t room;
                        Pair pair;
                        int r;

                        pair_open(&pair);
                        seam_fail(sender_calls[i], nth, ENOMEM);
                        r = peer_buffer_new(pair.a.peer, MEDIUM, &parameters.buffer);
                        if (r == 0) {
                                memcpy(peer_buffer_data(parameters.buffer, &room), pattern(MEDIUM), MEDIUM);
                                r = call_start(pair.a.peer, &parameters, on_done, &heard, NULL);
                        }
                        seam_pass(sender_calls[i]);
                        assert_true(r == 0 || r == -ENOMEM);
                        test_settle(pair.all, 2);
                        if (r == 0)
                                assert_echo(&heard, MEDIUM, false);
                        pair_close(&pair);
                }
        }
}

/* An item that could not be made into an object can be sent again: its buffer is as it was. */
static void test_item_again(void **state) {
        CallParameters parameters = { .method = "m", .stream = true };
        ItemParameters item = { 0 };
        Heard heard = { 0 };
        size_t room;
        Call *call;
        Pair pair;

        (void) state;
        pair_open(&pair);
        test_n_kept = 0;
        assert_int_equal(call_start(pair.a.peer, &parameters, on_done, &heard, &call), 0);
        test_settle(pair.all, 2);
        item.buffer = buffer_of(pair.a.peer, MEDIUM);
        seam_fail_always(SEAM_FCNTL, EBUSY); /* no sealing */
        assert_int_equal(call_send(call, &item), -EBUSY);
        seam_pass(SEAM_FCNTL);
        *(uint8_t *) peer_buffer_data(item.buffer, &room) = 3; /* can be written */
        assert_int_equal(call_send(call, &item), 0);
        assert_int_equal(call_end(call), 0);
        test_settle(pair.all, 2);
        assert_int_equal(n_items_up, 2);
        assert_int_equal(n_shared, 1);
        test_end_kept(0);
        test_settle(pair.all, 2);
        pair_close(&pair);
}

/* ---- by hand */

typedef enum Kind { SEALED, UNSEALED, NO_WRITE_SEAL, PIPE, NOTHING, ABSENT } Kind;

/* make_fd() - 4,096 bytes of it. */
static int make_fd(Kind kind) {
        static const uint8_t bytes[4096];
        void *memory;
        int fd = -1, pipes[2];

        switch (kind) {
        case SEALED:
                assert_int_equal(memfd_sealed("test", bytes, sizeof(bytes), &fd), 0);
                return fd;
        case UNSEALED:
                fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
                assert_int_equal(ftruncate(fd, sizeof(bytes)), 0);
                return fd;
        case NO_WRITE_SEAL:
                assert_int_equal(memfd_shared("test", sizeof(bytes), 0, &fd, &memory), 0);
                assert_int_equal(munmap(memory, sizeof(bytes)), 0);
                return fd;
        case PIPE:
                assert_int_equal(pipe(pipes), 0);
                fd_close(pipes[1]);
                return pipes[0];
        default:
                return -1;
        }
}

static const struct {
        const char *what;
        Kind kind;
        uint64_t size;
        const char *method, *payload;
        Status status;
        const char *said;
} foreign[] = {
        { "fine", SEALED, 4096, "length", NULL, STATUS_OK, "" },
        { "not sealed", UNSEALED, 4096, "m", NULL, STATUS_INVALID_ARGUMENT, "not sealed" },
        { "can be written", NO_WRITE_SEAL, 4096, "m", NULL, STATUS_INVALID_ARGUMENT, "not sealed" },
        { "no memfd", PIPE, 4096, "m", NULL, STATUS_INVALID_ARGUMENT, "not a memfd" },
        { "shorter", SEALED, 4097, "m", NULL, STATUS_INVALID_ARGUMENT, "another size" },
        { "longer", SEALED, 4095, "m", NULL, STATUS_INVALID_ARGUMENT, "another size" },
        { "none listed", NOTHING, 4096, "m", NULL, STATUS_INVALID_ARGUMENT, "without a descriptor" },
        { "not there", ABSENT, 4096, "m", NULL, STATUS_INVALID_ARGUMENT, "was not sent" },
        { "beside a payload", SEALED, 4096, "m", "x", STATUS_INVALID_ARGUMENT, "beside a payload" },
        { "of baton's own", SEALED, 4096, "baton.Runner/Ping", NULL, STATUS_INVALID_ARGUMENT, "baton's own" },
        { "too large", SEALED, 65537, "m", NULL, STATUS_RESOURCE_EXHAUSTED, "65537 bytes, accepted are 65536" },
        { "all bits", SEALED, UINT64_MAX, "m", NULL, STATUS_RESOURCE_EXHAUSTED, "accepted are 65536" },
};

/* give_fd() - over the lane, with the next id; what to list. */
static size_t give_fd(TestBench *bench, Kind kind, uint64_t *ret_id) {
        static uint32_t n;
        int fd = make_fd(kind);

        n = bench->test.channels ? n + 1 : 3;
        bench->test.channels = 1; /* of this test's alone */
        *ret_id = test_raw_fd_id(&bench->raw, 0, n);
        if (fd >= 0)
                test_raw_lane(&bench->raw, *ret_id, 8, fd, 1);
        else
                n--;
        fd_close(fd);
        return kind == NOTHING ? 0 : 1;
}

static void next_frame(TestBench *bench, Baton__Kind kind) {
        do
                assert_true(test_raw_read(&bench->raw, CHANNEL_RPC));
        while (bench->raw.last->kind != kind);
}

static void bench_open(TestBench *bench, PeerObjects objects) {
        static const PeerLimits limits = { .max_object = 65536 };
        const PeerConfig config = {
                .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_NONE, .limits = &limits, .objects = objects
        };

        *bench = (TestBench){ .test = { .on_call = echo } };
        test_bench_ready(bench, &config);
        bench->test.channels = 0;
}

static void test_foreign_calls(void **state) {
        TestBench bench;
        uint64_t id = 1;

        (void) state;
        bench_open(&bench, PEER_OBJECTS_MAP);
        for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
                RawFrame frame = { .kind = BATON__KIND__CALL,
                                   .id = id += 2,
                                   .method = foreign[i].method,
                                   .payload = foreign[i].payload,
                                   .object = foreign[i].size,
                                   .end = true };

                frame.n_fds = give_fd(&bench, foreign[i].kind, frame.fds);
                if (foreign[i].status == STATUS_OK) /* bytes 0, which are no pattern */
                        bench.test.on_call = NULL;
                test_raw_send(&bench.raw, &frame);
                test_bench_settle(&bench);
                bench.test.on_call = echo;
                next_frame(&bench, BATON__KIND__ANSWER);
                if (bench.raw.last->id != id || bench.raw.last->status != foreign[i].status ||
                    !strstr(bench.raw.last->message, foreign[i].said))
                        fail_msg("%s: %s, %s", foreign[i].what, status_name(bench.raw.last->status),
                                 bench.raw.last->message);
        }
        /* Where there is no memory for the mapping. */
        {
                RawFrame frame = { .kind = BATON__KIND__CALL, .id = id += 2, .method = "m", .object = 4096 };

                frame.n_fds = give_fd(&bench, SEALED, frame.fds);
                seam_fail_always(SEAM_MMAP, ENOMEM);
                test_raw_send(&bench.raw, &frame);
                test_bench_settle(&bench);
                seam_pass(SEAM_MMAP);
                next_frame(&bench, BATON__KIND__ANSWER);
                assert_int_equal(bench.raw.last->status, STATUS_RESOURCE_EXHAUSTED);
                assert_non_null(strstr(bench.raw.last->message, strerror(ENOMEM)));
        }
        test_bench_alive(&bench, "calls");
        test_bench_close(&bench);
}

/* Where none are accepted, and where they are passed on. */
static void test_foreign_elsewhere(void **state) {
        static const PeerObjects uses[] = { PEER_OBJECTS_NONE, PEER_OBJECTS_PASS };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(uses); i++) {
                RawFrame frame = { .kind = BATON__KIND__CALL, .id = 3, .method = "m", .object = 4096, .end = true };
                TestBench bench;

                bench_open(&bench, uses[i]);
                bench.test.on_call = NULL; /* echoes descriptors, too */
                frame.n_fds = give_fd(&bench, PIPE, frame.fds);
                test_raw_send(&bench.raw, &frame);
                test_bench_settle(&bench);
                next_frame(&bench, BATON__KIND__ANSWER);
                assert_int_equal(bench.raw.last->status,
                                 uses[i] == PEER_OBJECTS_NONE ? STATUS_RESOURCE_EXHAUSTED : STATUS_OK);
                assert_int_equal(bench.raw.last->n_fds, uses[i] == PEER_OBJECTS_PASS);
                test_bench_alive(&bench, "elsewhere");
                test_bench_close(&bench);
        }
}

/* The same as answers and items to calls of the engine's: the call ends, the peer lives. */
static void test_foreign_answers(void **state) {
        TestBench bench;

        (void) state;
        bench_open(&bench, PEER_OBJECTS_MAP);
        for (size_t i = 0; i < 2 * ARRAY_SIZE(foreign); i++) {
                bool is_item = i & 1;
                const size_t row = i / 2;
                CallParameters parameters = { .method = "m", .item = is_item ? on_answer_item : NULL };
                RawFrame frame = { .kind = is_item ? BATON__KIND__ITEM : BATON__KIND__ANSWER,
                                   .payload = foreign[row].payload,
                                   .object = foreign[row].size };
                Heard heard = { 0 };

                if (foreign[row].status == STATUS_OK || strncmp(foreign[row].method, "baton.", 6) == 0)
                        continue;
                assert_int_equal(call_start(bench.test.peer, &parameters, on_done, &heard, NULL), 0);
                test_bench_settle(&bench);
                next_frame(&bench, BATON__KIND__CALL);
                frame.id = bench.raw.last->id;
                frame.n_fds = give_fd(&bench, foreign[row].kind, frame.fds);
                test_raw_send(&bench.raw, &frame);
                test_bench_settle(&bench);
                if (heard.n != 1 || heard.status != foreign[row].status || !strstr(heard.message, foreign[row].said))
                        fail_msg("%s, %s: %u %s, %s", foreign[row].what, is_item ? "item" : "answer", heard.n,
                                 status_name(heard.status), heard.message);
                if (is_item) {
                        next_frame(&bench, BATON__KIND__CANCEL);
                        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__ANSWER, .id = frame.id });
                        test_bench_settle(&bench);
                }
        }
        test_bench_alive(&bench, "answers");
        test_bench_close(&bench);
}

/* A late one, and one in a frame that has no payload, are closed like any descriptor. */
static void test_dropped(void **state) {
        TestBench bench;
        RawFrame frame = { .kind = BATON__KIND__ANSWER, .id = 2, .object = 4096 };

        (void) state;
        bench_open(&bench, PEER_OBJECTS_MAP);
        frame.n_fds = give_fd(&bench, SEALED, frame.fds);
        test_raw_send(&bench.raw, &frame);
        frame.kind = BATON__KIND__CREDIT;
        frame.id = 0;
        frame.n_fds = give_fd(&bench, SEALED, frame.fds);
        test_raw_send(&bench.raw, &frame);
        test_bench_alive(&bench, "dropped");
        test_bench_close(&bench);
}

static const struct CMUnitTest tests[] = {
        TEST(test_buffers),
        TEST(test_payloads),
        TEST(test_before_hello),
        TEST(test_items),
        TEST(test_item_waits),
        TEST(test_not_accepted),
        TEST(test_other_peer),
        TEST(test_answer_too_large),
        TEST(test_held),
        TEST(test_sender_fails),
        TEST(test_item_again),
        TEST(test_foreign_calls),
        TEST(test_foreign_elsewhere),
        TEST(test_foreign_answers),
        TEST(test_dropped),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
