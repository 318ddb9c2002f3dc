/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes the whole RPC engine: the input is what a peer does, and what the application meanwhile does. Frames are given
 * as Envelopes, so that the fuzzer need not find their lengths, or as bytes, so that it may. Whatever is sent: nobody
 * crashes, every call of ours is told its end at most once, and exactly once when the peer has ended, no descriptor is
 * left open; and the short way of unpacking an Envelope agrees with protobuf-c's.
 *
 * First byte: bit 0 the engine's side, bits 1-2 who renews, bit 3 no Hello at the start, bits 4-5 the number of channels.
 * Then records: what to do (1 byte), size of the data (1 byte), data. With bit 5 of what to do it concerns a stream. What
 * an application does with an item that it gets is said by the item.
 */

#include <endian.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/cmsg.h"
#include "proto/envelope.h"
#include "proto/peer.h"

#define MAX_CALLS   64u
#define MAX_RECORDS 256u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

typedef struct Bench {
        Peer *peer;
        struct {
                int fd;
                unsigned events;
        } slots[_PEER_SLOT_N];
        bool awake, ended;
        int lane, channels[LANE_CHANNELS]; /* of the other side */
        unsigned side, n_channels, epoch;
        LaneRenewal renewal;
        Call *kept[MAX_CALLS];
        unsigned n_kept;
        struct {
                Call *call;
                bool told;
        } calls[MAX_CALLS];
        unsigned n_calls;
} Bench;

static Bench *the_bench;
static bool refusing; /* items that ask for it */

/* ---- the engine's host and application ---- */

static void on_watch(void *host, unsigned slot, int fd, unsigned events) {
        Bench *bench = host;

        bench->slots[slot].fd = events ? fd : -1;
        bench->slots[slot].events = events;
}

static void on_wake(void *host) {
        ((Bench *) host)->awake = true;
}

static void on_release(void *host) {
        Bench *bench = host;

        bench->peer = NULL;
        for (unsigned slot = 0; slot < _PEER_SLOT_N; slot++)
                CHECK(bench->slots[slot].events == 0);
}

static void on_ended(Peer *peer, Status status, const char *reason) {
        Bench *bench = peer_userdata(peer);

        CHECK(!bench->ended && status < _STATUS_N && reason[0]);
        bench->ended = true;
}

static void send_item(Call *call, size_t size, unsigned n_fds) {
        static const uint8_t bytes[8192];
        int fds[4];

        for (unsigned i = 0; i < n_fds; i++)
                CHECK((fds[i] = eventfd(0, EFD_CLOEXEC)) >= 0);
        if (call_send(call, &(ItemParameters){ .payload = bytes, .size = size, .fds_consume = fds, .n_fds = n_fds }) <
            0)
                fd_close_all(fds, n_fds);
}

/* react() - to an item, as its first byte says. False: it is not taken. */
static bool react(Peer *peer, Call *call, const Item *item) {
        unsigned how = item->size ? item->payload[0] : 0;

        CHECK(item->envelope && (item->n_fds == 0 || item->fds));
        if (how & 2)
                call_resume(call);
        if (how & 4)
                send_item(call, how, how >> 6);
        if ((how & 0xf8) == 8)
                (void) peer_free(peer);
        else if ((how & 0xf8) == 16)
                peer_close(peer, STATUS_ABORTED, "closed in an item");
        else if ((how & 0xf8) == 24)
                peer_flush(peer);
        return !(how & 1) || !refusing;
}

static void cancel_call(Bench *bench, size_t i);
static void answer_call(Bench *bench, size_t i);

static size_t find_kept(const Bench *bench, const Call *call) {
        size_t i;

        for (i = 0; i < bench->n_kept && bench->kept[i] != call; i++)
                ;
        return i;
}

static size_t find_call(const Bench *bench, const bool *told) {
        size_t i;

        for (i = 0; i < MAX_CALLS && &bench->calls[i].told != told; i++)
                ;
        return i;
}

/* on_up() - an item of the other side's call: it must be one that is not ended. */
static bool on_up(Call *call, const Item *item, void *userdata) {
        bool takes;

        CHECK(find_kept(userdata, call) < ((Bench *) userdata)->n_kept && !call_is_cancelled(call));
        takes = react(((Bench *) userdata)->peer, call, item);
        if (item->size > 1 && item->payload[1] == 'a')
                answer_call(userdata, find_kept(userdata, call));
        return takes;
}

static bool on_down(Call *call, const Item *item, void *userdata) {
        bool takes, cancels = item->size > 1 && item->payload[1] == 'c';

        CHECK(!*(bool *) userdata && !item->end);
        takes = react(the_bench->peer, call, item);
        if (cancels)
                cancel_call(the_bench, find_call(the_bench, userdata));
        return takes;
}

static void on_writable(Call *call, void *userdata) {
        (void) userdata;
        send_item(call, 100, 0);
}

/* on_call() - the method's first letter says what the application does with it; most of it is echo. */
static void on_call(Peer *peer, Call *call) {
        Bench *bench = peer_userdata(peer);
        AnswerParameters answer = { .type = call_envelope(call)->type };
        char letter = call_envelope(call)->method[0];
        size_t n_fds;
        int *fds;

        CHECK(letter);
        if (letter == 'r') {
                peer_flush(peer);
                peer_dispatch(peer, CHANNEL_RPC, PEER_IN);
        }
        if (letter == 's')
                call_on_stream(call, on_up, on_writable, bench);
        if ((letter == 'k' || letter == 's') && bench->n_kept < MAX_CALLS) {
                bench->kept[bench->n_kept++] = call;
                return;
        }
        if (letter == 'f') {
                (void) call_fail(call, STATUS_INTERNAL, "the peer is freed");
                (void) peer_free(peer);
                return;
        }
        if (letter == 'c')
                peer_close(peer, STATUS_ABORTED, "closed in a call");
        answer.payload = call_payload(call, &answer.size);
        fds = call_fds(call, &n_fds);
        answer.n_fds = n_fds;
        answer.fds_consume = n_fds ? memcpy(malloc(n_fds * sizeof(int)), fds, n_fds * sizeof(int)) : NULL;
        for (size_t i = 0; i < n_fds; i++)
                fds[i] = -1;
        fds = (int *) answer.fds_consume;
        (void) call_answer(call, &answer);
        free(fds);
}

static void on_done(Call *call, const Answer *answer, void *userdata) {
        bool *told = userdata;

        (void) call;
        CHECK(!*told && answer->status < _STATUS_N && answer->message && answer->envelope);
        *told = true;
}

static bool turn(Bench *bench) {
        struct pollfd polls[_PEER_SLOT_N];
        bool any = bench->awake;

        if (bench->awake && bench->peer) {
                bench->awake = false;
                peer_flush(bench->peer);
        }
        for (unsigned slot = 0; slot < _PEER_SLOT_N; slot++)
                polls[slot] = (struct pollfd){
                        .fd = bench->slots[slot].fd,
                        .events = (short) ((bench->slots[slot].events & PEER_IN ? POLLIN : 0) |
                                           (bench->slots[slot].events & PEER_OUT ? POLLOUT : 0)),
                };
        any |= poll(polls, _PEER_SLOT_N, 0) > 0;
        for (unsigned slot = 0; slot < _PEER_SLOT_N && bench->peer; slot++)
                if (polls[slot].revents && bench->slots[slot].fd >= 0)
                        peer_dispatch(bench->peer, slot,
                                      (polls[slot].revents & ~POLLOUT ? PEER_IN : 0) |
                                              (polls[slot].revents & POLLOUT ? PEER_OUT : 0));
        if (bench->peer && peer_deadline(bench->peer) <= clock_now())
                peer_expire(bench->peer);
        return any && bench->peer;
}

static void settle(Bench *bench) {
        for (unsigned i = 0; i < 1000 && turn(bench); i++)
                ;
}

/* ---- the other side ---- */

static void send_bytes(Bench *bench, unsigned channel, const void *data, size_t size) {
        if (size > 0 && bench->channels[channel] >= 0)
                (void) send(bench->channels[channel], data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static Baton__Envelope *unpack_slowly(MessageScratch *scratch, const uint8_t *data, size_t size) {
        return (Baton__Envelope *) message_unpack_scratch(scratch, &baton__envelope__descriptor, data, size);
}

/* compare() - both ways of unpacking @data, and of packing what comes out. */
static void compare(const uint8_t *data, size_t size) {
        uint8_t packed[2][8192], bytes[ENVELOPE_SHORT];
        Baton__Envelope *envelopes[2];
        MessageScratch scratch[2];
        size_t n, sizes[2];

        for (unsigned i = 0; i < 2; i++) {
                message_scratch_init(&scratch[i], 65536);
                envelopes[i] = i ? unpack_slowly(&scratch[i], data, size) : envelope_unpack(&scratch[i], data, size);
                sizes[i] = envelopes[i] ? baton__envelope__get_packed_size(envelopes[i]) : 0;
                CHECK(sizes[i] <= sizeof(packed[i]));
                if (envelopes[i])
                        (void) baton__envelope__pack(envelopes[i], packed[i]);
        }
        CHECK(!envelopes[0] == !envelopes[1] && sizes[0] == sizes[1]);
        CHECK(memcmp(packed[0], packed[1], sizes[0]) == 0);
        if (envelopes[1] && envelopes[1]->base.n_unknown_fields == 0 && (n = envelope_pack_short(envelopes[1], bytes)))
                CHECK(n == sizes[1] && memcmp(bytes, packed[1], n) == 0);
        message_scratch_reset(&scratch[0]);
        message_scratch_reset(&scratch[1]);
}

/* send_frame() - @data is an Envelope; the payload is the end of it once more. */
static void send_frame(Bench *bench, unsigned channel, const uint8_t *data, size_t size) {
        size_t payload = size / 2;
        uint32_t lengths[2] = { htobe32((uint32_t) (4 + size + payload)), htobe32((uint32_t) size) };
        uint8_t frame[8 + 255 + 128];

        memcpy(frame, lengths, 8);
        memcpy(frame + 8, data, size);
        memcpy(frame + 8 + size, data + size - payload, payload);
        send_bytes(bench, channel, frame, 8 + size + payload);
        compare(data, size);
}

static void send_lane(Bench *bench, uint64_t id, size_t size, int fd, unsigned n) {
        int fds[4] = { fd, fd, fd, fd };
        uint64_t wire = htole64(id);

        if (bench->lane >= 0)
                (void) cmsg_send(bench->lane, &wire, size, fds, n);
}

/* send_descriptors() - one message for each byte: its low bits n, its high bits what is odd about it. */
static void send_descriptors(Bench *bench, const uint8_t *data, size_t size) {
        int fd = eventfd(0, EFD_CLOEXEC);

        CHECK(fd >= 0);
        for (size_t i = 0; i < size; i++) {
                uint64_t id = (uint64_t) bench->epoch << 32 | (data[i] & 31) << 1 | (1 - bench->side);

                switch (data[i] >> 5) {
                case 5:
                        send_lane(bench, id ^ 1, 8, fd, 1);
                        break;
                case 6:
                        send_lane(bench, id, data[i] & 7 ? data[i] & 7 : 8, fd, data[i] & 3);
                        break;
                case 7:
                        send_lane(bench, id + (UINT64_C(1) << 32), 8, fd, 1);
                        break;
                default:
                        send_lane(bench, id, 8, fd, 1);
                }
        }
        fd_close(fd);
}

/* send_channels() - those of @bench->epoch, from the side that has them. */
static void send_channels(Bench *bench) {
        for (unsigned n = 0; n < bench->n_channels; n++) {
                int fds[2];

                CHECK(fd_socketpair(SOCK_STREAM, fds) == 0);
                fd_close(bench->channels[n]);
                bench->channels[n] = fds[0];
                send_lane(bench, (uint64_t) bench->epoch << 32 | n, 8, fds[1], 1);
                fd_close(fds[1]);
        }
}

/* read_all() - what the engine has sent; channels among it are taken. */
static void read_all(Bench *bench) {
        static uint8_t bytes[65536];
        CmsgInfo info;
        uint64_t wire;
        int fds[4];

        while (bench->lane >= 0 && cmsg_receive(bench->lane, &wire, sizeof(wire), fds, 4, &info) > 0) {
                uint64_t id = le64toh(wire);

                CHECK(info.n_fds == 1);
                if ((uint32_t) id < LANE_CHANNELS) {
                        fd_close(bench->channels[id & 3]);
                        bench->channels[id & 3] = fds[0];
                } else {
                        fd_close(fds[0]);
                }
        }
        for (unsigned n = 0; n < LANE_CHANNELS; n++)
                while (bench->channels[n] >= 0 && cmsg_read(bench->channels[n], bytes, sizeof(bytes)) > 0)
                        ;
}

static void send_hello(Bench *bench) {
        static const uint8_t hello[] = { 0x08, 0x01, 0x5a, 0x04, 0x08, 0x01, 0x10, 0x01 };

        send_frame(bench, CHANNEL_RPC, hello, sizeof(hello));
}

/* ---- records ---- */

static void start_call(Bench *bench, const uint8_t *data, size_t size) {
        CallParameters parameters = {
                .channel = size ? data[0] & 3 : 0, .method = "m", .payload = data, .size = size
        };
        int fds[4];

        if (!bench->peer || bench->n_calls >= MAX_CALLS)
                return;
        parameters.n_fds = size ? data[0] >> 2 & 3 : 0;
        parameters.timeout_us = size && data[0] & 16 ? 1 : 0;
        for (size_t i = 0; i < parameters.n_fds; i++)
                CHECK((fds[i] = eventfd(0, EFD_CLOEXEC)) >= 0);
        parameters.fds_consume = fds;
        parameters.stream = size && data[0] & 32;
        parameters.item = size && data[0] & 64 ? on_down : NULL;
        parameters.writable = on_writable;
        if (call_start(bench->peer, &parameters, on_done, &bench->calls[bench->n_calls].told,
                       &bench->calls[bench->n_calls].call) == 0)
                bench->n_calls++;
}

static void cancel_call(Bench *bench, size_t i) {
        if (!bench->peer || i >= bench->n_calls || bench->calls[i].told)
                return;
        call_cancel(bench->calls[i].call);
        bench->calls[i].told = true;
}

static void answer_call(Bench *bench, size_t i) {
        if (i >= bench->n_kept)
                return;
        (void) call_answer(bench->kept[i], &(AnswerParameters){ .payload = "x", .size = 1 });
        bench->kept[i] = bench->kept[--bench->n_kept];
}

static void renew(Bench *bench, unsigned by) {
        bench->epoch += 1 + by % 3;
        if (bench->renewal == LANE_RENEWAL_SELF && bench->peer)
                (void) peer_renew(bench->peer, bench->epoch);
        else if (bench->renewal == LANE_RENEWAL_PEER)
                send_channels(bench);
}

static void take_channel(Bench *bench, unsigned n) {
        int fd = -1;

        if (!bench->peer)
                return;
        if (n & 4)
                (void) peer_frame_channel(bench->peer, n & 3);
        else if (peer_take_channel(bench->peer, n & 3, &fd) == 0)
                fd_close(fd);
}

/* do_stream() - something with a call that is open: one of the other side's, or one of ours. */
static void do_stream(Bench *bench, unsigned what, const uint8_t *data, size_t size) {
        size_t i = size ? data[0] & 63 : 0;
        bool ours = what & 8;
        Call *call = ours ? bench->calls[i].call : bench->kept[i];

        if (ours ? i >= bench->n_calls || bench->calls[i].told || !bench->peer : i >= bench->n_kept)
                return;
        switch (what & 7) {
        case 0:
        case 1:
                send_item(call, size, what & 1);
                break;
        case 2:
                send_item(call, size * 20, 0);
                break;
        case 3:
                (void) call_end(call);
                break;
        case 4:
                if (!ours)
                        call_on_stream(call, NULL, NULL, NULL);
                break;
        default:
                call_resume(call);
        }
}

static void do_record(Bench *bench, unsigned what, const uint8_t *data, size_t size) {
        unsigned first = size ? data[0] : 0;

        if (what & 32) {
                do_stream(bench, what, data, size);
                if (what & 16)
                        settle(bench);
                return;
        }

        switch (what & 15) {
        case 0:
        case 1:
        case 2:
                send_bytes(bench, what & 15, data, size);
                break;
        case 3:
        case 4:
        case 5:
                send_frame(bench, (what & 15) - 3, data, size);
                break;
        case 6:
                send_descriptors(bench, data, size);
                break;
        case 7:
                start_call(bench, data, size);
                break;
        case 8:
                cancel_call(bench, first);
                break;
        case 9:
                answer_call(bench, first);
                break;
        case 10:
                renew(bench, first);
                break;
        case 11:
                read_all(bench);
                break;
        case 12:
                take_channel(bench, first);
                break;
        case 13:
                send_hello(bench);
                break;
        case 14:
                if (first < LANE_CHANNELS)
                        bench->channels[first] = fd_close(bench->channels[first]);
                else if (first == LANE_CHANNELS)
                        bench->lane = fd_close(bench->lane);
                break;
        default:
                settle(bench);
        }
        if (what & 16)
                settle(bench);
}

/* ---- a session ---- */

static const PeerHost host_functions = { on_watch, on_wake, on_release };
static const PeerHandler handler = { .call = on_call, .ended = on_ended };

static void bench_open(Bench *bench, uint8_t flags) {
        static const LaneRenewal renewals[] = { LANE_RENEWAL_NONE, LANE_RENEWAL_PEER, LANE_RENEWAL_SELF,
                                                LANE_RENEWAL_PEER };
        static const PeerLimits limits = {
                .max_frame = 65536,
                .max_calls = 16,
                .fd_credit = 8,
                .max_held_fds = 12,
                .max_unsent = 8192,
                .max_waiting = 16,
                .stream_window = 6000,
                .max_memory = 20000,
        };
        PeerConfig config = { .limits = &limits };
        int lane[2];

        bench->side = config.side = flags & 1;
        bench->renewal = config.renewal = renewals[flags >> 1 & 3];
        bench->n_channels = config.n_channels = flags >> 4 & 1 ? 3 : 1;
        for (unsigned slot = 0; slot < _PEER_SLOT_N; slot++)
                bench->slots[slot].fd = -1;
        for (unsigned n = 0; n < LANE_CHANNELS; n++)
                bench->channels[n] = -1;
        CHECK(fd_socketpair(SOCK_STREAM, lane) == 0);
        bench->lane = lane[1];
        CHECK(peer_new(&bench->peer, &config, lane[0], &host_functions, bench, &handler, bench) == 0);
        if (bench->side == 1)
                send_channels(bench);
        settle(bench);
        if (flags & 8)
                return;
        read_all(bench);
        send_hello(bench);
        settle(bench);
}

/* resume_all() - ends that wait behind items are told then. */
static void resume_all(Bench *bench) {
        refusing = false;
        for (unsigned i = 0; i < bench->n_calls && bench->peer; i++)
                if (!bench->calls[i].told)
                        call_resume(bench->calls[i].call);
        settle(bench);
}

static void bench_close(Bench *bench) {
        bool freed = !bench->peer;

        settle(bench);
        bench->lane = fd_close(bench->lane);
        fd_close_all(bench->channels, LANE_CHANNELS);
        settle(bench);
        resume_all(bench);
        freed |= !bench->peer;
        for (unsigned i = 0; i < bench->n_calls; i++)
                CHECK(bench->calls[i].told || freed);
        CHECK(bench->ended || freed);
        (void) peer_free(bench->peer);
        CHECK(!bench->peer);
        while (bench->n_kept > 0)
                answer_call(bench, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        int before = fd_count();
        static Bench bench;
        size_t at = 1;

        if (size < 1)
                return 0;
        memset(&bench, 0, sizeof(bench));
        the_bench = &bench;
        refusing = true;
        bench_open(&bench, data[0]);
        for (unsigned n = 0; n < MAX_RECORDS && size - at >= 2; n++) {
                size_t length = MIN((size_t) data[at + 1], size - at - 2);

                do_record(&bench, data[at], data + at + 2, length);
                at += 2 + length;
        }
        bench_close(&bench);
        CHECK(fd_count() == before);
        return 0;
}
