#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Shared arenas: memory that one side writes in place and the other reads where it is. ArenaPool is the owner's side: it
 * makes arenas, allocates blocks and knows who holds them. ArenaMap is the reader's: it checks what a peer announces, maps
 * it, and turns a block that came with a frame into a pointer. Neither sends anything, neither knows a loop.
 *
 * What an integrator does:
 * - owner: arena_pool_alloc(), write, arena_pool_give(), send the block; arena_pool_release() when the peer's Release
 *   comes, arena_pool_peer_gone() when the peer is gone; arena_pool_expire() at arena_pool_deadline(). The callbacks
 *   announce and retire say what to tell the peers.
 * - reader: arena_map_announce() and arena_map_retire() as the peer says; arena_map_resolve() for a block, or
 *   arena_map_discard() where its frame is discarded; arena_view_release() when done; arena_map_take_returns() for one
 *   Release message.
 *
 * Every pointer into shared memory is to bytes that the other process can change at any moment: copy first, then parse
 * the copy. One thread at a time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/macro.h"

typedef struct ArenaPool ArenaPool;
typedef struct ArenaMap ArenaMap;
typedef struct ArenaMapping ArenaMapping;

#define ARENA_UNIT ((uint64_t) 4096) /* blocks begin at multiples of it; the smallest class */
#define ARENA_OURS ((uint64_t) 0)    /* no peer's tag */

/* A block as it goes over the wire (baton.Block). */
typedef struct ArenaBlock {
        uint64_t arena, offset, length;
} ArenaBlock;

/* arena_error() - what a negative errno of these functions says of a block or an arena, for people: "released twice". */
const char *arena_error(int error);

/* ---- the owner's side ---- */

/* 0 means the default given here. */
typedef struct ArenaPoolConfig {
        uint64_t max_bytes;  /* of all arenas; 64 MiB */
        uint32_t max_arenas; /* 64, which is also the most */
        uint64_t arena_size; /* of an ordinary one, a power of two; 4 MiB; larger blocks get arenas of their own */
        uint64_t idle_us;    /* an arena unused for one to two of these is retired; 5 s */
        /*
         * Peers can only read. Then a retired arena's memory lives as long as a peer keeps it; without, it is given back
         * whatever the peer does. Peers that share a pool can read each other's blocks: where they do not trust each
         * other, each has a pool of its own.
         */
        bool read_only;
        /*
         * A new arena, to be announced before any block of it is sent; @fd stays the pool's. A negative errno undoes it,
         * and arena_pool_alloc() returns that. Must not call the pool. NULL: none needed.
         */
        int (*announce)(void *userdata, uint64_t id, int fd, uint64_t size);
        /* An arena without a block, already gone: the peers are to be told. Must not call the pool. NULL: none needed. */
        void (*retire)(void *userdata, uint64_t id);
        void *userdata;
} ArenaPoolConfig;

typedef struct ArenaPoolUsage {
        uint32_t arenas, blocks;
        uint64_t arena_bytes, block_bytes; /* block_bytes: as rounded up to classes */
        uint64_t peak_arena_bytes;
} ArenaPoolUsage;

/* arena_pool_new() - 0, -EINVAL (arena_size no power of two, or below ARENA_UNIT; max_arenas above 64), -ENOMEM. */
int arena_pool_new(ArenaPool **ret_pool, const ArenaPoolConfig *config);

/* arena_pool_free() - every block with it, held ones too; tells nobody. Accepts NULL, returns NULL. */
ArenaPool *arena_pool_free(ArenaPool *pool);
DEFINE_CLEANUP(ArenaPool *, arena_pool_free);

/*
 * arena_pool_alloc() - a block of @size bytes, to be written at @ret_memory and then given, or dropped. What was in the
 * memory before is still there. 0; -EINVAL (size 0), -EMSGSIZE (never fits), -ENOBUFS (not now: send it inline, or wait
 * for a release), -ENOMEM, -EMFILE, -ENFILE, -EFBIG, what announce() returned.
 */
int arena_pool_alloc(ArenaPool *pool, uint64_t size, ArenaBlock *ret_block, void **ret_memory);

/* arena_pool_trim() - @block, not given yet, is only @length bytes long. 0; -ERANGE (0, or longer); as arena_pool_drop(). */
int arena_pool_trim(ArenaPool *pool, ArenaBlock *block, uint64_t length);

/* arena_pool_give() - @block is @peer's from here: its frame is on the way. @peer is not ARENA_OURS. As arena_pool_drop(). */
int arena_pool_give(ArenaPool *pool, const ArenaBlock *block, uint64_t peer);

/* arena_pool_drop() - a block that was not given is free again. Errors as arena_pool_release(). */
int arena_pool_drop(ArenaPool *pool, const ArenaBlock *block);

/*
 * arena_pool_release() - @peer gives @block back; every field of it is foreign. 0; -ENOENT (no such arena), -ERANGE (offset
 * outside), -EINVAL (not the start of a block), -EALREADY (free: released twice, or never given), -EACCES (not this
 * peer's), -EMSGSIZE (another length). An error changes nothing.
 */
int arena_pool_release(ArenaPool *pool, uint64_t peer, const ArenaBlock *block);

/* arena_pool_peer_gone() - all that @peer held is free again; returns how many blocks that were. */
size_t arena_pool_peer_gone(ArenaPool *pool, uint64_t peer);

/*
 * arena_pool_refused() - a peer did not take arena @id: no new blocks in it, gone when it has none; from now on the pool
 * keeps below the bytes that it had with it. 0, -ENOENT.
 */
int arena_pool_refused(ArenaPool *pool, uint64_t id);

/* arena_pool_announce() - tells of all arenas again, by the callback: for one more peer, or after a renewal. 0 or its error. */
int arena_pool_announce(ArenaPool *pool);

/* arena_pool_deadline() - when to call arena_pool_expire(), of the monotonic clock; USEC_INFINITY: nothing is idle. */
uint64_t arena_pool_deadline(const ArenaPool *pool);

/* arena_pool_expire() - retires what was not used for long enough at @now. */
void arena_pool_expire(ArenaPool *pool, uint64_t now);

ArenaPoolUsage arena_pool_usage(const ArenaPool *pool);

/*
 * For a pool that follows another process's: arena_pool_serial() - what its ids were made from; arena_pool_ids() - of the
 * arenas it has, at most 64; returns how many. arena_pool_follow() - a new pool makes ids beyond @serial, and a release of
 * the other pool's blocks is no error.
 */
uint64_t arena_pool_serial(const ArenaPool *pool);
size_t arena_pool_ids(const ArenaPool *pool, uint64_t ret_ids[64]);
void arena_pool_follow(ArenaPool *pool, uint64_t serial);

/* ---- the reader's side ---- */

/* What the maps of all peers may hold together; NULL in a map's limits: no bound but its own. */
typedef struct ArenaBudget {
        uint64_t max_bytes, used_bytes;
} ArenaBudget;

/* 0 means the default given here. */
typedef struct ArenaMapLimits {
        uint64_t max_bytes;  /* of the peer's arenas, retired ones that are still held too; 64 MiB */
        uint32_t max_arenas; /* 64 */
        uint32_t
                max_blocks; /* resolved, or waiting to be sent back; as many units as max_bytes has: each of them once */
        ArenaBudget *budget; /* outlives the map and its views */
        bool writable;       /* map for writing too */
        bool keep_fds;       /* for arena_map_each() */
} ArenaMapLimits;

/* A block that was resolved; keeps its arena mapped, the map itself may go. */
typedef struct ArenaView {
        void *memory; /* the peer's, too: copy before you look; read-only unless the map is writable */
        size_t size;
        uint64_t offset;
        ArenaMapping *mapping; /* NULL: released */
} ArenaView;
#define ARENA_VIEW_NULL ((ArenaView){ .mapping = NULL })

int arena_map_new(ArenaMap **ret_map, const ArenaMapLimits *limits); /* 0, -ENOMEM */

/*
 * arena_map_free() - all arenas of this peer go, those with open views when the last is released. Accepts NULL, returns
 * NULL.
 */
ArenaMap *arena_map_free(ArenaMap *map);
DEFINE_CLEANUP(ArenaMap *, arena_map_free);

/*
 * arena_map_announce() - maps @fd_consume, which is not needed any more afterwards. 0; -EEXIST (id in use), -EINVAL (no
 * memfd, size 0), -EPERM (not sealed), -ERANGE (another size), -EDQUOT (above max_bytes), -ENOBUFS (max_arenas or the
 * budget), -EACCES (not writable, but should be), -EBADF, -ENOMEM.
 */
int arena_map_announce(ArenaMap *map, uint64_t id, int fd_consume, uint64_t size);

/* arena_map_retire() - 0, -ENOENT, -EALREADY (retired before, blocks still out). */
int arena_map_retire(ArenaMap *map, uint64_t id);

/* arena_map_each() - the arenas that are announced and not retired, with their descriptors (limits.keep_fds). */
void arena_map_each(const ArenaMap *map, void (*function)(uint64_t id, uint64_t size, int fd, void *userdata),
                    void *userdata);

/*
 * arena_map_resolve() - a block that came with a frame, every field of it foreign. The view is to be released. 0; -ENOENT
 * (no such arena), -ESTALE (retired), -ERANGE (offset or length outside, length 0), -EUSERS (max_blocks), -ENOMEM.
 */
int arena_map_resolve(ArenaMap *map, const ArenaBlock *block, ArenaView *ret_view);

/* arena_map_discard() - a block whose frame nobody wanted goes back unseen. Errors as arena_map_resolve(). */
int arena_map_discard(ArenaMap *map, const ArenaBlock *block);

/*
 * arena_map_object() - a sealed object (common/memfd.h) of exactly @size bytes as a view, counted as an arena is: it takes
 * its bytes of max_bytes until it is released, and nothing is sent back. What it shows can never change. 0; -EDQUOT,
 * -ENOBUFS as arena_map_announce(); -EINVAL (no memfd), -EPERM (not sealed), -ERANGE (another size), -EBADF, -ENOMEM.
 */
int arena_map_object(ArenaMap *map, int fd, uint64_t size, ArenaView *ret_view);

/* arena_view_copy() - @size bytes from @offset of the view to private memory. 0, -ERANGE. */
int arena_view_copy(const ArenaView *view, size_t offset, void *to, size_t size);

/* arena_view_release() - the block is to be sent back; leaves @view empty. Never fails; good for an empty one. */
void arena_view_release(ArenaView *view);

/* arena_map_pending() - how many blocks wait to be sent back. */
size_t arena_map_pending(const ArenaMap *map);

/* arena_map_take_returns() - moves at most @max of them to @ret_blocks, for one Release; returns how many. */
size_t arena_map_take_returns(ArenaMap *map, ArenaBlock *ret_blocks, size_t max);
