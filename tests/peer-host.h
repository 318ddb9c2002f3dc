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
} TestPeer;

extern const PeerHandler test_handler;

/* test_peer_new() - peer_new() with the test as host; asserts that it succeeds. */
void test_peer_new(TestPeer *test, const PeerConfig *config, int lane_fd_consume);
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
