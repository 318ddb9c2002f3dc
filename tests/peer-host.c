/* SPDX-License-Identifier: Apache-2.0 */

/* Host of peers for tests; see the header. */

#include "tests/peer-host.h"

#include <endian.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/cmsg.h"
#include "common/fd.h"
#include "tests/seam.h"
#include "tests/test.h"

static void host_watch(void *host, unsigned slot, int fd, unsigned events) {
        TestPeer *test = host;

        assert_true(events == 0 || test_is_open(fd));
        test->slots[slot].fd = events ? fd : -1;
        test->slots[slot].events = events;
}

static void host_wake(void *host) {
        ((TestPeer *) host)->awake = true;
}

static void host_release(void *host) {
        TestPeer *test = host;

        test->released = true;
        test->peer = NULL;
}

static void on_ready(Peer *peer, bool renewed) {
        TestPeer *test = peer_userdata(peer);

        test->n_ready++;
        test->n_renewed += renewed;
}

static void on_channel(Peer *peer, unsigned n) {
        ((TestPeer *) peer_userdata(peer))->channels |= 1u << n;
}

static void on_call(Peer *peer, Call *call) {
        TestPeer *test = peer_userdata(peer);
        AnswerParameters answer = { .type = call_envelope(call)->type };
        size_t n;
        int *fds;

        if (test->on_call) {
                test->on_call(peer, call);
                return;
        }
        answer.payload = call_payload(call, &answer.size);
        fds = call_fds(call, &n);
        answer.metadata = call_envelope(call)->metadata;
        answer.n_metadata = call_envelope(call)->n_metadata;
        if (n > 0) {
                int copies[64];

                assert_true(n <= ARRAY_SIZE(copies));
                for (size_t i = 0; i < n; i++)
                        copies[i] = fd_take(&fds[i]);
                answer.fds_consume = copies;
                answer.n_fds = n;
                (void) call_answer(call, &answer);
                return;
        }
        (void) call_answer(call, &answer);
}

static void on_ended(Peer *peer, Status status, const char *reason) {
        TestPeer *test = peer_userdata(peer);

        test->n_ended++;
        test->status = status;
        (void) strncpy(test->reason, reason, sizeof(test->reason) - 1);
}

const PeerHandler test_handler = {
        .ready = on_ready,
        .channel = on_channel,
        .call = on_call,
        .ended = on_ended,
};

static const PeerHost host_functions = { host_watch, host_wake, host_release };

int test_peer_try(TestPeer *test, const PeerConfig *config, int lane_fd_consume) {
        *test = (TestPeer){ .on_call = test->on_call, .handler = test->handler };
        for (unsigned slot = 0; slot < _PEER_SLOT_N; slot++)
                test->slots[slot].fd = -1;
        return peer_new(&test->peer, config, lane_fd_consume, &host_functions, test,
                        test->handler ? test->handler : &test_handler, test);
}

void test_peer_new(TestPeer *test, const PeerConfig *config, int lane_fd_consume) {
        assert_int_equal(test_peer_try(test, config, lane_fd_consume), 0);
}

void test_peer_free(TestPeer *test) {
        (void) peer_free(test->peer);
        assert_true(test->released);
        for (unsigned slot = 0; slot < _PEER_SLOT_N; slot++)
                assert_int_equal(test->slots[slot].events, 0);
}

static bool wait_and_dispatch(TestPeer *const *peers, size_t n, int timeout) {
        struct pollfd polls[TEST_PEERS * _PEER_SLOT_N];
        int count;

        for (size_t i = 0; i < n; i++)
                for (unsigned slot = 0; slot < _PEER_SLOT_N; slot++)
                        polls[i * _PEER_SLOT_N + slot] = (struct pollfd){
                                .fd = peers[i]->slots[slot].fd,
                                .events = (short) ((peers[i]->slots[slot].events & PEER_IN ? POLLIN : 0) |
                                                   (peers[i]->slots[slot].events & PEER_OUT ? POLLOUT : 0)),
                        };
        count = poll(polls, n * _PEER_SLOT_N, timeout);
        for (size_t i = 0; i < n; i++)
                for (unsigned slot = 0; slot < _PEER_SLOT_N; slot++) {
                        short events = polls[i * _PEER_SLOT_N + slot].revents;

                        if (!events || !peers[i]->peer || peers[i]->slots[slot].fd < 0)
                                continue;
                        peer_dispatch(peers[i]->peer, slot,
                                      (events & (POLLIN | POLLHUP | POLLERR) ? PEER_IN : 0) |
                                              (events & POLLOUT ? PEER_OUT : 0));
                }
        return count > 0;
}

static bool flush_all(TestPeer *const *peers, size_t n) {
        bool any = false;

        for (size_t i = 0; i < n; i++) {
                while (peers[i]->peer && peers[i]->awake) {
                        peers[i]->awake = false;
                        any = true;
                        peer_flush(peers[i]->peer);
                }
                if (peers[i]->peer && peer_deadline(peers[i]->peer) <= clock_us(CLOCK_MONOTONIC)) {
                        any = true;
                        peer_expire(peers[i]->peer);
                }
        }
        return any;
}

bool test_turn(TestPeer *const *peers, size_t n) {
        bool any;

        assert_true(n <= TEST_PEERS);
        any = flush_all(peers, n);
        any |= wait_and_dispatch(peers, n, 0);
        return any | flush_all(peers, n);
}

void test_settle(TestPeer *const *peers, size_t n) {
        while (test_turn(peers, n))
                ;
}

void test_until(TestPeer *const *peers, size_t n, const unsigned *flag, unsigned value) {
        uint64_t give_up = clock_us(CLOCK_MONOTONIC) + 5000000;

        while (*flag < value) {
                (void) flush_all(peers, n);
                if (*flag >= value)
                        break;
                (void) wait_and_dispatch(peers, n, 10);
                (void) flush_all(peers, n);
                assert_true(clock_us(CLOCK_MONOTONIC) < give_up);
        }
}

void test_done(Call *call, const Answer *answer, void *userdata) {
        TestAnswer *heard = userdata;

        (void) call;
        heard->n++;
        heard->status = answer->status;
        heard->local = answer->local;
        (void) strncpy(heard->message, answer->message, sizeof(heard->message) - 1);
        (void) strncpy(heard->type, answer->envelope->type, sizeof(heard->type) - 1);
        heard->size = answer->size;
        memcpy(heard->payload, answer->payload ? answer->payload : (const uint8_t *) "",
               MIN(answer->size, sizeof(heard->payload)));
        heard->n_fds = MIN(answer->n_fds, ARRAY_SIZE(heard->fds));
        for (size_t i = 0; i < heard->n_fds; i++)
                heard->fds[i] = fd_take(&answer->fds[i]);
        if (answer->envelope->n_details > 0)
                (void) strncpy(heard->detail, answer->envelope->details[0]->type, sizeof(heard->detail) - 1);
}

Call *test_kept[2048];
unsigned test_n_kept, test_n_cancelled;

static void count_cancel(Call *call, void *userdata) {
        (void) call;
        (void) userdata;
        test_n_cancelled++;
}

void test_keep(Peer *peer, Call *call) {
        (void) peer;
        assert_true(test_n_kept < ARRAY_SIZE(test_kept));
        test_kept[test_n_kept++] = call;
        call_on_cancel(call, count_cancel, NULL);
}

void test_end_kept(int result) {
        for (unsigned i = 0; i < test_n_kept; i++)
                assert_int_equal(call_answer(test_kept[i], &(AnswerParameters){ 0 }), result);
        test_n_kept = test_n_cancelled = 0;
}

/* ---- by hand ---- */

int test_raw_open(TestRaw *raw, unsigned side) {
        int fds[2];

        *raw = (TestRaw){ .side = side, .channels = { -1, -1, -1 } };
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        raw->lane = fds[0];
        return fds[1];
}

static void raw_forget(TestRaw *raw) {
        if (raw->last)
                baton__envelope__free_unpacked(raw->last, NULL);
        raw->last = NULL;
        free(raw->body);
        raw->body = NULL;
}

void test_raw_close(TestRaw *raw) {
        raw_forget(raw);
        raw->lane = fd_close(raw->lane);
        fd_close_all(raw->channels, LANE_CHANNELS);
}

void test_raw_send_channel(TestRaw *raw, unsigned n, uint64_t id) {
        uint64_t wire = htole64(id);
        int fds[2];

        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        raw->channels[n] = fd_close(raw->channels[n]);
        raw->channels[n] = fds[0];
        assert_int_equal(cmsg_send(raw->lane, &wire, sizeof(wire), &fds[1], 1), 8);
        fd_close(fds[1]);
}

void test_raw_take_channels(TestRaw *raw, unsigned n) {
        for (unsigned i = 0; i < n; i++) {
                CmsgInfo info = { 0 };
                uint64_t id;

                assert_true(test_readable(raw->lane));
                assert_int_equal(cmsg_receive(raw->lane, &id, sizeof(id), &raw->channels[i], 1, &info), 8);
                assert_int_equal(info.n_fds, 1);
                assert_int_equal((uint32_t) le64toh(id), i);
        }
}

void test_raw_lane(TestRaw *raw, uint64_t id, size_t size, int fd, unsigned n) {
        uint64_t wire = htole64(id);
        int fds[8];

        for (unsigned i = 0; i < n; i++)
                fds[i] = fd;
        assert_int_equal(cmsg_send(raw->lane, &wire, size, fds, n), (int) size);
}

void test_raw_bytes(TestRaw *raw, unsigned n, const void *data, size_t size) {
        assert_int_equal(send(raw->channels[n], data, size, MSG_NOSIGNAL), (ssize_t) size);
}

void test_raw_frame(TestRaw *raw, unsigned n, Baton__Envelope *envelope, const void *payload, size_t size) {
        size_t packed = baton__envelope__get_packed_size(envelope);
        uint32_t lengths[2] = { htobe32((uint32_t) (4 + packed + size)), htobe32((uint32_t) packed) };
        uint8_t *frame = malloc(8 + packed + size);

        assert_non_null(frame);
        memcpy(frame, lengths, 8);
        baton__envelope__pack(envelope, frame + 8);
        if (size)
                memcpy(frame + 8 + packed, payload, size);
        test_raw_bytes(raw, n, frame, 8 + packed + size);
        free(frame);
}

void test_raw_hello(TestRaw *raw) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;
        Baton__Hello hello = BATON__HELLO__INIT;

        hello.protocol_min = hello.protocol_max = 1;
        hello.software = (char *) "raw 1";
        envelope.kind = BATON__KIND__HELLO;
        envelope.hello = &hello;
        test_raw_frame(raw, 0, &envelope, NULL, 0);
}

static bool raw_read_all(int fd, void *data, size_t size) {
        for (size_t have = 0; have < size;) {
                ssize_t n;

                assert_true(test_readable(fd));
                n = cmsg_read(fd, (uint8_t *) data + have, size - have);
                if (n == 0)
                        return false;
                assert_true(n > 0);
                have += (size_t) n;
        }
        return true;
}

bool test_raw_read(TestRaw *raw, unsigned n) {
        uint32_t length, packed;

        raw_forget(raw);
        if (!raw_read_all(raw->channels[n], &length, sizeof(length)))
                return false;
        length = be32toh(length);
        assert_true(length >= 4 && length < 64 * 1024 * 1024);
        raw->body = malloc(length);
        assert_non_null(raw->body);
        assert_true(raw_read_all(raw->channels[n], raw->body, length));
        memcpy(&packed, raw->body, sizeof(packed));
        packed = be32toh(packed);
        assert_true(packed <= length - 4);
        raw->last = baton__envelope__unpack(NULL, packed, raw->body + 4);
        assert_non_null(raw->last);
        raw->payload = raw->body + 4 + packed;
        raw->size = length - 4 - packed;
        return true;
}

void test_raw_send(TestRaw *raw, const RawFrame *frame) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;

        envelope.kind = frame->kind;
        envelope.id = frame->id;
        envelope.method = (char *) (frame->method ? frame->method : "");
        envelope.message = (char *) (frame->message ? frame->message : "");
        envelope.type = (char *) (frame->type ? frame->type : "");
        envelope.timeout_us = frame->timeout_us;
        envelope.status = frame->status;
        envelope.fd_credit = frame->fd_credit;
        envelope.fds = (uint64_t *) frame->fds;
        envelope.n_fds = frame->n_fds;
        envelope.object = frame->object;
        envelope.end = frame->end;
        envelope.hello = (Baton__Hello *) frame->hello;
        test_raw_frame(raw, frame->channel, &envelope, frame->payload, frame->payload ? strlen(frame->payload) : 0);
}

void test_raw_expect(TestRaw *raw, unsigned channel, Baton__Kind kind, uint64_t id) {
        assert_true(test_raw_read(raw, channel));
        assert_int_equal(raw->last->kind, kind);
        assert_int_equal(raw->last->id, id);
}

uint64_t test_raw_fd_id(const TestRaw *raw, uint32_t epoch, uint32_t n) {
        return (uint64_t) epoch << 32 | (uint64_t) n << 1 | raw->side;
}

int test_raw_take(TestRaw *raw, uint64_t id) {
        CmsgInfo info = { 0 };
        uint64_t wire = 0;
        int fd = -1;

        assert_true(test_readable(raw->lane));
        assert_int_equal(cmsg_receive(raw->lane, &wire, sizeof(wire), &fd, 1, &info), 8);
        assert_int_equal(info.n_fds, 1);
        assert_int_equal(le64toh(wire), id);
        return fd;
}

bool test_raw_silent(int fd) {
        struct pollfd p = { .fd = fd, .events = POLLIN };

        return poll(&p, 1, 0) == 0;
}

/* ---- an engine and a raw other side ---- */

void test_bench_open(TestBench *bench, const PeerConfig *config) {
        int lane = test_raw_open(&bench->raw, 1 - config->side);

        bench->all[0] = &bench->test;
        bench->n_channels = config->n_channels;
        test_peer_new(&bench->test, config, lane);
        test_bench_settle(bench);
        if (config->side == 0)
                test_raw_take_channels(&bench->raw, config->n_channels);
        else
                for (unsigned n = 0; n < config->n_channels; n++)
                        test_raw_send_channel(&bench->raw, n, n);
        test_bench_settle(bench);
}

void test_bench_ready(TestBench *bench, const PeerConfig *config) {
        test_bench_open(bench, config);
        test_raw_expect(&bench->raw, CHANNEL_RPC, BATON__KIND__HELLO, 0);
        test_raw_hello(&bench->raw);
        test_bench_settle(bench);
        assert_int_equal(bench->test.n_ready, 1);
}

void test_bench_settle(TestBench *bench) {
        test_settle(bench->all, 1);
}

void test_bench_close(TestBench *bench) {
        test_peer_free(&bench->test);
        test_raw_close(&bench->raw);
}

/* read_to_end() - the raw side's lane: everything that still comes is closed, then EOF. */
static void read_to_end(int lane) {
        CmsgInfo info = { 0 };
        uint64_t wire;
        ssize_t n;
        int fds[4];

        do {
                assert_true(test_readable(lane));
                n = cmsg_receive(lane, &wire, sizeof(wire), fds, ARRAY_SIZE(fds), &info);
                assert_true(n >= 0);
                fd_close_all(fds, info.n_fds);
        } while (n > 0);
}

void test_bench_ended(TestBench *bench, const char *what, Status status, const char *fragment, bool told) {
        TestPeer *test = &bench->test;
        bool closed = false;

        test_bench_settle(bench);
        if (test->n_ended != 1 || test->status != status || !strstr(test->reason, fragment))
                fail_msg("%s: ended %u times with %s, \"%s\"; expected %s, \"%s\"", what, test->n_ended,
                         status_name(test->status), test->reason, status_name(status), fragment);
        while (bench->raw.channels[0] >= 0 && test_raw_read(&bench->raw, CHANNEL_RPC)) {
                const Baton__Envelope *last = bench->raw.last;

                if (closed || (last->kind == BATON__KIND__CLOSE &&
                               (!told || last->id || last->status != status || strcmp(last->message, test->reason))))
                        fail_msg("%s: CLOSE said \"%s\"", what, last->message);
                closed = last->kind == BATON__KIND__CLOSE;
        }
        if (closed != told)
                fail_msg("%s: CLOSE was%s sent", what, closed ? "" : " not");
        read_to_end(bench->raw.lane);
}

void test_bench_alive(TestBench *bench, const char *what) {
        static uint64_t n = 100000; /* ids of one bench must rise; nobody minds if they jump */
        void (*before)(Peer *, Call *) = bench->test.on_call;
        uint64_t id = 2 * n++ + bench->raw.side;

        test_bench_settle(bench);
        if (bench->test.n_ended)
                fail_msg("%s: ended with %s, \"%s\"", what, status_name(bench->test.status), bench->test.reason);
        bench->test.on_call = NULL;
        test_raw_send(&bench->raw, &(RawFrame){ .kind = BATON__KIND__CALL, .id = id, .method = "alive", .end = true });
        test_bench_settle(bench);
        do
                assert_true(test_raw_read(&bench->raw, CHANNEL_RPC));
        while (bench->raw.last->kind != BATON__KIND__ANSWER || bench->raw.last->id != id);
        assert_int_equal(bench->raw.last->status, STATUS_OK);
        bench->test.on_call = before;
}

void test_bench_expire(TestBench *bench, uint64_t us) {
        seam_clock_advance(us);
        assert_true(peer_deadline(bench->test.peer) <= clock_now());
        peer_expire(bench->test.peer);
        test_bench_settle(bench);
}

uint64_t test_raw_call(TestBench *bench, unsigned n, const RawFrame *frame) {
        RawFrame call = frame ? *frame : (RawFrame){ 0 };

        call.kind = BATON__KIND__CALL;
        call.id = 2 * n + bench->raw.side;
        call.method = "m";
        call.end = true;
        test_raw_send(&bench->raw, &call);
        test_bench_settle(bench);
        return call.id;
}

uint64_t test_engine_call(TestBench *bench, uint64_t timeout_us, TestAnswer *answer, Call **ret_call) {
        CallParameters parameters = { .method = "m", .timeout_us = timeout_us };

        assert_int_equal(call_start(bench->test.peer, &parameters, test_done, answer, ret_call), 0);
        test_bench_settle(bench);
        assert_true(test_raw_read(&bench->raw, CHANNEL_RPC));
        assert_int_equal(bench->raw.last->kind, BATON__KIND__CALL);
        assert_true(bench->raw.last->end);
        return bench->raw.last->id;
}

void test_raw_expect_answer(TestRaw *raw, uint64_t id, Status status, const char *fragment) {
        test_raw_expect(raw, CHANNEL_RPC, BATON__KIND__ANSWER, id);
        assert_int_equal(raw->last->status, status);
        assert_non_null(strstr(raw->last->message, fragment));
}
