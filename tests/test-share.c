/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Shared memory between two peers of the engine: large payloads of calls, items and answers by block, small ones inline;
 * blocks come back; what is kept outlives callback and peer; without agreement everything is inline. And by hand: blocks
 * that are none.
 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/memfd.h"
#include "proto/arena.pb-c.h"
#include "tests/peer-host.h"
#include "tests/test.h"

#define LARGE ((size_t) 1 << 20)

typedef struct Pair {
        TestPeer a, b;
        TestPeer *all[2];
} Pair;

static unsigned n_shared, n_inline;
static ArenaView kept = { .mapping = NULL };
static bool keep_view;

static void count(const ArenaView *view) {
        n_shared += view != NULL;
        n_inline += view == NULL;
}

static bool is_pattern(const uint8_t *data, size_t size, uint8_t seed) {
        for (size_t i = 0; i < size; i += 997)
                if (data[i] != (uint8_t) (i * 7 + seed))
                        return false;
        return true;
}

static void fill(PeerBuffer *buffer, uint8_t seed) {
        size_t size;
        uint8_t *data = peer_buffer_data(buffer, &size);

        for (size_t i = 0; i < size; i++)
                data[i] = (uint8_t) (i * 7 + seed);
}

/* echo() - the payload into a buffer of our own. */
static void echo(Peer *peer, Call *call) {
        const char *type = call_envelope(call)->type;
        PeerBuffer *buffer;
        size_t size, room;
        const uint8_t *payload = call_payload(call, &size);

        count(call_shared(call));
        assert_int_equal(peer_buffer_new(peer, size, &buffer), 0);
        memcpy(peer_buffer_data(buffer, &room), payload, size);
        (void) call_answer(call, &(AnswerParameters){ .buffer = buffer, .type = type });
}

static void pair_open(Pair *pair, bool a_shares, bool b_shares) {
        PeerConfig config = { .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_PEER, .share = a_shares };
        int fds[2];

        memset(pair, 0, sizeof(*pair));
        n_shared = n_inline = 0;
        pair->all[0] = &pair->a;
        pair->all[1] = &pair->b;
        pair->b.on_call = echo;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        test_peer_new(&pair->a, &config, fds[0]);
        config = (PeerConfig){ .side = 1, .n_channels = 1, .renewal = LANE_RENEWAL_SELF, .share = b_shares };
        test_peer_new(&pair->b, &config, fds[1]);
        test_settle(pair->all, 2);
}

static void pair_close(Pair *pair) {
        test_peer_free(&pair->a);
        test_peer_free(&pair->b);
}

typedef struct Heard {
        unsigned n;
        Status status;
        bool good, shared;
} Heard;

static void on_done(Call *call, const Answer *answer, void *userdata) {
        Heard *heard = userdata;

        (void) call;
        heard->n++;
        heard->status = answer->status;
        heard->shared = answer->shared;
        heard->good = answer->size > 0 && is_pattern(answer->payload, answer->size, 3);
        if (keep_view && answer->shared) {
                kept = *answer->shared;
                *answer->shared = ARENA_VIEW_NULL;
        }
}

static void call_with(Pair *pair, size_t size, const char *type, Heard *heard) {
        CallParameters parameters = { .method = "m", .type = type };

        *heard = (Heard){ 0 };
        assert_int_equal(peer_buffer_new(pair->a.peer, size, &parameters.buffer), 0);
        fill(parameters.buffer, 3);
        assert_int_equal(call_start(pair->a.peer, &parameters, on_done, heard, NULL), 0);
        test_settle(pair->all, 2);
        assert_int_equal(heard->n, 1);
        assert_int_equal(heard->status, STATUS_OK);
        assert_true(heard->good);
}

static void test_payloads(void **state) {
        Heard heard;
        Pair pair;

        (void) state;
        pair_open(&pair, true, true);
        /* The first one makes the arena, and travels inline while it is announced. */
        call_with(&pair, LARGE, NULL, &heard);
        assert_int_equal(n_inline, 1);
        for (int i = 0; i < 200; i++) {
                call_with(&pair, LARGE, NULL, &heard);
                assert_true(heard.shared);
        }
        assert_int_equal(n_shared, 200);
        call_with(&pair, 1000, NULL, &heard);         /* small */
        call_with(&pair, LARGE, "a.Message", &heard); /* to be parsed: never shared */
        assert_false(heard.shared);
        assert_int_equal(n_inline, 3);
        pair_close(&pair);
}

/* Many at once make room for as many: after one round trip the next lot is shared, whole. */
static void test_burst(void **state) {
        PeerBuffer *buffers[16];
        Pair pair;

        (void) state;
        pair_open(&pair, true, true);
        for (unsigned round = 0; round < 2; round++) {
                for (size_t i = 0; i < ARRAY_SIZE(buffers); i++) {
                        assert_int_equal(peer_buffer_new(pair.a.peer, LARGE, &buffers[i]), 0);
                        assert_int_equal(peer_buffer_is_shared(buffers[i]), round > 0);
                }
                for (size_t i = 0; i < ARRAY_SIZE(buffers); i++)
                        (void) peer_buffer_free(buffers[i]);
                test_settle(pair.all, 2);
        }
        pair_close(&pair);

        /* An end before the answer takes what was wanted along. */
        pair_open(&pair, true, true);
        assert_int_equal(peer_buffer_new(pair.a.peer, LARGE, &buffers[0]), 0);
        pair_close(&pair);
        (void) peer_buffer_free(buffers[0]);
}

static void test_not_agreed(void **state) {
        (void) state;
        for (int i = 0; i < 3; i++) {
                Heard heard;
                Pair pair;

                pair_open(&pair, i & 1, i & 2);
                for (int n = 0; n < 3; n++)
                        call_with(&pair, LARGE, NULL, &heard);
                assert_int_equal(n_shared, 0);
                pair_close(&pair);
        }
}

/* What the receiver keeps is not given back, and stays readable when the peer is gone. */
static void test_view_kept(void **state) {
        Heard heard;
        Pair pair;

        (void) state;
        pair_open(&pair, true, true);
        call_with(&pair, LARGE, NULL, &heard);
        keep_view = true;
        call_with(&pair, LARGE, NULL, &heard);
        keep_view = false;
        assert_non_null(kept.mapping);
        pair_close(&pair);
        assert_true(is_pattern(kept.memory, kept.size, 3));
        arena_view_release(&kept);
        assert_null(kept.mapping);
}

/* A buffer that was never sent, trimmed, sent elsewhere, outliving its peer. */
static void test_buffers(void **state) {
        Pair pair, other;
        PeerBuffer *buffer;
        Heard heard;
        size_t size;

        (void) state;
        pair_open(&pair, true, true);
        pair_open(&other, true, true);
        call_with(&pair, LARGE, NULL, &heard);
        assert_int_equal(peer_buffer_new(pair.a.peer, LARGE, &buffer), 0);
        assert_true(peer_buffer_is_shared(buffer));
        assert_int_equal(peer_buffer_trim(buffer, LARGE + 1), -ERANGE);
        assert_int_equal(peer_buffer_trim(buffer, LARGE / 2), 0);
        (void) peer_buffer_data(buffer, &size);
        assert_int_equal(size, LARGE / 2);
        fill(buffer, 3);
        heard = (Heard){ 0 };
        assert_int_equal(
                call_start(other.a.peer, &(CallParameters){ .method = "m", .buffer = buffer }, on_done, &heard, NULL),
                0);
        test_settle(other.all, 2);
        assert_true(heard.good);
        assert_int_equal(peer_buffer_new(pair.a.peer, LARGE, &buffer), 0);
        pair_close(&pair);
        fill(buffer, 1);
        (void) peer_buffer_free(buffer);
        pair_close(&other);
}

/* A call cancelled before it was written: its block is ours again. All memory can be had afterwards. */
static void test_revoked(void **state) {
        PeerBuffer *buffers[64];
        size_t n = 0;
        Heard heard;
        Pair pair;
        Call *call;
        int fds[2];

        (void) state;
        pair_open(&pair, true, true);
        call_with(&pair, LARGE, NULL, &heard);
        for (int i = 0; i < 100; i++) {
                CallParameters parameters = { .method = "m", .fds_consume = fds, .n_fds = 1 };

                assert_int_equal(pipe(fds), 0);
                fd_close(fds[1]);
                assert_int_equal(peer_buffer_new(pair.a.peer, LARGE, &parameters.buffer), 0);
                assert_true(peer_buffer_is_shared(parameters.buffer));
                assert_int_equal(call_start(pair.a.peer, &parameters, on_done, &heard, &call), 0);
                call_cancel(call); /* it waits for the lane */
        }
        while (n < 3) {
                assert_int_equal(peer_buffer_new(pair.a.peer, LARGE, &buffers[n]), 0);
                assert_true(peer_buffer_is_shared(buffers[n++]));
        }
        while (n > 0)
                (void) peer_buffer_free(buffers[--n]);
        pair_close(&pair);
}

/* A renewal ends the arenas; new ones are made. */
static void test_renewal(void **state) {
        Heard heard;
        Pair pair;

        (void) state;
        pair_open(&pair, true, true);
        call_with(&pair, LARGE, NULL, &heard);
        call_with(&pair, LARGE, NULL, &heard);
        assert_true(heard.shared);
        assert_int_equal(peer_renew(pair.b.peer, 1), 0);
        test_settle(pair.all, 2);
        call_with(&pair, LARGE, NULL, &heard);
        assert_false(heard.shared);
        call_with(&pair, LARGE, NULL, &heard);
        assert_true(heard.shared);
        pair_close(&pair);
}

/* ---- by hand ---- */

static void raw_pair(TestRaw *raw, TestPeer *test, bool share) {
        PeerConfig config = { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .share = true };
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;
        Baton__Hello hello = BATON__HELLO__INIT;
        char *features[] = { (char *) "arena" };

        *test = (TestPeer){ .on_call = NULL };
        test_peer_new(test, &config, test_raw_open(raw, 1));
        test_settle(&test, 1);
        test_raw_take_channels(raw, 3);
        hello.protocol_min = hello.protocol_max = 1;
        hello.features = features;
        hello.n_features = share;
        envelope.kind = BATON__KIND__HELLO;
        envelope.hello = &hello;
        test_raw_frame(raw, 0, &envelope, NULL, 0);
        test_settle(&test, 1);
        assert_true(test_raw_read(raw, 0));
        assert_int_equal(raw->last->hello->n_features, 1);
        assert_string_equal(raw->last->hello->features[0], "arena");
}

static void raw_call(TestRaw *raw, TestPeer *test, uint64_t id, const char *method, const void *payload, size_t size,
                     Baton__Block *block, uint64_t fd_id) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;

        envelope.kind = BATON__KIND__CALL;
        envelope.id = id;
        envelope.method = (char *) method;
        envelope.end = true;
        if (block) {
                envelope.blocks = &block;
                envelope.n_blocks = 1;
        }
        if (fd_id) {
                envelope.fds = &fd_id;
                envelope.n_fds = 1;
        }
        test_raw_frame(raw, 0, &envelope, payload, size);
        test_settle(&test, 1);
        do
                assert_true(test_raw_read(raw, 0));
        while (raw->last->kind == BATON__KIND__CREDIT || raw->last->kind == BATON__KIND__CALL);
}

static void announce(TestRaw *raw, TestPeer *test, uint64_t call_id, int fd, uint64_t size) {
        Baton__ArenaAnnounce message = BATON__ARENA_ANNOUNCE__INIT;
        static uint64_t fd_n;
        uint8_t packed[64];

        fd_n = call_id == 3 ? 3 : fd_n + 1;
        message.id = 1;
        message.size = size;
        test_raw_lane(raw, fd_n << 1 | 1, 8, fd, 1);
        raw_call(raw, test, call_id, "baton.Arena/Announce", packed, baton__arena_announce__pack(&message, packed),
                 NULL, fd_n << 1 | 1);
}

static void test_foreign_blocks(void **state) {
        static const struct {
                const char *what;
                uint64_t arena, offset, length;
                Status status;
        } rows[] = {
                { "fine", 1, 4096, 4096, STATUS_OK },
                { "the whole", 1, 0, 65536, STATUS_OK },
                { "another arena", 2, 0, 16, STATUS_INVALID_ARGUMENT },
                { "offset outside", 1, 65536, 16, STATUS_INVALID_ARGUMENT },
                { "length outside", 1, 0, 65537, STATUS_INVALID_ARGUMENT },
                { "wraps", 1, UINT64_MAX, 2, STATUS_INVALID_ARGUMENT },
                { "length 0", 1, 0, 0, STATUS_INVALID_ARGUMENT },
        };
        TestPeer test;
        TestRaw raw;
        void *memory;
        int fd, pipes[2];
        uint64_t id = 3;

        (void) state;
        raw_pair(&raw, &test, true);
        assert_int_equal(pipe(pipes), 0);
        announce(&raw, &test, id, pipes[0], 65536);
        assert_int_equal(raw.last->status, STATUS_INVALID_ARGUMENT); /* no memfd */
        fd_close_all(pipes, 2);
        assert_int_equal(memfd_shared("test", 65536, 0, &fd, &memory), 0);
        memset(memory, 'x', 65536);
        announce(&raw, &test, id += 2, fd, 4096);
        assert_int_equal(raw.last->status, STATUS_INVALID_ARGUMENT); /* of another size */
        announce(&raw, &test, id += 2, fd, 65536);
        assert_int_equal(raw.last->status, STATUS_OK);
        announce(&raw, &test, id += 2, fd, 65536);
        assert_int_equal(raw.last->status, STATUS_INVALID_ARGUMENT); /* id in use */
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                Baton__Block block = BATON__BLOCK__INIT;

                block.arena = rows[i].arena;
                block.offset = rows[i].offset;
                block.length = rows[i].length;
                raw_call(&raw, &test, id += 2, "m", NULL, 0, &block, 0);
                if (raw.last->status != rows[i].status)
                        fail_msg("%s: %u %s", rows[i].what, raw.last->status, raw.last->message);
                if (rows[i].status == STATUS_OK)
                        assert_int_equal(raw.size, rows[i].length);
        }
        /* Released twice, and never given. */
        {
                Baton__ArenaRelease release = BATON__ARENA_RELEASE__INIT;
                Baton__Block block = BATON__BLOCK__INIT, *blocks = &block;
                uint8_t packed[64];

                block.arena = 77;
                block.length = 4096;
                release.blocks = &blocks;
                release.n_blocks = 1;
                raw_call(&raw, &test, id += 2, "baton.Arena/Release", packed,
                         baton__arena_release__pack(&release, packed), NULL, 0);
                assert_int_equal(raw.last->status, STATUS_INVALID_ARGUMENT);
        }
        assert_int_equal(test.n_ended, 0);
        test_peer_free(&test);
        test_raw_close(&raw);
        fd_close(fd);
        assert_int_equal(munmap(memory, 65536), 0);
}

static void test_block_not_agreed(void **state) {
        Baton__Block block = BATON__BLOCK__INIT;
        TestPeer test;
        TestRaw raw;

        (void) state;
        raw_pair(&raw, &test, false);
        raw_call(&raw, &test, 3, "m", NULL, 0, &block, 0);
        assert_int_equal(raw.last->kind, BATON__KIND__CLOSE);
        assert_int_equal(raw.last->status, STATUS_INVALID_ARGUMENT);
        assert_int_equal(test.n_ended, 1);
        test_peer_free(&test);
        test_raw_close(&raw);
}

static const struct CMUnitTest tests[] = {
        TEST(test_payloads),  TEST(test_burst),          TEST(test_not_agreed),
        TEST(test_view_kept), TEST(test_buffers),        TEST(test_revoked),
        TEST(test_renewal),   TEST(test_foreign_blocks), TEST(test_block_not_agreed),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
