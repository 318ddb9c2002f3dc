/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The model. A track is one call: what its caller and its callee did is written down when the engine accepted it, and
 * every callback is held against that. So what arrives must be the next thing that was sent, with its bytes and its
 * descriptors; after an end nothing may arrive; an end must be the callee's answer, or be excused by what happened.
 *
 * Payloads in shared memory are kept by their receiver now and then, beyond the call, the epoch and the peer, and must
 * stay what they were while the sender has not got them back.
 *
 * Callbacks act themselves, by chance: they call whatever the header allows, for either peer.
 */

#include "tests/property.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/fd.h"
#include "tests/test.h"

#define ITEM_COST   64u /* of the protocol: an item costs its payload and this */
#define FD_COST     4096u
#define PAYLOAD_MAX 300000u
#define INLINE_MAX  60000u /* fits into every frame */
#define FRAME_SPARE 300u   /* more than any Envelope here takes */
#define FDS_MAX     3u

World world;
static int now = -1;

int property_now(void) {
        return now;
}

uint32_t property_random(uint32_t below) {
        uint64_t z = world.random += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return (uint32_t) ((z ^ z >> 31) >> 16) % below;
}

static bool one_in(uint32_t n) {
        return property_random(n) == 0;
}

bool property_alive(const Side *side) {
        return !side->freed && !side->ended;
}

/* ---- content ---- */

static uint8_t *fill(const Content *content, uint32_t head) {
        static uint8_t bytes[PAYLOAD_MAX];

        for (uint32_t i = 0; i < content->size; i++)
                bytes[i] = (uint8_t) (content->pattern + i * 7 + (i >> 8));
        if (content->size >= sizeof(head))
                memcpy(bytes, &head, sizeof(head));
        return bytes;
}

static uint64_t sum_of(const ArenaView *view) {
        const uint8_t *bytes = view->memory;
        uint64_t sum = view->size;

        for (size_t i = 0; i < view->size; i += 97)
                sum = sum * 31 + bytes[i];
        return sum;
}

static uint32_t track_index(const Track *track) {
        return (uint32_t) (track - world.tracks);
}

/* give() - duplicates of what @content says. */
static void give(const Content *content, int fds[FDS_MAX]) {
        for (unsigned i = 0; i < content->n_fds; i++) {
                fds[i] = fd_dup(world.files[(content->file + i) % PROPERTY_FDS]);
                CHECK(fds[i] >= 0);
        }
}

/* hold() - keeps a payload in shared memory now and then. */
static void hold(const Side *side, ArenaView *view) {
        if (!view)
                return;
        world.n_shared++;
        if (world.calm || world.n_held == PROPERTY_HELD || !one_in(3))
                return;
        world.held[world.n_held] = *view;
        world.holders[world.n_held] = side;
        world.sums[world.n_held++] = sum_of(view);
        *view = ARENA_VIEW_NULL;
}

bool property_release(void) {
        unsigned n = world.n_held ? property_random(world.n_held) : 0;

        if (world.n_held == 0)
                return false;
        CHECK(sum_of(&world.held[n]) == world.sums[n]);
        if (world.holders[n]->freed)
                arena_view_release(&world.held[n]);
        else
                peer_view_release(world.holders[n]->test.peer, &world.held[n]);
        world.n_held--;
        world.holders[n] = world.holders[world.n_held];
        world.held[n] = world.held[world.n_held];
        world.sums[n] = world.sums[world.n_held];
        return true;
}

/* verify() - what arrived is what was sent. Some descriptors are taken, the others left to the engine. */
static void verify(const Content *content, uint32_t head, const uint8_t *payload, size_t size, int *fds, size_t n) {
        CHECK(size == content->size && n == content->n_fds);
        CHECK(size == 0 || memcmp(payload, fill(content, head), size) == 0);
        for (size_t i = 0; i < n; i++) {
                struct stat file;

                CHECK(fstat(fds[i], &file) == 0);
                CHECK(file.st_ino == world.inodes[(content->file + i) % PROPERTY_FDS]);
                if (one_in(2))
                        fds[i] = fd_close(fds[i]);
        }
}

static Content choose(uint32_t least, uint32_t most) {
        Content content = { .pattern = property_random(256) };

        content.size = least + property_random(one_in(world.large  ? 2
                                                      : world.huge ? 4
                                                                   : 8)
                                                       ? most - least + 1
                                                       : MIN(most - least, 200u) + 1);
        content.n_fds = (uint8_t) (one_in(6) ? 1 + property_random(FDS_MAX) : 0);
        content.file = (uint8_t) property_random(PROPERTY_FDS);
        content.buffer = one_in(2);
        return content;
}

/* most_bytes() - of requests and answers; more than a frame holds only where refusals are expected. */
static uint32_t most_bytes(void) {
        return world.huge ? PAYLOAD_MAX : INLINE_MAX;
}

/* fits() - whether @side's peer takes so much, inline or as an object, for certain. */
static bool fits(const Side *side, const Content *content) {
        const PeerRemote *remote = peer_remote(side->test.peer);

        return content->n_fds <= remote->fd_credit &&
               (content->size + FRAME_SPARE <= remote->max_frame ||
                (content->size <= remote->max_object && content->n_fds < remote->fd_credit));
}

/* make_buffer() - @content in a buffer; NULL: it goes as it is. */
static PeerBuffer *make_buffer(const Side *side, const Content *content, uint32_t head) {
        PeerBuffer *buffer = NULL;
        size_t size;
        void *memory;

        if (!content->buffer || content->size == 0 || side->freed ||
            peer_buffer_new(side->test.peer, content->size, &buffer) < 0)
                return NULL;
        memory = peer_buffer_data(buffer, &size);
        memcpy(memory, fill(content, head), size);
        return buffer;
}

/* ---- callbacks ---- */

/* chaos() - something happens inside a callback. */
static void chaos(Side *side) {
        int before = now;

        if (world.calm || !world.chaos || world.depth > 3 || !one_in(world.chaos))
                return;
        world.depth++;
        property_act(one_in(4) ? &world.sides[1 - side->index] : side);
        world.depth--;
        now = before;
}

/* receive() - an item of @dir; false: not taken. */
static bool receive(Track *track, unsigned dir, const Item *item, Side *side) {
        Flow *flow = &track->flows[dir];
        bool takes = world.calm || !one_in(20);

        now = (int) track_index(track);
        CHECK(!flow->stalled);
        CHECK(!flow->end_received);
        if (item->bare) {
                CHECK(dir == UP && flow->end_sent && flow->received == flow->sent);
                flow->end_received = takes;
        } else {
                CHECK(!item->end && flow->received < flow->sent);
                if (takes) {
                        const Content *content = &flow->items[flow->received];

                        verify(content, flow->received++, item->payload, item->size, item->fds, item->n_fds);
                        hold(side, item->shared);
                        world.n_items++;
                }
        }
        flow->stalled = !takes;
        chaos(side);
        return takes;
}

static bool on_up(Call *call, const Item *item, void *userdata) {
        Track *track = userdata;

        CHECK(track->in == call && !track->over);
        return receive(track, UP, item, track->callee);
}

static bool on_down(Call *call, const Item *item, void *userdata) {
        Track *track = userdata;

        CHECK(track->out == call && !track->done && !track->cancelled);
        return receive(track, DOWN, item, track->caller);
}

/* writable() - what was refused is accepted now, if nothing else comes between. */
static void writable(Track *track, unsigned dir, Side *side) {
        Flow *flow = &track->flows[dir];

        now = (int) track_index(track);
        CHECK(flow->blocked);
        CHECK(!flow->end_sent);
        flow->blocked = false;
        if (flow->chosen && one_in(2)) {
                unsigned before = flow->sent;

                property_send(track, dir);
                /* Or is too large, which was not known before; or there was room in an arena then, and is not now. */
                CHECK(flow->sent == before + 1 || !flow->chosen || flow->items[before].buffer || world.fails);
        }
        chaos(side);
}

static void on_up_writable(Call *call, void *userdata) {
        Track *track = userdata;

        CHECK(track->out == call);
        writable(track, UP, track->caller);
}

static void on_down_writable(Call *call, void *userdata) {
        Track *track = userdata;

        CHECK(track->in == call && !track->over);
        writable(track, DOWN, track->callee);
}

/* is_excused() - whether a call may end so without its callee having said it. */
static bool is_excused(const Track *track, const Answer *answer) {
        switch (answer->status) {
        case STATUS_UNAVAILABLE:
                return answer->local && (world.fails || world.n_renewals > track->n_renewals ||
                                         (world.finishing && !(track->answered && track->callee->left)));
        case STATUS_DEADLINE_EXCEEDED:
                return track->timeout_us > 0;
        case STATUS_RESOURCE_EXHAUSTED:
                return world.tight || world.fails || track->too_large;
        case STATUS_UNIMPLEMENTED:
                return answer->local && track->rude;
        case STATUS_INVALID_ARGUMENT:
                return !answer->local && track->deaf;
        default:
                return false;
        }
}

static void on_done(Call *call, const Answer *answer, void *userdata) {
        Track *track = userdata;

        now = (int) track_index(track);
        CHECK(track->out == call && !track->done && !track->cancelled && !track->caller->freed);
        track->out = NULL;
        track->done = true;
        if (!answer->local && track->answered) {
                CHECK(answer->status == track->status);
                CHECK(!track->down || track->flows[DOWN].received == track->flows[DOWN].sent);
                verify(&track->answer, now, answer->payload, answer->size, answer->fds, answer->n_fds);
                hold(track->caller, answer->shared);
        } else if (!is_excused(track, answer)) {
                fail_msg("call %d ended %s, \"%s\"%s", now, status_name(answer->status), answer->message,
                         answer->local ? "" : ", said by the peer");
        }
        chaos(track->caller);
}

static void on_cancel(Call *call, void *userdata) {
        Track *track = userdata;

        now = (int) track_index(track);
        CHECK(track->in == call && !track->over && !track->callee->freed);
        CHECK(call_is_cancelled(call));
        track->over = true;
        if (one_in(3))
                property_answer(track);
        chaos(track->callee);
}

static void on_call(Peer *peer, Call *call) {
        Side *side = peer_userdata(peer);
        size_t size, n;
        const uint8_t *payload = call_payload(call, &size);
        int *fds = call_fds(call, &n);
        uint32_t index;
        Track *track;

        CHECK(size >= sizeof(index));
        memcpy(&index, payload, sizeof(index));
        CHECK(index < world.n_tracks);
        track = &world.tracks[index];
        now = (int) index;
        CHECK(track->callee == side && !track->arrived && !side->freed);
        CHECK(call_takes_items(call) == track->up && call_peer(call) == peer);
        track->arrived = true;
        track->in = call;
        verify(&track->request, index, payload, size, fds, n);
        hold(side, call_shared(call));
        track->deaf = track->up && !world.calm && one_in(10);
        call_on_stream(call, track->deaf ? NULL : on_up, on_down_writable, track);
        call_on_cancel(call, on_cancel, track);
        world.n_calls++;
        chaos(side);
        if (track->in && one_in(world.calm ? 2 : 6))
                property_answer(track);
}

static void on_ready(Peer *peer, bool renewed) {
        (void) renewed;
        chaos(peer_userdata(peer));
}

static void on_ended(Peer *peer, Status status, const char *reason) {
        Side *side = peer_userdata(peer);

        /* For lack of memory, or the other one's, which may be told later. */
        world.finishing |= world.fails && (status == STATUS_RESOURCE_EXHAUSTED || status == STATUS_UNAVAILABLE);
        if (!world.finishing)
                fail_msg("peer %u ended with %s, \"%s\"", side->index, status_name(status), reason);
        CHECK(!side->ended && !side->freed);
        CHECK(status == STATUS_UNAVAILABLE || status == STATUS_ABORTED ||
              (world.fails && status == STATUS_RESOURCE_EXHAUSTED));
        side->ended = true;
        chaos(side);
}

const PeerHandler property_handler = { .ready = on_ready, .call = on_call, .ended = on_ended };

/* ---- what an application does ---- */

void property_start(Side *side) {
        Track *track = &world.tracks[world.n_tracks];
        Side *callee = &world.sides[1 - side->index];
        PeerBuffer *buffer;
        int fds[FDS_MAX], r;

        if (side->freed || world.n_tracks == PROPERTY_TRACKS)
                return;
        memset(track, 0, offsetof(Track, flows));
        for (unsigned dir = 0; dir < 2; dir++)
                track->flows[dir] = (Flow){ .sent = 0 };
        track->caller = side;
        track->callee = callee;
        /* Side 1 learns of a renewal some time after it. */
        track->n_renewals = side->index == 0 ? world.n_renewals : 0;
        track->up = one_in(2);
        track->down = one_in(2);
        track->timeout_us = world.calm || !one_in(5) ? 0 : 1 + property_random(20000);
        track->request = choose(sizeof(uint32_t), most_bytes());
        if (track->request.n_fds > peer_remote(side->test.peer)->fd_credit || !peer_is_ready(side->test.peer))
                track->request.n_fds = 0;
        give(&track->request, fds);
        world.n_tracks++;
        buffer = make_buffer(side, &track->request, track_index(track));
        r = call_start(side->test.peer,
                       &(CallParameters){ .channel = property_random(world.n_usable),
                                          .method = "m",
                                          .type = one_in(2) ? "a.Type" : NULL,
                                          .payload = buffer ? NULL : fill(&track->request, track_index(track)),
                                          .size = buffer ? 0 : track->request.size,
                                          .buffer = buffer,
                                          .timeout_us = track->timeout_us,
                                          .fds_consume = fds,
                                          .n_fds = track->request.n_fds,
                                          .stream = track->up,
                                          .item = track->down ? on_down : NULL,
                                          .writable = on_up_writable },
                       on_done, track, &track->out);
        CHECK(side->ended ? r == -ESHUTDOWN
                          : r == 0 || (r == -ESHUTDOWN && (world.finishing || world.fails)) ||
                                    (r == -ENOMEM && world.fails));
        track->forgotten = r < 0;
}

/* choose_item() - mostly small; some as large as the window allows, some larger. */
static Content choose_item(const Side *receiver) {
        uint64_t window = receiver->limits.stream_window;
        uint32_t most = window > ITEM_COST ? (uint32_t) MIN(window - ITEM_COST, (uint64_t) PAYLOAD_MAX - 1) : 0;
        Content item = choose(0, most + 1);

        if (one_in(10))
                item.size = most;
        return item;
}

static bool can_ever_go(const Side *sender, const Content *item, uint64_t window) {
        const PeerRemote *remote = peer_remote(sender->test.peer);

        uint64_t fixed = ITEM_COST + item->n_fds * (uint64_t) FD_COST;

        if (item->n_fds > remote->fd_credit)
                return false;
        return (item->size + fixed <= window && item->size + FRAME_SPARE <= remote->max_frame) ||
               (item->size > 0 && item->size <= remote->max_object && item->n_fds < remote->fd_credit &&
                fixed + FD_COST <= window);
}

/* check_sent() - whether call_send() may have said @r. */
static void check_sent(const Track *track, unsigned dir, int r) {
        const Side *sender = dir == UP ? track->caller : track->callee, *receiver = &world.sides[1 - sender->index];
        const Flow *flow = &track->flows[dir];

        switch (r) {
        case 0:
                CHECK(!sender->freed && !(dir == DOWN && track->over) && !flow->end_sent);
                break;
        case -EAGAIN:
                CHECK(!sender->freed && !flow->end_sent);
                break;
        case -EMSGSIZE:
                CHECK(!can_ever_go(sender, &flow->items[flow->sent], receiver->limits.stream_window));
                break;
        case -ENOMEM:
        case -EMFILE:
                CHECK(world.fails);
                break;
        case -EPIPE:
                CHECK(dir == UP && (!track->up || flow->end_sent));
                break;
        default:
                CHECK(r == -ECANCELED);
                CHECK(dir == UP || track->over || track->callee->freed);
        }
}

void property_send(Track *track, unsigned dir) {
        Side *sender = dir == UP ? track->caller : track->callee, *receiver = &world.sides[1 - sender->index];
        Call *call = dir == UP ? track->out : track->in;
        Flow *flow = &track->flows[dir];
        Content *item = &flow->items[flow->sent];
        PeerBuffer *buffer;
        int fds[FDS_MAX], r;

        if (!call || flow->sent == PROPERTY_FLOW_ITEMS)
                return;
        if (!flow->chosen)
                *item = choose_item(receiver);
        flow->chosen = true;
        give(item, fds);
        buffer = make_buffer(sender, item, flow->sent);
        r = call_send(call, &(ItemParameters){ .type = one_in(2) ? "a.Type" : NULL,
                                               .payload = buffer ? NULL : fill(item, flow->sent),
                                               .size = buffer ? 0 : item->size,
                                               .buffer = buffer,
                                               .fds_consume = fds,
                                               .n_fds = item->n_fds });
        if (r != 0) {
                fd_close_all(fds, item->n_fds);
                (void) peer_buffer_free(buffer);
        }
        flow->chosen = r == 0 ? false : r != -EMSGSIZE;
        flow->sent += r == 0;
        if (r == 0 && dir == DOWN && !track->down)
                track->rude = true;
        if (r == 0 || r == -EAGAIN)
                flow->blocked = r == -EAGAIN;
        check_sent(track, dir, r);
}

void property_end(Track *track) {
        int r;

        if (!track->out)
                return;
        r = call_end(track->out);
        CHECK(r == 0 || r == -ECANCELED || (r == -EPIPE && (!track->up || track->flows[UP].end_sent)));
        if (r < 0)
                return;
        track->flows[UP].end_sent = true;
        track->flows[UP].blocked = false;
}

void property_cancel(Track *track) {
        Call *call = TAKE_PTR(track->out);

        if (!call)
                return;
        track->cancelled = true;
        call_cancel(call);
}

void property_answer(Track *track) {
        Call *call = TAKE_PTR(track->in);
        PeerBuffer *buffer;
        int fds[FDS_MAX], r;
        uint64_t most;
        bool shared;

        if (!call)
                return;
        track->answer = choose(sizeof(uint32_t), most_bytes());
        track->status = one_in(4) ? STATUS_NOT_FOUND : STATUS_OK;
        buffer = call_peer(call) ? make_buffer(track->callee, &track->answer, track_index(track)) : NULL;
        track->too_large = !call_peer(call) || !fits(track->callee, &track->answer);
        shared = buffer && peer_buffer_is_shared(buffer);
        most = call_peer(call) ? peer_remote(call_peer(call))->max_frame : 0;
        track->answered = !track->too_large && !track->over;
        give(&track->answer, fds);
        r = call_answer(call, &(AnswerParameters){ .status = track->status,
                                                   .message = one_in(2) ? "words" : NULL,
                                                   .type = one_in(2) ? "a.Type" : NULL,
                                                   .payload = buffer ? NULL : fill(&track->answer, track_index(track)),
                                                   .size = buffer ? 0 : track->answer.size,
                                                   .buffer = buffer,
                                                   .fds_consume = fds,
                                                   .n_fds = track->answer.n_fds });
        track->answered = r == 0;
        if (r == 0)
                /* FRAME_SPARE is a guess; and to a channel that nobody reads any more everything goes. */
                CHECK(!track->over && !track->callee->freed &&
                      (!track->too_large || shared || track->answer.size <= most || world.finishing ||
                       world.n_renewals > 0));
        else if (r == -EMSGSIZE)
                CHECK(track->too_large);
        else if (r == -ENOMEM || r == -EMFILE)
                CHECK(world.fails);
        else
                CHECK(r == -ECANCELED && track->over);
}

void property_resume(Track *track, unsigned dir) {
        Call *call = dir == UP ? track->in : track->out;

        if (!call)
                return;
        track->flows[dir].stalled = false;
        call_resume(call);
}

void property_renew(void) {
        Side *side = &world.sides[0];
        static uint32_t epoch;
        int r;

        if (side->freed)
                return;
        world.n_renewals++;
        epoch = world.n_renewals == 1 ? 1 : epoch + 1;
        r = peer_renew(side->test.peer, epoch);
        /* ESTALE: a callback of it has renewed again. */
        CHECK(r == 0 || r == -ESHUTDOWN || r == -ESTALE || (r == -ENOMEM && world.fails));
}

void property_close(Side *side) {
        if (side->freed)
                return;
        world.finishing = true;
        peer_close(side->test.peer, STATUS_ABORTED, "enough");
}

void property_free(Side *side) {
        if (side->freed)
                return;
        world.finishing = true;
        side->freed = true;
        for (unsigned i = 0; i < world.n_tracks; i++) {
                Track *track = &world.tracks[i];

                if (track->caller == side && track->out) {
                        track->out = NULL;
                        track->forgotten = true;
                }
                if (track->callee == side)
                        track->over = true;
        }
        (void) peer_free(side->test.peer);
}

/* poke() - what a host does, at a moment when no sensible host does it. */
static void poke(Side *side) {
        unsigned slot = property_random(_PEER_SLOT_N);

        if (side->freed)
                return;
        switch (property_random(4)) {
        case 0:
                peer_flush(side->test.peer);
                break;
        case 1:
                if (side->test.slots[slot].events)
                        peer_dispatch(side->test.peer, slot, side->test.slots[slot].events);
                break;
        case 2:
                peer_expire(side->test.peer);
                break;
        default:
                (void) peer_deadline(side->test.peer);
                (void) peer_is_flushed(side->test.peer);
        }
}

static void end_something(Side *side) {
        if (world.ends && one_in(4))
                property_free(side);
        else if (world.ends && one_in(4))
                property_close(side);
        else if (world.renews)
                property_renew();
}

/* mine() - a track with an end at @side: as its caller, or as its callee. NULL: nothing was found quickly. */
static Track *mine(const Side *side, bool caller) {
        for (unsigned i = 0; i < 8 && world.n_tracks > 0; i++) {
                Track *track = &world.tracks[property_random(world.n_tracks)];

                if (caller ? track->caller == side && track->out : track->callee == side && track->in)
                        return track;
        }
        return NULL;
}

/* take_raw() - the channel that carries no calls; its other end finds that it is gone when it is closed. */
static void take_raw(void) {
        Side *side = &world.sides[1];
        int fd = -1, r;

        if (world.n_usable == world.n_channels || side->freed)
                return;
        if (world.raw >= 0 && one_in(2)) {
                world.raw = fd_close(world.raw);
                return;
        }
        r = peer_take_channel(side->test.peer, world.n_usable, &fd);
        CHECK(r == 0 || r == -EAGAIN || r == -EEXIST);
        if (r < 0)
                return;
        fd_close(world.raw);
        world.raw = fd;
}

void property_act(Side *side) {
        Track *ours = mine(side, true), *theirs = mine(side, false);
        uint32_t what = property_random(200);

        if (what < 24)
                property_start(side);
        else if (what < 82 && ours)
                property_send(ours, UP);
        else if (what < 140 && theirs && (theirs->down || one_in(30)))
                property_send(theirs, DOWN);
        else if (what < 144 && ours)
                property_end(ours);
        else if (what < 147 && ours)
                property_cancel(ours);
        else if (what < 154 && theirs)
                property_answer(theirs);
        else if (what < 174 && ours)
                property_resume(ours, DOWN);
        else if (what < 186 && theirs)
                property_resume(theirs, UP);
        else if (what < 194)
                poke(side);
        else if (what < 196)
                take_raw();
        else if (what < 198)
                (void) property_release();
        else
                end_something(side);
}

/* ---- quiet ---- */

bool property_is_live(const Track *track) {
        return track->out && track->in && !track->over;
}

void property_full_item(Track *track, unsigned dir) {
        Side *sender = dir == UP ? track->caller : track->callee, *receiver = &world.sides[1 - sender->index];
        Flow *flow = &track->flows[dir];
        uint64_t window = receiver->limits.stream_window;
        Content *item = &flow->items[flow->sent];
        unsigned before = flow->sent;

        if (flow->end_sent || flow->sent == PROPERTY_FLOW_ITEMS || window < ITEM_COST)
                return;
        *item = (Content){ .size = (uint32_t) MIN(window - ITEM_COST, (uint64_t) INLINE_MAX) };
        if (!can_ever_go(sender, item, window))
                return;
        flow->chosen = true;
        property_send(track, dir);
        CHECK(flow->sent == before + 1);
}
