#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A host of peers for tests: poll(2) over all slots of all peers, step by step, so that a test decides what happens
 * when. Also the other side written by hand: raw lane messages and raw frames.
 */

#include "proto/peer.h"

#define TEST_PEERS 4

typedef struct TestPeer {
        Peer *peer;
        struct {
                int fd;
                unsigned events;
        } slots[_PEER_SLOT_N];
        bool awake, released;
        /* what was heard of it */
        unsigned n_ready, n_renewed, n_ended;
        Status status;
        char reason[256];
        unsigned channels;                       /* bits: arrived */
        void (*on_call)(Peer *peer, Call *call); /* NULL: echo */
        const PeerHandler *handler;              /* NULL: test_handler */
} TestPeer;

extern const PeerHandler test_handler;

/* test_peer_new() - peer_new() with the test as host; asserts that it succeeds. on_call and handler are kept. */
void test_peer_new(TestPeer *test, const PeerConfig *config, int lane_fd_consume);
/* test_peer_try() - the same, where it may fail: peer_new()'s result. */
int test_peer_try(TestPeer *test, const PeerConfig *config, int lane_fd_consume);
/* test_peer_free() - peer_free() and a check that it was released and nothing is watched. */
void test_peer_free(TestPeer *test);

/* test_turn() - flushes, polls without waiting, dispatches. Returns whether anything happened. */
bool test_turn(TestPeer *const *peers, size_t n);
/* test_settle() - turns until nothing happens any more. */
void test_settle(TestPeer *const *peers, size_t n);
/* test_until() - waits and turns until *flag is at least @value; fails the test after two seconds of silence. */
void test_until(TestPeer *const *peers, size_t n, const unsigned *flag, unsigned value);

/* An answer that was heard. */
typedef struct TestAnswer {
        unsigned n;
        Status status;
        bool local;
        char message[256];
        char type[64];
        uint8_t payload[256];
        size_t size;
        int fds[8];
        size_t n_fds;
        char detail[64];
} TestAnswer;

/* test_done() - a CallDone that fills the TestAnswer given as userdata and takes its descriptors. */
void test_done(Call *call, const Answer *answer, void *userdata);

/* test_keep() - an on_call that keeps calls and counts those that are cancelled. */
void test_keep(Peer *peer, Call *call);
extern Call *test_kept[2048];
extern unsigned test_n_kept, test_n_cancelled;
/* test_end_kept() - answers what was kept, OK; each must return @result. */
void test_end_kept(int result);

/* ---- the other side by hand ---- */

typedef struct TestRaw {
        int lane;
        int channels[LANE_CHANNELS]; /* -1: none */
        unsigned side;
        Baton__Envelope *last; /* of test_raw_read() */
        uint8_t *body;
        const uint8_t *payload;
        size_t size;
} TestRaw;

/* test_raw_open() - a raw side @side; returns the lane's other end. */
int test_raw_open(TestRaw *raw, unsigned side);
void test_raw_close(TestRaw *raw);
/* test_raw_send_channel() - side 0: makes a pair for channel @n and sends the other end with @id. */
void test_raw_send_channel(TestRaw *raw, unsigned n, uint64_t id);
/* test_raw_take_channels() - side 1: receives @n channels in order. */
void test_raw_take_channels(TestRaw *raw, unsigned n);
/* test_raw_lane() - @size bytes of @id in little-endian with @n descriptors (duplicates of @fd). */
void test_raw_lane(TestRaw *raw, uint64_t id, size_t size, int fd, unsigned n);
/* test_raw_bytes() - bytes as they are on channel @n. */
void test_raw_bytes(TestRaw *raw, unsigned n, const void *data, size_t size);
/* test_raw_frame() - a frame with @envelope and @payload on channel @n. */
void test_raw_frame(TestRaw *raw, unsigned n, Baton__Envelope *envelope, const void *payload, size_t size);
void test_raw_hello(TestRaw *raw);
/* test_raw_read() - reads one frame of channel @n, which must be there or come within 2 s; false: EOF. */
bool test_raw_read(TestRaw *raw, unsigned n);

/* A frame in few words; what is not given is absent on the wire. */
typedef struct RawFrame {
        unsigned channel;
        Baton__Kind kind;
        uint64_t id;
        const char *method, *message, *type;
        uint64_t timeout_us;
        uint32_t status, fd_credit;
        uint64_t fds[8];
        size_t n_fds;
        uint64_t object;
        bool end;
        const Baton__Hello *hello;
        const char *payload;
} RawFrame;

void test_raw_send(TestRaw *raw, const RawFrame *frame);
/* test_raw_expect() - the next frame of @channel must be of @kind for @id; it is then raw->last. */
void test_raw_expect(TestRaw *raw, unsigned channel, Baton__Kind kind, uint64_t id);
/* test_raw_fd_id() - the lane id of the raw side's descriptor @n (from 3) in @epoch. */
uint64_t test_raw_fd_id(const TestRaw *raw, uint32_t epoch, uint32_t n);
/* test_raw_take() - receives one lane message, which must be @id; returns the descriptor. */
int test_raw_take(TestRaw *raw, uint64_t id);
/* test_raw_silent() - whether nothing is to be read on @fd. */
bool test_raw_silent(int fd);

/* ---- an engine and a raw other side ---- */

typedef struct TestBench {
        TestPeer test, *all[1];
        TestRaw raw;
        unsigned n_channels;
} TestBench;

/*
 * test_bench_open() - the engine as @config says, the other side raw; the channels are handed over, the engine's Hello
 * waits to be read. bench->test.on_call and handler are kept.
 */
void test_bench_open(TestBench *bench, const PeerConfig *config);
/* test_bench_ready() - the same, and Hello was exchanged. */
void test_bench_ready(TestBench *bench, const PeerConfig *config);
void test_bench_settle(TestBench *bench);
void test_bench_close(TestBench *bench);
/*
 * test_bench_ended() - turns, then the engine must have ended, once, with @status and a reason that contains @fragment;
 * with @told the raw side finds the same in a CLOSE frame. Lane and channel 0 are at their end. @what names the case.
 */
void test_bench_ended(TestBench *bench, const char *what, Status status, const char *fragment, bool told);
/* test_bench_alive() - turns, then the engine must not have ended, and must answer a call of the raw side. */
void test_bench_alive(TestBench *bench, const char *what);
/* test_bench_expire() - moves the seam's clock by @us, to a deadline of the engine's, and tells it. */
void test_bench_expire(TestBench *bench, uint64_t us);
/* test_raw_call() - CALL @n of the raw side, with what else @frame says (NULL: nothing). Returns its id. */
uint64_t test_raw_call(TestBench *bench, unsigned n, const RawFrame *frame);
/* test_engine_call() - a call of the engine's without descriptors, read by the raw side. Returns its id. */
uint64_t test_engine_call(TestBench *bench, uint64_t timeout_us, TestAnswer *answer, Call **ret_call);
/* test_raw_expect_answer() - the next frame of channel 0 must be an ANSWER with @status and @fragment in its message. */
void test_raw_expect_answer(TestRaw *raw, uint64_t id, Status status, const char *fragment);
