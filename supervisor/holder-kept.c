/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Holder, its checkpoints: of each runner the last one that was kept. It has one entry on the board, whose tag is the first
 * of a row of tags: under it the keeper has the manifest, packed, and under those behind what the manifest lists. The entry
 * is written when the keeper has said of each of them that it has it, and is one store: so a supervisor that is killed at
 * any moment leaves the checkpoint before, or this one, whole. The one before goes after that. What a supervisor has left
 * without an entry is dropped by the next.
 *
 * What is put and dropped may be many thousands: it goes to the keeper so many at a time, and others' requests between.
 */

#include "supervisor/holder-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "proto/service-snapshot.h"
#include "supervisor/checkpoint.h"

#define DROP_LATER_US (10 * USEC_PER_MSEC)
#define AT_ONCE       512u /* requests to the keeper, of one checkpoint, and of all that is dropped */

/* One on its way to the keeper. */
struct Keeping {
        LIST_ENTRY(Keeping) link;
        Holder *holder;
        Manifest manifest;
        int memfd; /* the manifest, packed */
        BoardEntry entry;
        size_t n, next, n_out; /* descriptors: all, those that were put, and of them without an answer yet */
        int error;
        HolderKept done;
        void *userdata;
};

/* ------------------------------------------------------------------------------------------------------------- dropping */

static void drop_more(Holder *holder);

static void range_dropped(KeeperLink *link, int result, void *userdata) {
        Holder *holder = CONTAINER_OF(userdata, Holder, ranges);

        (void) link;
        (void) result;
        holder->n_range_drops--;
        drop_more(holder);
        if (holder->n_range_drops == 0) /* an address may be free now */
                loop_task_queue(holder->supervisor->loop, &holder->supervisor->spawn);
}

static void drop_more(Holder *holder) {
        TagRange *range;

        while (holder->n_range_drops < AT_ONCE && (range = SLIST_FIRST(&holder->ranges))) {
                int r = keeper_link_drop(holder->supervisor->link, 0, KEEPER_FD_SOCKET, range->next, range_dropped,
                                         &holder->ranges);

                if (r == -ENOBUFS || r == -ENOMEM) {
                        if (holder->n_range_drops == 0) /* else an answer makes room */
                                loop_timer_set(holder->supervisor->loop, &holder->drop_later,
                                               clock_after(clock_now(), DROP_LATER_US));
                        return;
                }
                holder->n_range_drops += r == 0;
                range->next++;
                if (--range->left > 0)
                        continue;
                SLIST_REMOVE_HEAD(&holder->ranges, link);
                free(range);
        }
}

static void drop_later(LoopTimer *timer) {
        drop_more(CONTAINER_OF(timer, Holder, drop_later));
}

void kept_init(Holder *holder) {
        holder->drop_later = LOOP_TIMER_NULL(drop_later);
}

void kept_drop_tags(Holder *holder, uint64_t first, size_t n) {
        TagRange *range = n > 0 ? malloc(sizeof(*range)) : NULL;

        if (!range)
                return; /* the next supervisor finds them without an entry */
        *range = (TagRange){ .next = first, .left = n };
        SLIST_INSERT_HEAD(&holder->ranges, range, link);
        drop_more(holder);
}

/* ----------------------------------------------------------------------------------------------------------------- kept */

Kept *kept_ref(Kept *kept) {
        kept->refs++;
        return kept;
}

Kept *kept_unref(Kept *kept) {
        if (!kept || --kept->refs > 0)
                return NULL;
        manifest_deinit(&kept->manifest);
        free(kept);
        return NULL;
}

static void drop(Holder *holder, Kept *kept) {
        uint64_t tag = board_entry(holder->board, kept->place)->tag;
        size_t n = kept->manifest.n + 1;

        board_remove(holder->board, kept->place);
        kept_unref(kept);
        kept_drop_tags(holder, tag, n);
}

void kept_drop(HeldSet *set) {
        if (set->kept)
                drop(set->holder, TAKE_PTR(set->kept));
}

/* replace() - @kept is the last one of @set from now on. */
static void replace(HeldSet *set, Kept *kept) {
        Kept *before = set->kept;

        set->kept = kept;
        if (before)
                drop(set->holder, before);
}

Kept *holder_kept(const Holder *holder, const Runner *runner) {
        const HeldSet *set = holder_find_set(holder, runner->name);

        return set ? set->kept : NULL;
}

const BoardEntry *holder_kept_entry(const Holder *holder, const Kept *kept) {
        return board_entry(holder->board, kept->place);
}

void holder_unkeep(Holder *holder, const Runner *runner) {
        HeldSet *set = holder_find_set(holder, runner->name);

        if (!set)
                return;
        kept_drop(set);
        holder_clean_set(set);
}

/* -------------------------------------------------------------------------------------------------------------- keeping */

static Keeping *keeping_free(Keeping *keeping) {
        LIST_REMOVE(keeping, link);
        manifest_deinit(&keeping->manifest);
        fd_close(keeping->memfd);
        free(keeping);
        return NULL;
}

/* commit() - the keeper has all of it. */
static int commit(Keeping *keeping) {
        Holder *holder = keeping->holder;
        HeldSet *set = holder_make_set(holder, keeping->entry.runner);
        Kept *kept = set ? calloc(1, sizeof(*kept)) : NULL;
        int r = -ENOMEM;

        if (kept)
                kept->refs = 1;
        if (kept)
                r = holder_begun(holder, board_add(holder->board, &keeping->entry, &kept->place));
        if (r < 0) {
                free(kept);
                if (set)
                        holder_clean_set(set);
                return r;
        }
        kept->manifest = keeping->manifest;
        keeping->manifest = MANIFEST_NULL;
        replace(set, kept);
        return 0;
}

/* undo() - what was put is dropped: the requests are answered in their order. */
static void undo(const Keeping *keeping) {
        kept_drop_tags(keeping->holder, keeping->entry.tag, keeping->next);
}

static void put_more(Keeping *keeping);

static void put_answered(KeeperLink *link, int result, void *userdata) {
        Keeping *keeping = userdata;
        HolderKept done = keeping->done;

        (void) link;
        keeping->n_out--;
        if (keeping->error == 0)
                keeping->error = result;
        put_more(keeping);
        if (keeping->n_out > 0)
                return;
        if (keeping->error == 0)
                keeping->error = commit(keeping);
        if (keeping->error < 0)
                undo(keeping);
        result = keeping->error;
        userdata = keeping->userdata;
        keeping_free(keeping);
        done(result, userdata);
}

static void put_more(Keeping *keeping) {
        while (keeping->error == 0 && keeping->next < keeping->n && keeping->n_out < AT_ONCE) {
                int fd = keeping->next == 0 ? keeping->memfd : keeping->manifest.fds[keeping->next - 1];
                int r = keeper_link_put(keeping->holder->supervisor->link, 0, KEEPER_FD_SOCKET,
                                        keeping->entry.tag + keeping->next, fd, put_answered, keeping);

                if (r == -ENOBUFS && keeping->n_out > 0)
                        return; /* an answer makes room */
                if (r < 0) {
                        keeping->error = r;
                        return;
                }
                keeping->next++;
                keeping->n_out++;
        }
}

int holder_keep(Holder *holder, const Instance *instance, uint64_t state_size, Manifest *manifest, HolderKept done,
                void *userdata, Keeping **ret_keeping) {
        Keeping *keeping = calloc(1, sizeof(*keeping));
        int r;

        if (!keeping)
                return -ENOMEM;
        *keeping = (Keeping){ .holder = holder, .memfd = -1, .done = done, .userdata = userdata };
        keeping->entry = (BoardEntry){ .kind = BOARD_CHECKPOINT,
                                       .instance = instance->id,
                                       .state_size = state_size,
                                       .n_fds = (uint32_t) manifest->n,
                                       .since_us = clock_now(),
                                       .since_wall_us = clock_wall() };
        (void) snprintf(keeping->entry.runner, sizeof(keeping->entry.runner), "%s", instance->runner->name);
        LIST_INSERT_HEAD(&holder->keeping, keeping, link);
        keeping->n = manifest->n + 1;
        r = manifest_pack(manifest, &keeping->memfd);
        if (r == 0)
                r = holder_begun(holder, board_reserve(holder->board, keeping->n, &keeping->entry.tag));
        if (r < 0) {
                keeping_free(keeping);
                return r;
        }
        keeping->manifest = *manifest;
        *manifest = MANIFEST_NULL;
        put_more(keeping);
        if (keeping->n_out == 0) {
                r = keeping->error;
                keeping_free(keeping);
                return r;
        }
        *ret_keeping = keeping;
        return 0;
}

void holder_keep_cancel(Keeping *keeping) {
        if (!keeping)
                return;
        keeper_link_forget(keeping->holder->supervisor->link, keeping);
        undo(keeping);
        keeping_free(keeping);
}

void kept_end(Holder *holder) {
        Keeping *keeping;
        TagRange *range;

        while ((keeping = LIST_FIRST(&holder->keeping))) {
                if (holder->supervisor->link)
                        keeper_link_forget(holder->supervisor->link, keeping);
                keeping_free(keeping);
        }
        if (holder->supervisor->link)
                keeper_link_forget(holder->supervisor->link, &holder->ranges);
        loop_timer_stop(&holder->drop_later);
        while ((range = SLIST_FIRST(&holder->ranges))) {
                SLIST_REMOVE_HEAD(&holder->ranges, link);
                free(range);
        }
}

/* ----------------------------------------------------------------------------------------------------------- recovering */

/* take() - the descriptors of @kept, as told. 0, or a negative errno with one line in @reason. */
static int take(Holder *holder, const BoardEntry *entry, Kept *kept, char reason[MANIFEST_REASON_SIZE]) {
        _cleanup_fd_ int memfd = holder_take_told(holder, entry->tag);
        int r;

        if (memfd < 0) {
                (void) snprintf(reason, MANIFEST_REASON_SIZE, "its manifest is missing");
                return -ENOENT;
        }
        r = manifest_unpack(&kept->manifest, memfd, 1, SERVICE_SNAPSHOT_VERSION, CHECKPOINT_FDS_MAX, reason);
        if (r == 0 && kept->manifest.n != entry->n_fds) {
                (void) snprintf(reason, MANIFEST_REASON_SIZE, "its manifest lists %zu descriptors, and should list %u",
                                kept->manifest.n, entry->n_fds);
                return -EPROTO;
        }
        for (size_t i = 0; r == 0 && i < kept->manifest.n; i++) {
                int fd = holder_take_told(holder, entry->tag + 1 + i);

                if (fd < 0) {
                        (void) snprintf(reason, MANIFEST_REASON_SIZE, "%s is missing",
                                        kept->manifest.entries[i]->name);
                        return -ENOENT;
                }
                r = manifest_accept(&kept->manifest, i, fd, reason);
        }
        return r;
}

void kept_recover(Holder *holder, size_t place) {
        const BoardEntry *entry = board_entry(holder->board, place), *other = NULL;
        HeldSet *set = holder_make_set(holder, entry->runner);
        Kept *kept = set ? calloc(1, sizeof(*kept)) : NULL;
        char reason[MANIFEST_REASON_SIZE] = "no memory";

        if (kept)
                *kept = (Kept){ .refs = 1, .place = place };
        if (!kept || take(holder, entry, kept, reason) < 0) {
                log_warning("runner %s: its checkpoint is lost: %s", entry->runner, reason);
                kept_unref(kept);
                kept_drop_tags(holder, entry->tag, MIN(entry->n_fds, (uint32_t) CHECKPOINT_FDS_MAX) + 1u);
                board_remove(holder->board, place);
                if (set)
                        holder_clean_set(set);
                return;
        }
        if (set->kept)
                other = board_entry(holder->board, set->kept->place);
        if (other && other->tag > entry->tag) /* the supervisor before was killed while it replaced this one */
                drop(holder, kept);
        else
                replace(set, kept);
}
