/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Shared memory with one peer: the pool of arenas that we write in, and the map of the peer's. Both are this peer's
 * alone: what one peer may read is nobody else's. They live from Hello to the end of the epoch.
 *
 * A payload travels by block when it is raw bytes: the frame then has no payload of its own and lists one block. A typed
 * message never does: whoever receives it parses it, and nothing is parsed where the other side can still write. Blocks
 * that come beside a payload are for typed fields; nobody here knows such, so they go back at once.
 *
 * An arena is used only after the peer answered its Announce. Until then, and whenever there is no room, a large buffer is
 * a sealed object (object.c), or private memory and its bytes travel inline: the caller need not know. A block that was
 * wanted too early stays taken until that answer, so that many at once make room for as many: else each round trip would
 * bring but one arena.
 *
 * A buffer that the application holds keeps the pool, even when the peer is gone; a view of the peer's memory keeps its
 * mapping. Blocks that were received and released are given back once a turn, many in one call.
 */

#include "proto/peer-internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/text.h"
#include "proto/arena.pb-c.h"

#define SERVICE          "baton.Arena/"
#define PEER_TAG         1u              /* a pool has one peer */
#define SHARE_FROM       (64u * 1024u)   /* bytes; below it a copy costs less than giving a block back */
#define OBJECT_FROM      (1024u * 1024u) /* bytes; below it a copy costs less than fresh pages and a mapping */
#define RETURNS_AT_ONCE  256u
#define RETURNS_OPEN_MAX 4u
#define ARENAS_MAX       64u

typedef struct Announcing Announcing;
typedef struct Wanted Wanted;

/* Our pool; outlives the peer while buffers of it are held. */
struct SharePool {
        ArenaPool *pool;
        Peer *peer; /* NULL: gone */
        unsigned refs;
        size_t n_ready;
        uint64_t ready[ARENAS_MAX]; /* announced and taken */
        LIST_HEAD(, Announcing) announcing;
};

/* An arena that the peer has not answered for. */
struct Announcing {
        LIST_ENTRY(Announcing) link;
        SharePool *shared;
        uint64_t id;
        Call *call;
        LIST_HEAD(, Wanted) wanted;
};

/* A block in it whose buffer did not wait. */
struct Wanted {
        LIST_ENTRY(Wanted) link;
        ArenaBlock block;
};

struct Share {
        SharePool *pool;
        ArenaMap *map;
        unsigned returns_open; /* Release calls without an answer */
        uint64_t *over; /* arenas of the process before this one, of which the peer is to be told that they are */
        size_t n_over;
};

/* ---- the pool ---- */

static SharePool *pool_unref(SharePool *shared) {
        if (--shared->refs > 0)
                return NULL;
        (void) arena_pool_free(shared->pool);
        free(shared);
        return NULL;
}

static bool is_ready(const SharePool *shared, uint64_t id) {
        for (size_t i = 0; i < shared->n_ready; i++)
                if (shared->ready[i] == id)
                        return true;
        return false;
}

static void set_unready(SharePool *shared, uint64_t id) {
        for (size_t i = 0; i < shared->n_ready; i++)
                if (shared->ready[i] == id)
                        shared->ready[i] = shared->ready[--shared->n_ready];
}

/* call_arena() - one of baton.Arena's methods. */
static int call_arena(Peer *peer, const char *method, const ProtobufCMessage *message, int *fd_consume, CallDone done,
                      void *userdata, Call **ret_call) {
        size_t size = protobuf_c_message_get_packed_size(message);
        _cleanup_free_ uint8_t *packed = malloc(size + 1);
        CallParameters parameters = {
                .method = method, .type = message->descriptor->name, .size = size, .needed = true
        };

        parameters.payload = packed;
        parameters.fds_consume = fd_consume;
        parameters.n_fds = fd_consume ? 1 : 0;
        if (!packed) {
                if (fd_consume)
                        fd_close(*fd_consume);
                return -ENOMEM;
        }
        (void) protobuf_c_message_pack(message, packed);
        return call_start(peer, &parameters, done, userdata, ret_call);
}

/* announcing_free() - what was wanted is free. */
static void announcing_free(Announcing *announcing) {
        Wanted *wanted;

        while ((wanted = LIST_FIRST(&announcing->wanted))) {
                LIST_REMOVE(wanted, link);
                (void) arena_pool_drop(announcing->shared->pool, &wanted->block);
                free(wanted);
        }
        LIST_REMOVE(announcing, link);
        free(announcing);
}

/* want() - keeps @block, which cannot be used yet, from being given out again before the answer. */
static void want(SharePool *shared, const ArenaBlock *block) {
        Announcing *announcing;
        Wanted *wanted = NULL;

        LIST_FOREACH (announcing, &shared->announcing, link)
                if (announcing->id == block->arena)
                        break;
        if (announcing)
                wanted = malloc(sizeof(*wanted));
        if (!wanted) {
                (void) arena_pool_drop(shared->pool, block);
                return;
        }
        wanted->block = *block;
        LIST_INSERT_HEAD(&announcing->wanted, wanted, link);
}

static void announced(Call *call, const Answer *answer, void *userdata) {
        Announcing *announcing = userdata;
        SharePool *shared = announcing->shared;

        (void) call;
        if (answer->status != STATUS_OK)
                (void) arena_pool_refused(shared->pool, announcing->id);
        else if (shared->peer && shared->n_ready < ARENAS_MAX)
                shared->ready[shared->n_ready++] = announcing->id;
        announcing_free(announcing);
}

static int announce(void *userdata, uint64_t id, int fd, uint64_t size) {
        Baton__ArenaAnnounce message = BATON__ARENA_ANNOUNCE__INIT;
        SharePool *shared = userdata;
        Announcing *announcing;
        int copy, r;

        if (!shared->peer)
                return -ESHUTDOWN;
        copy = fd_dup(fd);
        if (copy < 0)
                return copy;
        announcing = malloc(sizeof(*announcing));
        if (!announcing) {
                fd_close(copy);
                return -ENOMEM;
        }
        *announcing = (Announcing){ .shared = shared, .id = id };
        message.id = id;
        message.size = size;
        r = call_arena(shared->peer, "baton.Arena/Announce", &message.base, &copy, announced, announcing,
                       &announcing->call);
        if (r < 0)
                free(announcing);
        else
                LIST_INSERT_HEAD(&shared->announcing, announcing, link);
        return r;
}

static void retire(void *userdata, uint64_t id) {
        Baton__ArenaRetire message = BATON__ARENA_RETIRE__INIT;
        SharePool *shared = userdata;

        set_unready(shared, id);
        message.id = id;
        if (shared->peer)
                (void) call_arena(shared->peer, "baton.Arena/Retire", &message.base, NULL, NULL, NULL, NULL);
}

static SharePool *pool_new(Peer *peer) {
        SharePool *shared = calloc(1, sizeof(*shared));
        ArenaPoolConfig config = {
                .max_bytes = peer->limits.max_shared,
                .max_arenas = ARENAS_MAX,
                .arena_size = peer->limits.arena_size,
                .read_only = true, /* and what a receiver keeps stays as it was */
                .announce = announce,
                .retire = retire,
                .userdata = shared,
        };

        if (!shared || arena_pool_new(&shared->pool, &config) < 0) {
                free(shared);
                return NULL;
        }
        LIST_INIT(&shared->announcing);
        shared->peer = peer;
        shared->refs = 1;
        return shared;
}

/* ---- life ---- */

int share_open(Peer *peer) {
        ArenaMapLimits limits = { .max_bytes = peer->limits.max_shared, .keep_fds = peer->crosses };
        Share *share = calloc(1, sizeof(*share));

        if (!share || arena_map_new(&share->map, &limits) < 0) {
                free(share);
                return -ENOMEM;
        }
        share->pool = pool_new(peer);
        if (!share->pool) {
                (void) arena_map_free(share->map);
                free(share);
                return -ENOMEM;
        }
        peer->share = share;
        return 0;
}

void share_close(Peer *peer) {
        Share *share = TAKE_PTR(peer->share);
        Announcing *announcing;

        if (!share)
                return;
        while ((announcing = LIST_FIRST(&share->pool->announcing))) {
                call_cancel(announcing->call);
                announcing_free(announcing);
        }
        share->pool->peer = NULL;
        share->pool->n_ready = 0;
        (void) arena_pool_peer_gone(share->pool->pool, PEER_TAG);
        (void) pool_unref(share->pool);
        (void) arena_map_free(share->map);
        free(share->over);
        free(share);
}

ArenaMap *share_map(const Peer *peer) {
        return peer->share->map;
}

ArenaPool *share_pool(const Peer *peer) {
        return peer->share->pool->pool;
}

int share_follow(Peer *peer, uint64_t serial, const uint64_t *ids, size_t n) {
        Share *share = peer->share;

        arena_pool_follow(share->pool->pool, serial);
        share->over = n > 0 ? malloc(n * sizeof(*ids)) : NULL;
        if (n == 0)
                return 0;
        if (!share->over)
                return -ENOMEM;
        memcpy(share->over, ids, n * sizeof(*ids));
        share->n_over = n;
        return 0;
}

void share_leave(Peer *peer) {
        Announcing *announcing;
        SharePool *shared;

        if (!peer->share)
                return;
        shared = peer->share->pool;
        while ((announcing = LIST_FIRST(&shared->announcing))) {
                call_cancel(announcing->call);
                announcing_free(announcing);
        }
        shared->peer = NULL;
        shared->n_ready = 0;
        (void) arena_pool_peer_gone(shared->pool, PEER_TAG);
}

/* waits_for_block() - a frame that lists a block of the arenas that are over is still to be written. */
static bool waits_for_block(const Peer *peer) {
        const Parcel *parcel;

        TAILQ_FOREACH (parcel, &peer->parcels, link)
                if (parcel->has_block || (parcel->kind != PARCEL_CALL && parcel->payload_size == 0))
                        return true;
        return false;
}

/* retire_over() - behind all frames that could name them. */
static void retire_over(Peer *peer) {
        Baton__ArenaRetire message = BATON__ARENA_RETIRE__INIT;
        Share *share = peer->share;

        while (share->n_over > 0 && !waits_for_block(peer)) {
                message.id = share->over[--share->n_over];
                (void) call_arena(peer, "baton.Arena/Retire", &message.base, NULL, NULL, NULL, NULL);
        }
}

size_t share_blocks(const Peer *peer) {
        return peer->share ? arena_pool_usage(peer->share->pool->pool).blocks : 0;
}

uint64_t share_deadline(const Peer *peer) {
        return peer->share ? arena_pool_deadline(peer->share->pool->pool) : USEC_INFINITY;
}

void share_expire(Peer *peer, uint64_t now) {
        if (peer->share)
                arena_pool_expire(peer->share->pool->pool, now);
}

/* ---- buffers ---- */

static int alloc_shared(Peer *peer, size_t size, PeerBuffer *buffer) {
        SharePool *shared = peer->share->pool;
        void *memory;
        int r;

        r = arena_pool_alloc(shared->pool, size, &buffer->block, &memory);
        if (r < 0)
                return r;
        if (!is_ready(shared, buffer->block.arena)) {
                want(shared, &buffer->block);
                return -EAGAIN;
        }
        buffer->memory = memory;
        buffer->pool = shared;
        shared->refs++;
        return 0;
}

int peer_buffer_new(Peer *peer, size_t size, PeerBuffer **ret_buffer) {
        PeerBuffer *buffer = calloc(1, sizeof(*buffer));
        int r = -ENOBUFS;

        if (!buffer)
                return -ENOMEM;
        buffer->size = size;
        buffer->fd = -1;
        if (size >= SHARE_FROM && peer->share)
                r = alloc_shared(peer, size, buffer);
        if (r < 0 && size >= OBJECT_FROM && object_is_accepted(peer, size))
                r = object_buffer_new(buffer, size);
        if (r < 0) {
                buffer->memory = malloc(size + 1);
                if (!buffer->memory) {
                        free(buffer);
                        return -ENOMEM;
                }
        }
        *ret_buffer = buffer;
        return 0;
}

void *peer_buffer_data(PeerBuffer *buffer, size_t *ret_size) {
        *ret_size = buffer->size;
        return buffer->memory;
}

bool peer_buffer_is_shared(const PeerBuffer *buffer) {
        return buffer->pool;
}

int peer_buffer_trim(PeerBuffer *buffer, size_t size) {
        int r;

        if (size > buffer->size)
                return -ERANGE;
        if (buffer->pool && size > 0) {
                r = arena_pool_trim(buffer->pool->pool, &buffer->block, size);
                if (r < 0)
                        return r;
        }
        buffer->size = size;
        return 0;
}

PeerBuffer *peer_buffer_free(PeerBuffer *buffer) {
        if (!buffer)
                return NULL;
        if (buffer->pool) {
                (void) arena_pool_drop(buffer->pool->pool, &buffer->block);
                (void) pool_unref(buffer->pool);
        } else if (buffer->mapped) {
                object_buffer_free(buffer);
        } else {
                free(buffer->memory);
        }
        free(buffer);
        return NULL;
}

void peer_view_release(Peer *peer, ArenaView *view) {
        bool held = view->mapping;

        arena_view_release(view);
        if (held)
                peer_wake(peer);
}

/* ---- sending ---- */

bool share_use(const Peer *peer, const PeerBuffer *buffer, const char *type, Baton__Block *block,
               const void **ret_payload, size_t *ret_size) {
        if (!buffer)
                return false;
        if (!buffer->pool || buffer->pool->peer != peer || (type && *type) || buffer->size == 0) {
                *ret_payload = buffer->memory;
                *ret_size = buffer->size;
                return false;
        }
        block->arena = buffer->block.arena;
        block->offset = buffer->block.offset;
        block->length = buffer->block.length;
        *ret_payload = NULL;
        *ret_size = 0;
        return true;
}

void share_give(Peer *peer, const Baton__Block *block, ArenaBlock *ret_block) {
        *ret_block = (ArenaBlock){ block->arena, block->offset, block->length };
        if (peer->share)
                (void) arena_pool_give(peer->share->pool->pool, ret_block, PEER_TAG);
}

void share_revoke(Peer *peer, const ArenaBlock *block) {
        if (peer->share)
                (void) arena_pool_release(peer->share->pool->pool, PEER_TAG, block);
}

/* A block that was given is not ours to drop: arena_pool_drop() refuses it. */
void share_sent(PeerBuffer *buffer_consume) {
        (void) peer_buffer_free(buffer_consume);
}

/* ---- receiving ---- */

int share_claim(Peer *peer, const Baton__Envelope *envelope, bool bare, ArenaView *ret_view) {
        bool is_payload = bare && envelope->n_blocks == 1 && !*envelope->type;
        int r = 0;

        for (size_t i = 0; i < envelope->n_blocks; i++) {
                const Baton__Block *wire = envelope->blocks[i];
                ArenaBlock block = { wire->arena, wire->offset, wire->length };
                int one = is_payload ? arena_map_resolve(peer->share->map, &block, ret_view)
                                     : arena_map_discard(peer->share->map, &block);

                if (one < 0 && r != -ENOMEM)
                        r = one;
        }
        peer_wake(peer);
        return r == 0 && bare && !is_payload ? -EBADMSG : r;
}

static void returned(Call *call, const Answer *answer, void *userdata) {
        Peer *peer = userdata;

        (void) call;
        if (peer->share && peer->share->returns_open > 0)
                peer->share->returns_open--;
        /* For lack of memory, here or there: the blocks would never come back. */
        if (answer->status == STATUS_RESOURCE_EXHAUSTED)
                peer_doom(peer);
        peer_wake(peer);
}

void share_flush(Peer *peer) {
        Baton__ArenaRelease message = BATON__ARENA_RELEASE__INIT;
        ArenaBlock blocks[RETURNS_AT_ONCE];
        Baton__Block wire[RETURNS_AT_ONCE], *pointers[RETURNS_AT_ONCE];
        Share *share = peer->share;

        if (!share || peer->state != PEER_STATE_READY)
                return;
        retire_over(peer);
        while (share->returns_open < RETURNS_OPEN_MAX && arena_map_pending(share->map) > 0) {
                size_t n = arena_map_take_returns(share->map, blocks, RETURNS_AT_ONCE);

                for (size_t i = 0; i < n; i++) {
                        baton__block__init(&wire[i]);
                        wire[i].arena = blocks[i].arena;
                        wire[i].offset = blocks[i].offset;
                        wire[i].length = blocks[i].length;
                        pointers[i] = &wire[i];
                }
                message.blocks = pointers;
                message.n_blocks = n;
                if (call_arena(peer, "baton.Arena/Release", &message.base, NULL, returned, peer, NULL) < 0) {
                        peer_doom(peer); /* else they would never come back */
                        return;
                }
                share->returns_open++;
        }
}

/* ---- the peer's calls ---- */

static int answer_result(Call *call, int r, const char *what, uint64_t id) {
        bool limit = r == -EDQUOT || r == -ENOBUFS || r == -ENOMEM || r == -EMFILE;

        if (r == 0)
                return call_answer(call, &(AnswerParameters){ .status = STATUS_OK });
        return call_fail(call, limit ? STATUS_RESOURCE_EXHAUSTED : STATUS_INVALID_ARGUMENT, "%s %llu: %s", what,
                         (unsigned long long) id, arena_error(r));
}

static int on_announce(Peer *peer, Call *call, const void *message) {
        const Baton__ArenaAnnounce *announce_message = message;
        size_t n;
        int *fds = call_fds(call, &n), fd;

        if (announce_message->fd >= n || fds[announce_message->fd] < 0)
                return call_fail(call, STATUS_INVALID_ARGUMENT, "an arena without a descriptor");
        fd = fd_take(&fds[announce_message->fd]);
        return answer_result(call,
                             arena_map_announce(peer->share->map, announce_message->id, fd, announce_message->size),
                             "arena", announce_message->id);
}

static int on_retire(Peer *peer, Call *call, const void *message) {
        const Baton__ArenaRetire *retire_message = message;

        return answer_result(call, arena_map_retire(peer->share->map, retire_message->id), "arena",
                             retire_message->id);
}

static int on_release(Peer *peer, Call *call, const void *message) {
        const Baton__ArenaRelease *release = message;
        uint64_t first = 0;
        int r = 0;

        for (size_t i = 0; i < release->n_blocks; i++) {
                const Baton__Block *wire = release->blocks[i];
                ArenaBlock block = { wire->arena, wire->offset, wire->length };
                int one = arena_pool_release(peer->share->pool->pool, PEER_TAG, &block);

                if (one < 0 && r == 0) {
                        r = one;
                        first = block.offset;
                }
        }
        return answer_result(call, r, "the block at", first);
}

static const struct {
        const char *method;
        const ProtobufCMessageDescriptor *type;
        int (*handle)(Peer *peer, Call *call, const void *message);
} methods[] = {
        { "baton.Arena/Announce", &baton__arena_announce__descriptor, on_announce },
        { "baton.Arena/Retire", &baton__arena_retire__descriptor, on_retire },
        { "baton.Arena/Release", &baton__arena_release__descriptor, on_release },
};

/* serve() - false: no such method. */
static bool serve(Peer *peer, Call *call, const char *method) {
        for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
                _cleanup_message_ void *message = NULL;
                const uint8_t *payload;
                size_t size;

                if (strcmp(method, methods[i].method) != 0)
                        continue;
                payload = call_payload(call, &size);
                message = message_unpack(methods[i].type, payload, size);
                if (message)
                        (void) methods[i].handle(peer, call, message);
                else if (message_check(methods[i].type, payload, size))
                        (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory for a %s", methods[i].type->name);
                else
                        (void) call_fail(call, STATUS_INVALID_ARGUMENT, "not a %s", methods[i].type->name);
                return true;
        }
        return false;
}

bool share_is_method(const Peer *peer, const char *method) {
        return text_begins(method, SERVICE) && peer->share;
}

bool share_called(Peer *peer, Call *call) {
        const char *method = call_envelope(call)->method;

        return share_is_method(peer, method) && serve(peer, call, method);
}
