/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Recovery: collected slot by slot, decided when the table is complete. What the keeper has killed, and what had exited, is
 * reported by EXITs afterwards like any end. The rest is adopted where all that belongs to it has arrived, and killed where
 * not: its EXIT comes then, too.
 *
 * A slot that cannot even be remembered here, for lack of memory, is killed at once by its number in the keeper.
 */

#include "supervisor/recovery.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/parse.h"
#include "supervisor/runner-record.h"
#include "supervisor/supervisor.h"

/* ---------------------------------------------------------------------------------------------------------- collecting */

static Recovered *recovered_free(Recovered *slot) {
        RecoveredFd *entry;

        if (!slot)
                return NULL;
        while ((entry = SLIST_FIRST(&slot->fds))) {
                SLIST_REMOVE_HEAD(&slot->fds, link);
                fd_close(entry->fd);
                free(entry);
        }
        fd_close(slot->pidfd);
        free(slot);
        return NULL;
}

static Recovered *find(const Recovery *recovery, uint64_t instance) {
        Recovered *slot;

        HASH_FIND(hh, recovery->slots, &instance, sizeof(instance), slot);
        return slot;
}

/* add() - one that was not told of yet, or NULL: no memory. */
static Recovered *add(Recovery *recovery, const KeeperSlot *slot) {
        Recovered *r = calloc(1, sizeof(*r));

        if (!r)
                return NULL;
        r->instance = slot->instance;
        r->pidfd = -1;
        (void) strcpy(r->name, slot->name);
        HASH_ADD(hh, recovery->slots, instance, sizeof(r->instance), r);
        return r->hh.tbl ? r : recovered_free(r);
}

void recovery_slot(Recovery *recovery, const KeeperSlot *slot, int pidfd_consume) {
        _cleanup_fd_ int pidfd = pidfd_consume;
        Recovered *r = find(recovery, slot->instance);

        if (!r)
                r = add(recovery, slot);
        if (!r) {
                recovery->incomplete = true;
                return;
        }
        r->state = slot->state;
        r->flags = slot->flags;
        r->pid = slot->pid;
        if (pidfd >= 0) {
                fd_close(r->pidfd);
                r->pidfd = fd_take(&pidfd);
        }
        r->record = (Record){ 0 };
        r->has_record = record_unpack(slot->record, &r->record) == 0;
}

void recovery_stored(Recovery *recovery, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        Recovered *slot = find(recovery, instance);
        RecoveredFd *entry = slot ? malloc(sizeof(*entry)) : NULL;

        if (!entry) {
                recovery->incomplete = true;
                return;
        }
        *entry = (RecoveredFd){ .kind = kind, .tag = tag, .fd = fd_take(&fd) };
        SLIST_INSERT_HEAD(&slot->fds, entry, link);
}

void recovery_gone(Recovery *recovery, uint64_t instance) {
        Recovered *slot = find(recovery, instance);

        if (!slot)
                return;
        HASH_DELETE(hh, recovery->slots, slot);
        recovered_free(slot);
}

int recovered_take(Recovered *slot, KeeperFdKind kind, uint64_t tag) {
        RecoveredFd *entry;
        int fd = -1;

        SLIST_FOREACH(entry, &slot->fds, link)
        if (entry->kind == kind && entry->tag == tag)
                break;
        if (!entry)
                return -1;
        fd = entry->fd;
        SLIST_REMOVE(&slot->fds, entry, RecoveredFd, link);
        free(entry);
        return fd;
}

void recovery_deinit(Recovery *recovery) {
        Recovered *slot, *next;

        HASH_ITER (hh, recovery->slots, slot, next) {
                HASH_DELETE(hh, recovery->slots, slot);
                recovered_free(slot);
        }
        recovery->incomplete = false;
}

/* ------------------------------------------------------------------------------------------------------------ deciding */

char *recovery_place(const Supervisor *supervisor, const Recovered *slot, const char *file) {
        const char *slash = strrchr(supervisor->boot_template, '/');
        char *path;

        if (!*slot->record.place || strchr(slot->record.place, '/') || !slash ||
            asprintf(&path, "%.*s/%s/%s", (int) (slash - supervisor->boot_template), supervisor->boot_template,
                     slot->record.place, file) < 0)
                return NULL;
        return path;
}

bool recovery_uses(const Recovery *recovery, const char *name) {
        Recovered *slot, *next;

        HASH_ITER (hh, recovery->slots, slot, next)
                if (slot->state == KEEPER_SLOT_BORN && strcmp(slot->record.place, name) == 0)
                        return true;
        return false;
}

/* is_instance_of() - the number of @name in the template @config; 0: it is none of it. */
static uint32_t number_in(const RunnerConfig *config, const char *name) {
        size_t n = strlen(config->name);
        uint64_t number;

        if (!config->is_template || strncmp(name, config->name, n) != 0 || name[n] != '.' ||
            parse_u64(name + n + 1, CONFIG_INSTANCES_MAX, &number) < 0)
                return 0;
        return (uint32_t) number;
}

/* scale_up() - instances above the number in the configuration are there because somebody has scaled their template. */
static void scale_up(Supervisor *supervisor, const Recovery *recovery) {
        const Config *config = supervisor->config;
        char error[FLEET_ERROR_SIZE];
        Recovered *slot, *next;
        uint32_t before;

        HASH_ITER (hh, recovery->slots, slot, next)
                for (size_t i = 0; config && i < config->n_runners; i++) {
                        uint32_t number = number_in(config->runners[i], slot->name);

                        if (number > fleet_count(supervisor, config->runners[i]->name))
                                (void) fleet_scale(supervisor, config->runners[i]->name, number, &before, error);
                }
}

/* make_transient() - a client had started it, and no configuration has it: as much of a runner as is known. */
static Runner *make_transient(Supervisor *supervisor, const Recovered *slot) {
        _cleanup_(runner_config_unrefp) RunnerConfig *config = NULL;
        const char *const command[] = { slot->name, NULL };
        RunnerConfig draft = RUNNER_CONFIG_NULL;
        Runner *runner;

        draft.name = slot->name;
        draft.command = command;
        draft.restart = RESTART_NEVER;
        draft.ready = slot->flags & KEEPER_FLAG_NATIVE ? CONFIG_READY_HELLO : CONFIG_READY_NONE;
        draft.literal = true;
        if (runner_config_new(&config, &draft) < 0 || runner_new(&runner, supervisor, config, 0) < 0)
                return NULL;
        runner->transient = true;
        runner->desired = DESIRED_UP;
        return runner;
}

/* kill_slot() - its EXIT is acknowledged as one that nobody knows. */
static void kill_slot(Supervisor *supervisor, const Recovered *slot, const char *why) {
        log_warning("runner %s: pid %d is killed: %s", slot->name, slot->pid, why);
        (void) keeper_link_signal(supervisor->link, slot->instance, SIGKILL, NULL, NULL);
}

/* heed() - what had been asked of it, and was under way. */
static void heed(Runner *runner, const Record *record) {
        if (record->desired == DESIRED_DOWN)
                runner_stop(runner, 0);
        else if (record->state == POLICY_STOPPING)
                (void) runner_restart(runner);
}

static void recover(Supervisor *supervisor, Recovered *slot) {
        Runner *runner = runner_find(supervisor, slot->name);
        int r;

        if (!runner && slot->record.flags & RECORD_TRANSIENT)
                runner = make_transient(supervisor, slot);
        if (!runner || runner->instance) {
                kill_slot(supervisor, slot, runner ? "it has run twice" : "there is no such runner any more");
                return;
        }
        if (slot->has_record)
                runner->desired = slot->record.desired == DESIRED_UP ? DESIRED_UP : DESIRED_DOWN;
        runner_restore(runner, &slot->record);
        r = instance_adopt(runner, slot);
        if (r < 0)
                kill_slot(supervisor, slot, "no memory for it");
        else if (r > 0 && slot->has_record)
                heed(runner, &slot->record);
}

static void recover_kept(Supervisor *supervisor, Recovered *slot) {
        Runner *runner = runner_find(supervisor, slot->name);

        if (runner && slot->has_record)
                runner_restore_kept(runner, &slot->record, slot->instance);
        else
                (void) keeper_link_cancel(supervisor->link, slot->instance);
}

/* newest_first() - of two instances of a name, the younger one is the one to serve. */
static int newest_first(const Recovered *a, const Recovered *b) {
        return a->instance < b->instance ? 1 : -1;
}

void recovery_run(Recovery *recovery, Supervisor *supervisor) {
        Recovered *slot, *next;

        if (recovery->incomplete)
                log_warning("not everything of the supervisor before could be taken over: no memory, or descriptors");
        scale_up(supervisor, recovery);
        HASH_SORT(recovery->slots, newest_first);
        HASH_ITER (hh, recovery->slots, slot, next)
                if (slot->state == KEEPER_SLOT_KEPT)
                        recover_kept(supervisor, slot);
        HASH_ITER (hh, recovery->slots, slot, next)
                if (slot->state == KEEPER_SLOT_BORN || slot->state == KEEPER_SLOT_EXITED)
                        recover(supervisor, slot);
        recovery_deinit(recovery);
}
