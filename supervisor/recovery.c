/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Recovery: collected slot by slot, decided when the table is complete. What the keeper has killed, and what had exited, is
 * reported by EXITs afterwards like any end. The rest is adopted where all that belongs to it has arrived, and killed where
 * not: its EXIT comes then, too.
 *
 * A successor of one that lives follows the table instead (recovery_follow()): a runner that is up is adopted long before the
 * freeze, and what becomes of it until then is a change of its record, or its end. So the freeze has to look at what has
 * changed since the last look, and at nothing else. Where not all of a runner is there, no runner is killed: the takeover is
 * refused.
 *
 * A slot that cannot even be remembered here, for lack of memory, is killed at once by its number in the keeper.
 */

#include "supervisor/recovery.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/pace.h"
#include "common/parse.h"
#include "supervisor/chronicle.h"
#include "supervisor/instance-internal.h"
#include "supervisor/runner-internal.h"
#include "supervisor/runner-record.h"
#include "supervisor/successor.h"
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

void recovery_init(Recovery *recovery) {
        *recovery = (Recovery){ 0 };
        TAILQ_INIT(&recovery->changed);
}

static void touch(Recovery *recovery, Recovered *slot) {
        if (slot->is_changed)
                return;
        slot->is_changed = true;
        TAILQ_INSERT_TAIL(&recovery->changed, slot, changed);
}

/* forget() - of the table and of the queue. */
static void forget(Recovery *recovery, Recovered *slot) {
        if (slot->is_changed)
                TAILQ_REMOVE(&recovery->changed, slot, changed);
        HASH_DELETE(hh, recovery->slots, slot);
        recovered_free(slot);
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
        touch(recovery, r);
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
        touch(recovery, slot);
}

void recovery_gone(Recovery *recovery, uint64_t instance) {
        Recovered *slot = find(recovery, instance);

        if (!slot)
                return;
        slot->is_gone = true;
        touch(recovery, slot);
}

void recovery_again(Recovery *recovery, uint64_t instance) {
        Recovered *slot = find(recovery, instance);

        if (slot)
                touch(recovery, slot);
}

int recovered_take_kind(Recovered *slot, KeeperFdKind kind, uint64_t *ret_tag) {
        RecoveredFd *entry, *next;
        int fd = -1;

        for (entry = SLIST_FIRST(&slot->fds); entry; entry = next) {
                next = SLIST_NEXT(entry, link);
                if (entry->kind != kind)
                        continue;
                if (fd < 0) {
                        *ret_tag = entry->tag;
                        fd = fd_take(&entry->fd);
                }
                SLIST_REMOVE(&slot->fds, entry, RecoveredFd, link);
                fd_close(entry->fd);
                free(entry);
        }
        return fd;
}

int recovered_take(Recovered *slot, KeeperFdKind kind, uint64_t tag) {
        RecoveredFd *entry;
        int fd = -1;

        SLIST_FOREACH (entry, &slot->fds, link)
                if (entry->kind == kind && entry->tag == tag)
                        break;
        if (!entry)
                return -1;
        fd = entry->fd;
        SLIST_REMOVE(&slot->fds, entry, RecoveredFd, link);
        free(entry);
        return fd;
}

bool recovery_forget(Recovery *recovery, unsigned max) {
        for (; recovery->slots && max > 0; max--)
                forget(recovery, recovery->slots);
        return max == 0;
}

void recovery_deinit(Recovery *recovery) {
        while (recovery_forget(recovery, UINT_MAX))
                ;
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
                if (slot->state == KEEPER_SLOT_BORN && !(slot->flags & KEEPER_FLAG_DOOMED) &&
                    strcmp(slot->record.place, name) == 0)
                        return true;
        return false;
}

static bool is_of_template(const Recovered *slot) {
        return slot->state == KEEPER_SLOT_KEPT && slot->has_record && slot->record.flags & RECORD_TEMPLATE;
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

/* scale_up() - an instance above the number in the configuration is there because somebody has scaled its template. */
static void scale_up(Supervisor *supervisor, const char *name) {
        char template[CONFIG_NAME_MAX + 1];
        const char *dot = strrchr(name, '.');
        const RunnerConfig *config;

        if (!dot || !supervisor->config)
                return;
        (void) snprintf(template, sizeof(template), "%.*s", (int) (dot - name), name);
        config = config_find(supervisor->config, template);
        if (config)
                fleet_recover_instance(supervisor, template, number_in(config, name));
}

/* make_transient() - a client had started it, and no configuration has it; what it was started with should be known. */
static Runner *make_transient(Supervisor *supervisor, const Recovered *slot) {
        _cleanup_(runner_config_unrefp) RunnerConfig *config =
                chronicle_configuration(supervisor->chronicle, slot->name);
        const char *const command[] = { slot->name, NULL };
        RunnerConfig draft = RUNNER_CONFIG_NULL;
        Runner *runner;

        draft.name = slot->name;
        draft.command = command;
        draft.restart = RESTART_NEVER;
        draft.ready = slot->flags & KEEPER_FLAG_NATIVE ? CONFIG_READY_HELLO : CONFIG_READY_NONE;
        draft.literal = true;
        if ((!config && runner_config_new(&config, &draft) < 0) || runner_new(&runner, supervisor, config, 0) < 0)
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

/* find_runner() - the one whose @slot is, made if need be; NULL: there is none. */
static Runner *find_runner(Supervisor *supervisor, const Recovered *slot) {
        Runner *runner = slot->flags & KEEPER_FLAG_TRANSIENT ? hooks_find(supervisor->hooks, slot->name)
                                                             : runner_find(supervisor, slot->name);

        if (!runner && slot->record.flags & RECORD_TRANSIENT)
                runner = make_transient(supervisor, slot);
        return runner;
}

/* adopt() - as instance_adopt(). */
static int adopt(Runner *runner, Recovered *slot) {
        if (slot->has_record)
                runner->desired = slot->record.desired == DESIRED_UP ? DESIRED_UP : DESIRED_DOWN;
        runner_restore(runner, &slot->record);
        chronicle_restore(runner);
        chronicle_configure(runner, slot->instance);
        return instance_adopt(runner, slot);
}

/* recover_other() - one besides the one that is to serve: its predecessor finishes, a successor of it has to go. */
static void recover_other(Runner *runner, Recovered *slot) {
        bool before = slot->instance < runner->instance->id;

        if (!before && slot->state != KEEPER_SLOT_EXITED)
                kill_slot(runner->supervisor, slot, "its upgrade was not finished");
        else if (instance_adopt_past(runner, slot) < 0)
                kill_slot(runner->supervisor, slot, "no memory for it");
}

static void recover(Supervisor *supervisor, Recovered *slot) {
        Runner *runner = find_runner(supervisor, slot);
        int r;

        if (!runner) {
                kill_slot(supervisor, slot, "there is no such runner any more");
                return;
        }
        if (runner->instance) {
                recover_other(runner, slot);
                return;
        }
        if (slot->record.flags & RECORD_UPGRADE && !(slot->flags & KEEPER_FLAG_ACTIVE))
                (void) keeper_link_active(supervisor->link, slot->instance);
        r = adopt(runner, slot);
        if (r < 0)
                kill_slot(supervisor, slot, "no memory for it");
        else if (r > 0 && slot->has_record && !runner->crossed)
                heed(runner, &slot->record);
}

static void recover_kept(Supervisor *supervisor, Recovered *slot) {
        Runner *runner = runner_find(supervisor, slot->name);

        if (runner && slot->has_record)
                runner_restore_kept(runner, &slot->record, slot->instance);
        else
                (void) keeper_link_cancel(supervisor->link, slot->instance);
}

/*
 * preference() - of the processes of a runner, the lower first. The one that the keeper was told to be the active one
 * serves, or, without that word, the elder: a successor that was not made the active one has not served. One that has ended
 * before it ever did, as its record says, gives way to its predecessor.
 */
static int preference(const Recovered *slot) {
        bool ended = slot->state == KEEPER_SLOT_EXITED || slot->flags & KEEPER_FLAG_DOOMED;

        if (slot->flags & KEEPER_FLAG_ACTIVE)
                return ended && slot->record.flags & RECORD_UPGRADE ? 3 : 0;
        return slot->record.flags & RECORD_PAST ? 2 : 1;
}

static int best_first(const Recovered *a, const Recovered *b) {
        if (preference(a) != preference(b))
                return preference(a) - preference(b);
        return a->instance > b->instance ? 1 : -1;
}

void recovery_run(Recovery *recovery, Supervisor *supervisor) {
        Recovered *slot, *next;

        if (recovery->incomplete)
                log_warning("not everything of the supervisor before could be taken over: no memory, or descriptors");
        HASH_ITER (hh, recovery->slots, slot, next)
                if (is_of_template(slot))
                        (void) scaled_adopt(supervisor, slot->name, slot->instance, slot->record.scaled);
        HASH_ITER (hh, recovery->slots, slot, next)
                if (!runner_find(supervisor, slot->name) && !is_of_template(slot))
                        scale_up(supervisor, slot->name);
        for (Runner *runner = runner_first(supervisor); runner; runner = runner_next(runner))
                chronicle_configure(runner, 0);
        HASH_SORT(recovery->slots, best_first);
        HASH_ITER (hh, recovery->slots, slot, next)
                if (slot->state == KEEPER_SLOT_KEPT && !is_of_template(slot))
                        recover_kept(supervisor, slot);
        HASH_ITER (hh, recovery->slots, slot, next)
                if (slot->state == KEEPER_SLOT_BORN || slot->state == KEEPER_SLOT_EXITED)
                        recover(supervisor, slot);
        HASH_ITER (hh, recovery->slots, slot, next)
                if (is_of_template(slot)) /* now that it is known which of its instances have a process */
                        fleet_recover_number(supervisor, slot->name, slot->record.scaled);
        scaled_forget_others(supervisor);
        recovery_deinit(recovery);
}

/* ----------------------------------------------------------------------------------------- following one that lives */

/*
 * is_settled() - what it is now it stays, or it changes in a way that needs nothing of it anew: the record, its end. The
 * rest (a runner that is being started or stopped, or that says it is) may have become something else by the next time.
 */
static bool is_settled(const Supervisor *supervisor, const Recovered *slot, const Runner *runner) {
        const Record *record = &slot->record;
        bool native = slot->flags & KEEPER_FLAG_NATIVE;

        if (slot->state == KEEPER_SLOT_KEPT)
                return true;
        if (record->flags & (RECORD_UPGRADE | RECORD_PAST))
                return false; /* it ends with one of the two, or with it */
        if (slot->state != KEEPER_SLOT_BORN || !(slot->flags & KEEPER_FLAG_STARTED) ||
            slot->flags & (KEEPER_FLAG_DOOMED | KEEPER_FLAG_TRANSIENT) || !slot->has_record ||
            record->desired != DESIRED_UP || record->state == POLICY_STOPPING)
                return false;
        if (native && !successor_has_peer(supervisor->successor, slot->instance))
                return false;
        return record->flags & RECORD_READY || (runner && runner->config->ready == CONFIG_READY_NONE);
}

/* discard() - what was made of @slot, and the runner is as its configuration has made it. */
static void discard(Supervisor *supervisor, Recovered *slot) {
        Runner *runner = runner_find(supervisor, slot->name);

        slot->is_adopted = false;
        successor_forget_peer(supervisor->successor, slot->instance);
        if (runner && runner_is_occupied(runner) && runner->instance->id == slot->instance) {
                supervisor_instance_gone(supervisor, runner->instance);
                runner->instance = instance_free(runner->instance);
        } else if (runner && runner->kept == slot->instance) {
                runner->kept = 0;
        } else {
                return;
        }
        if (runner->crossed) { /* what it is now is to come, or has come before this */
                precopy_queue(&supervisor->precopy, &runner->copied);
                return;
        }
        if (runner->transient)
                transient_forget(runner);
        else
                runner_as_made(runner);
}

static int _printf_(2, 3) cannot(char reason[RECOVERY_REASON_SIZE], const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(reason, RECOVERY_REASON_SIZE, format, arguments);
        va_end(arguments);
        return -EINVAL;
}

/* take_up() - @runner: the one of its name, or NULL. */
static int take_up(Supervisor *supervisor, Recovered *slot, Runner *runner, char reason[RECOVERY_REASON_SIZE]) {
        int r;

        if (!runner || slot->flags & KEEPER_FLAG_TRANSIENT)
                runner = find_runner(supervisor, slot);
        if (!runner || runner_is_occupied(runner)) {
                kill_slot(supervisor, slot, runner ? "it has run twice" : "there is no such runner any more");
                return 0;
        }
        runner->instance = instance_free(runner->instance); /* one that is over, of which the predecessor has told */
        if (!runner->transient && !runner->hidden)
                runner_as_made(runner);
        slot->is_adopted = true;
        r = adopt(runner, slot);
        if (r < 0 || (r == 0 && slot->state == KEEPER_SLOT_BORN))
                return cannot(reason, "runner %s (pid %d) cannot be taken over: %s", slot->name, slot->pid,
                              r < 0 ? strerror(-r) : "something of it is missing");
        if (runner->crossed)
                precopy_queue(&supervisor->precopy, &runner->copied);
        else if (r > 0 && slot->has_record)
                heed(runner, &slot->record);
        if (!runner->events) /* there is nothing to be handled for it */
                supervisor_unqueue_runner(supervisor, runner);
        return 0;
}

/* refresh() - of one that was adopted, and goes on: what was counted and wanted since. */
static void refresh(Runner *runner, Recovered *slot, bool is_final) {
        if (slot->state != KEEPER_SLOT_BORN || !slot->has_record || !runner || !runner->instance ||
            runner->instance->id != slot->instance || runner->crossed) /* the predecessor tells more */
                return;
        instance_adopt_main(runner->instance, slot);
        runner->desired = slot->record.desired == DESIRED_UP ? DESIRED_UP : DESIRED_DOWN;
        runner_restore(runner, &slot->record);
        if (is_final)
                heed(runner, &slot->record);
}

/* follow_slot() - true: there is nothing left to be done for it, as long as it does not change again. */
static int follow_slot(Supervisor *supervisor, Recovered *slot, bool is_final, char reason[RECOVERY_REASON_SIZE]) {
        Runner *runner;

        if (is_of_template(slot)) {
                if (scaled_adopt(supervisor, slot->name, slot->instance, slot->record.scaled) < 0)
                        return cannot(reason, "no memory for the number of template %s", slot->name);
                return true;
        }
        runner = runner_find(supervisor, slot->name);
        if (slot->is_adopted) {
                refresh(runner, slot, is_final);
                return true;
        }
        if (!is_final && !is_settled(supervisor, slot, runner))
                return false;
        if (!runner) {
                scale_up(supervisor, slot->name);
                runner = runner_find(supervisor, slot->name);
        }
        if (!is_final && runner && runner_is_occupied(runner))
                return false; /* the one before it goes first */
        if (!is_final && !runner && !(slot->record.flags & RECORD_TRANSIENT))
                return false; /* the snapshot may have it */
        if (slot->state == KEEPER_SLOT_KEPT && runner && runner->crossed && slot->has_record) {
                runner->kept = slot->instance; /* the rest the predecessor tells */
                return true;
        }
        if (slot->state == KEEPER_SLOT_KEPT) {
                if (runner && !runner->instance)
                        runner_as_made(runner);
                recover_kept(supervisor, slot);
                return true;
        }
        if (slot->state == KEEPER_SLOT_RESERVED)
                return true;
        return take_up(supervisor, slot, runner, reason) < 0 ? -EINVAL : true;
}

int recovery_follow(Recovery *recovery, Supervisor *supervisor, bool is_final, char reason[RECOVERY_REASON_SIZE]) {
        struct RecoveredQueue changed = TAILQ_HEAD_INITIALIZER(changed);
        Recovered *slot, *next;
        int r = 0;

        if (recovery->incomplete)
                return cannot(reason, "no memory for the keeper's table, or no descriptors for what is in it");
        TAILQ_CONCAT(&changed, &recovery->changed, changed);
        for (slot = TAILQ_FIRST(&changed); slot; slot = next) {
                next = TAILQ_NEXT(slot, changed);
                if (slot->is_gone && is_of_template(slot))
                        scaled_disown(supervisor, slot->instance);
                else if (slot->is_gone || (slot->is_adopted && slot->state == KEEPER_SLOT_KEPT))
                        discard(supervisor, slot);
                if (!slot->is_gone)
                        continue;
                TAILQ_REMOVE(&changed, slot, changed);
                slot->is_changed = false;
                forget(recovery, slot);
        }
        while (r >= 0 && (slot = TAILQ_FIRST(&changed))) {
                TAILQ_REMOVE(&changed, slot, changed);
                slot->is_changed = false;
                r = follow_slot(supervisor, slot, is_final, reason);
                if (r == 0)
                        touch(recovery, slot);
                if (pace_keep())
                        loop_turn(supervisor->loop); /* all that it watches now would be a long piece */
        }
        TAILQ_CONCAT(&recovery->changed, &changed, changed);
        return MIN(r, 0);
}
