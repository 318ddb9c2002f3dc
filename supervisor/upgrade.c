/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Upgrade: the table (upgrade-phase.c) is asked, its actions are here; how the state crosses is the kind's. Whatever happens
 * only raises an event, all are handled in one task, so that nothing ever runs inside a callback of an instance or a call.
 *
 * Who owns what: the runner's instance stays the predecessor until FINISH, which exchanges the two; the other one is the
 * upgrade's. A predecessor that has to finish what it has begun is one of runner->past from then on, and is an instance
 * like any other that is being stopped, but that it is given the time `upgrade.drain' and asked to Exit, so that it leaves
 * what it has mounted to who serves. Its end is nobody's failure.
 *
 * Calls that come while nobody serves are held here, as requests, and asked anew of who serves then. Their number and bytes
 * are bounded. An end of the predecessor before the commit is told to the runner's policy when the successor is gone: so
 * there are never three of a runner that all might serve.
 */

#include "supervisor/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/checkpoint.h"
#include "supervisor/chronicle.h"
#include "supervisor/control.h"
#include "supervisor/events.h"
#include "supervisor/log-ring.h"
#include "supervisor/instance-internal.h"
#include "supervisor/program.h"
#include "supervisor/runner-internal.h"
#include "supervisor/runner-record.h"
#include "supervisor/upgrade-history.h"

#define HELD_BYTES_MAX (64 * 1024 * 1024)

/* Its predecessors, who serves, its successor; and one each that has just ended, whose last lines wait for room. */
static_assert(UPGRADE_PAST_MAX + 4 <= (int) LOG_RING_INSTANCES, "the output of all of them has its place");

static void timer_fired(LoopTimer *timer);
static void handle_raised(LoopTask *task);
static int upgrade_new(Upgrade **ret_upgrade, Runner *runner, const UpgradeOptions *options);
static int make_new(Upgrade *upgrade);
static unsigned count_past(const Runner *runner);

/* ------------------------------------------------------------------------------------------------------------ held calls */

struct Held {
        TAILQ_ENTRY(Held) link;
        HeldCalls *list; /* that it is in */
        Control *control;
        Call *call;
        const char *method;
        size_t size;
        uint8_t request[];
};

/* take_held() - out of its list; its call. */
static Call *take_held(Held *held) {
        Call *call = held->call;

        TAILQ_REMOVE(&held->list->calls, held, link);
        held->list->n--;
        held->list->bytes -= held->size;
        call_on_cancel(call, NULL, NULL);
        return call;
}

static void held_cancelled(Call *call, void *userdata) {
        Held *held = userdata;

        (void) take_held(held);
        free(held);
        (void) call_fail(call, STATUS_CANCELLED, "cancelled");
}

/* not_now() - an item of a held call stays where it is. */
static bool not_now(Call *call, const Item *item, void *userdata) {
        (void) call;
        (void) item;
        (void) userdata;
        return false;
}

bool upgrade_hold(Runner *runner, Control *control, Call *call, const char *method, const ProtobufCMessage *request) {
        HeldCalls *list = runner->upgrade && runner->upgrade->paused_us ? &runner->upgrade->held : NULL;
        size_t size;
        Held *held = NULL;

        if (!list)
                return false;
        size = protobuf_c_message_get_packed_size(request);
        if (list->n < UPGRADE_HELD_MAX && size <= HELD_BYTES_MAX - list->bytes)
                held = malloc(sizeof(*held) + size);
        if (!held) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED,
                                 "runner %s: is being upgraded, and too many calls wait for that", runner->name);
                return true;
        }
        *held = (Held){ .list = list, .control = control, .call = call, .method = method, .size = size };
        (void) protobuf_c_message_pack(request, held->request);
        TAILQ_INSERT_TAIL(&list->calls, held, link);
        list->n++;
        list->bytes += size;
        if (call_takes_items(call))
                call_on_stream(call, not_now, NULL, NULL);
        call_on_cancel(call, held_cancelled, held);
        return true;
}

/* move_held() - what is done with one may end others, or a whole connection: they find their list wherever it is. */
static void move_held(HeldCalls *from, HeldCalls *to) {
        Held *held;

        *to = *from;
        TAILQ_INIT(&to->calls);
        TAILQ_CONCAT(&to->calls, &from->calls, link);
        TAILQ_FOREACH (held, &to->calls, link)
                held->list = to;
}

/* release_held() - asked anew, in their order, of whoever serves now. */
static void release_held(HeldCalls *list) {
        Held *held;

        while ((held = TAILQ_FIRST(&list->calls))) {
                Call *call = take_held(held);

                if (call_takes_items(call))
                        call_resume(call);
                if (!control_go_on(held->control, call, held->method, false, held->request, held->size))
                        (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory for the call");
                free(held);
        }
}

static void fail_held(HeldCalls *list) {
        Held *held;

        while ((held = TAILQ_FIRST(&list->calls))) {
                (void) call_fail(take_held(held), STATUS_UNAVAILABLE, "the supervisor is ending");
                free(held);
        }
}

/* ---------------------------------------------------------------------------------------------------------- for the kind */

static void raise(Upgrade *upgrade, UpgradeEvent event) {
        /* Two ends and one step: what does not fit is a step that was told twice. */
        if (upgrade->n_events == ARRAY_SIZE(upgrade->events))
                return;
        upgrade->events[upgrade->n_events++] = (uint8_t) event;
        loop_task_queue(upgrade->runner->supervisor->loop, &upgrade->task);
}

void upgrade_done(Upgrade *upgrade) {
        raise(upgrade, UPGRADE_EVENT_DONE);
}

_printf_(2, 0) static void set_why(Upgrade *upgrade, const char *format, va_list arguments) {
        if (!upgrade->record.why && vasprintf(&upgrade->record.why, format, arguments) < 0)
                upgrade->record.why = NULL;
}

static _printf_(2, 3) void note_why(Upgrade *upgrade, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        set_why(upgrade, format, arguments);
        va_end(arguments);
}

/* add_why() - to the reason that there is. */
static _printf_(2, 3) void add_why(Upgrade *upgrade, const char *format, ...) {
        _cleanup_free_ char *why = TAKE_PTR(upgrade->record.why), *more = NULL;
        va_list arguments;

        va_start(arguments, format);
        if (vasprintf(&more, format, arguments) < 0)
                more = NULL;
        va_end(arguments);
        note_why(upgrade, "%s%s", why ? why : "", more ? more : "");
}

void upgrade_failed(Upgrade *upgrade, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        set_why(upgrade, format, arguments);
        va_end(arguments);
        raise(upgrade, UPGRADE_EVENT_FAILED);
}

/* A supervisor that follows us has to know that what it finds stopped is to serve. */
void upgrade_paused(Upgrade *upgrade) {
        if (upgrade->paused_us)
                return;
        upgrade->paused_us = clock_now();
        runner_record_instance(upgrade->runner, upgrade->old);
}

/* ------------------------------------------------------------------------------------------------------------ instances */

void upgrade_instance_ready(Upgrade *upgrade, Instance *instance) {
        if (instance == upgrade->new)
                raise(upgrade, UPGRADE_EVENT_READY);
}

void upgrade_instance_gone(Upgrade *upgrade, Instance *instance) {
        char text[2 * INSTANCE_FAILURE_SIZE];

        if (instance == upgrade->new) {
                note_why(upgrade, "the successor: %s", runner_describe_end(instance, text, sizeof(text)));
                raise(upgrade, UPGRADE_EVENT_NEW_GONE);
                return;
        }
        if (upgrade->phase == UPGRADE_CROSSING && upgrade->kind->has_given && upgrade->kind->has_given(upgrade)) {
                log_info("runner %s: its predecessor, which has given all, is gone: %s", upgrade->runner->name,
                         runner_describe_end(instance, text, sizeof(text)));
                return; /* where the successor fails now, the way back finds nobody */
        }
        note_why(upgrade, "the predecessor: %s", runner_describe_end(instance, text, sizeof(text)));
        raise(upgrade, UPGRADE_EVENT_OLD_GONE);
}

static bool is_there(const Instance *instance) {
        return instance && !instance->over;
}

/* kill_one() - in whatever state it is; its end follows. */
static void kill_one(Instance *instance) {
        if (!is_there(instance))
                return;
        /* One whose turn to begin has not come has nothing that could end: it begins, and fails. */
        supervisor_begin_now(instance->supervisor, instance);
        if (!instance_is_live(instance))
                return;
        instance_doom(instance, RUNNER_CAUSE_STOPPED,
                      instance->state == PROCESS_STARTING && !instance->pid ? PROCESS_EVENT_FAILED
                                                                            : PROCESS_EVENT_DOOMED);
}

/* ----------------------------------------------------------------------------------------------------------- the actions */

static void set_timer(Upgrade *upgrade, uint64_t us) {
        upgrade->timer_us = us;
        loop_timer_set(upgrade->runner->supervisor->loop, &upgrade->timer, clock_after(clock_now(), us));
}

static void cross(Upgrade *upgrade) {
        upgrade->kind->cross(upgrade);
}

/* The keeper answers in order: when it has looked for the successor, it has read ACTIVE. */
static void committed(KeeperLink *link, int result, void *userdata) {
        Upgrade *upgrade = userdata;

        (void) link;
        if (result == 0)
                upgrade_done(upgrade);
        else
                upgrade_failed(upgrade, "the keeper does not find the successor: %s", strerror(-result));
}

static void commit(Upgrade *upgrade) {
        KeeperLink *link = upgrade->runner->supervisor->link;
        int r;

        chronicle_program_of(upgrade->runner, upgrade->config, upgrade->new->id);
        r = keeper_link_active(link, upgrade->new->id);
        if (r == 0)
                r = keeper_link_signal(link, upgrade->new->id, 0, committed, upgrade);
        if (r < 0)
                upgrade_failed(upgrade, "the keeper cannot be told: %s", strerror(-r));
        set_timer(upgrade, upgrade->runner->config->start_timeout_us);
}

static void begin(Upgrade *upgrade) {
        if (upgrade->kind->begin)
                upgrade->kind->begin(upgrade);
        else
                upgrade_done(upgrade);
}

static void kill_new(Upgrade *upgrade) {
        loop_timer_stop(&upgrade->timer);
        if (upgrade->kind->cancel)
                upgrade->kind->cancel(upgrade);
        kill_one(upgrade->new);
        if (!is_there(upgrade->new))
                raise(upgrade, UPGRADE_EVENT_NEW_GONE);
}

static void activate_old(const Upgrade *upgrade) {
        if (is_there(upgrade->old))
                (void) keeper_link_active(upgrade->runner->supervisor->link, upgrade->old->id);
}

static void revert(Upgrade *upgrade) {
        activate_old(upgrade);
        kill_new(upgrade);
}

static void resume(Upgrade *upgrade) {
        if (upgrade->kind->cancel)
                upgrade->kind->cancel(upgrade);
        set_timer(upgrade, upgrade->runner->config->start_timeout_us);
        if (!is_there(upgrade->old))
                raise(upgrade, UPGRADE_EVENT_OLD_GONE);
        else if (upgrade->abandoned || !upgrade->kind->resume || upgrade->paused_us == 0)
                upgrade_done(upgrade);
        else
                upgrade->kind->resume(upgrade);
}

static void go_back(Upgrade *upgrade) {
        activate_old(upgrade);
        resume(upgrade);
}

static void kill_old(Upgrade *upgrade) {
        log_warning("runner %s: pid %d does not begin to serve again: killed", upgrade->runner->name,
                    upgrade->old->pid);
        kill_one(upgrade->old);
}

/* ----------------------------------------------------------------------------------------------------------- the switch */

static void publish(const Runner *runner, const UpgradeRecord *record) {
        char serves[32] = "it is not running";

        if (runner_pid(runner) > 0)
                (void) snprintf(serves, sizeof(serves), "pid %d serves", runner_pid(runner));
        if (record->why)
                log_warning("runner %s: %s failed while %s: %s; %s", runner->name,
                            record->back ? "the way back" : "upgrade", upgrade_phase_name(record->phase), record->why,
                            serves);
        else
                log_info("runner %s: %s, pid %d, pause %.1f ms", runner->name,
                         record->check  ? "an upgrade would succeed"
                         : record->back ? "back to what was before"
                                        : "upgraded",
                         runner_pid(runner), (double) record->pause_us / USEC_PER_MSEC);
        if (record->check)
                return; /* nothing has happened */
        events_publish(runner->supervisor->events, &(Event){
                                                           .kind = EVENT_RUNNER_UPGRADED,
                                                           .runner = runner->name,
                                                           .instance = runner->last_instance,
                                                           .pid = runner_pid(runner),
                                                           .number = record->pause_us,
                                                           .text = record->why,
                                                   });
}

/* exchange() - the successor is the runner's instance from here on, and its predecessor, while it lives, one of the past. */
static Instance *exchange(Upgrade *upgrade) {
        Runner *runner = upgrade->runner;
        Instance *old = TAKE_PTR(upgrade->old), *new = TAKE_PTR(upgrade->new);

        runner->instance = new;
        runner->last_instance = new->id;
        runner->n_starts++;
        runner->up_us = clock_now();
        /* Else a reload has said something newer meanwhile, or it is the way back, and the runner's is there already. */
        if (runner->config == upgrade->base && !upgrade->origin) {
                runner_config_unref(runner->config);
                runner->config = runner_config_ref(upgrade->config);
        }
        old->is_past = true;
        old->past = runner->past;
        runner->past = old;
        return old;
}

/* part() - @old, which serves no more, gets the time to finish what it has begun. */
static void part(Runner *runner, Instance *old) {
        const RunnerConfig *config = runner->config;

        if (old->over)
                runner_past_over(runner, old);
        else
                instance_stop(old, config->upgrade_drain_us + config->stop_timeout_us);
}

/* From here on the runner is what it will be if nothing else happens: whoever asks, and whoever waits to, is told so. */
static void switch_over(Upgrade *upgrade) {
        Runner *runner = upgrade->runner;
        Instance *old = exchange(upgrade);
        HeldCalls held;

        loop_timer_stop(&upgrade->timer);
        if (upgrade->paused_us)
                upgrade->record.pause_us = clock_now() - upgrade->paused_us;
        upgrade->paused_us = 0;
        free(TAKE_PTR(upgrade->record.why)); /* likewise, where what comes now goes wrong */
        runner_record_instance(runner, runner->instance);
        runner_record_instance(runner, old);
        chronicle_program(runner);
        part(runner, old);
        if (!upgrade->before || upgrade_health_begin(upgrade) < 0)
                upgrade_done(upgrade);
        move_held(&upgrade->held, &held);
        release_held(&held);
}

/* -------------------------------------------------------------------------------------------------------------- the end */

static void note_phase(Upgrade *upgrade) {
        uint64_t now = clock_now();

        upgrade->record.phase_us[upgrade->phase] += now - upgrade->phase_began_us;
        upgrade->phase_began_us = now;
}

/* tell() - those who wait: of the way back, what it comes from. */
static void tell(struct UpgradeWatchers *watchers, Runner *runner, UpgradeRecord *origin, const char *why,
                 const UpgradeRecord *record) {
        UpgradeWatcher *watcher;
        char *both = NULL;

        if (origin && why &&
            asprintf(&both, "%s; the way back failed while %s: %s", origin->why, upgrade_phase_name(record->phase),
                     why) >= 0) {
                free(origin->why);
                origin->why = both;
        }
        while ((watcher = LIST_FIRST(watchers))) {
                upgrade_unwatch(watcher);
                watcher->callback(watcher, runner, origin ? origin : record);
        }
}

static UpgradeRecord *origin_free(UpgradeRecord *origin) {
        if (origin)
                free(origin->why);
        free(origin);
        return NULL;
}
DEFINE_CLEANUP(UpgradeRecord *, origin_free);

static void move_watchers(struct UpgradeWatchers *from, struct UpgradeWatchers *to, Upgrade *upgrade) {
        UpgradeWatcher *watcher;

        LIST_INIT(to);
        while ((watcher = LIST_FIRST(from))) {
                LIST_REMOVE(watcher, link);
                LIST_INSERT_HEAD(to, watcher, link);
                if (upgrade)
                        watcher->upgrade = upgrade;
        }
}

/* use_next() - nobody is left to take over from: the next process is of the program before, wherever its file is by now. */
static void use_next(Upgrade *upgrade) {
        fd_close(upgrade->runner->program_fd);
        upgrade->runner->program_fd = fd_take(&upgrade->program_fd);
}

/* conclude() - @then, which follows it and may be NULL, inherits those who wait. */
static void conclude(Upgrade *upgrade, Upgrade *then) {
        _cleanup_(origin_freep) UpgradeRecord *origin = TAKE_PTR(upgrade->origin);
        Runner *runner = upgrade->runner;
        bool old_gone = upgrade->old && upgrade->old->over;
        UpgradeRecord record = upgrade->record;
        struct UpgradeWatchers watchers;
        HeldCalls held;

        if (upgrade->paused_us)
                record.pause_us = clock_now() - upgrade->paused_us;
        if (record.phase == UPGRADE_OVER)
                free(TAKE_PTR(record.why)); /* how the one ended that was not needed any more */
        upgrade->record.why = NULL;
        if (origin && old_gone)
                use_next(upgrade);
        move_held(&upgrade->held, &held);
        move_watchers(&upgrade->watchers, then ? &then->watchers : &watchers, then);
        (void) upgrade_free(upgrade);
        runner->upgrade = then;
        runner_record_instance(runner, runner->instance);
        publish(runner, &record);
        upgrade_history_add(&runner->upgrades, &record);
        chronicle_upgrade(runner);
        chronicle_program(runner);
        runner_upgrade_over(runner, old_gone);
        if (!then)
                tell(&watchers, runner, origin, record.why, &record);
        release_held(&held);
}

static void finish(Upgrade *upgrade) {
        conclude(upgrade, NULL);
}

/* --------------------------------------------------------------------------------------------------------- the way back */

/* give_back() - the runner is configured as before, unless a reload has said something else since. */
static void give_back(const Upgrade *upgrade) {
        Runner *runner = upgrade->runner;

        if (runner->config != upgrade->config)
                return;
        runner_config_unref(runner->config);
        runner->config = runner_config_ref(upgrade->base);
        chronicle_program(runner);
}

/* why_no_way_back() - NULL: there is one. */
static const char *why_no_way_back(const Upgrade *upgrade) {
        const Runner *runner = upgrade->runner;

        if (upgrade->program_fd < 0 &&
            (upgrade->program == 0 || program_stamp_of(runner, upgrade->before) != upgrade->program))
                return "the program before, a script, was replaced";
        if (count_past(runner) >= UPGRADE_PAST_MAX)
                return "its predecessors have not finished yet what they have begun";
        return upgrade->kind->refuse(runner);
}

/* way_back() - the upgrade in the other direction, on its way. NULL: no memory. */
static Upgrade *way_back(Upgrade *upgrade) {
        const UpgradeOptions options = { 0 };
        UpgradeRecord *origin = malloc(sizeof(*origin));
        Upgrade *back = NULL;

        if (!origin)
                return NULL;
        *origin = upgrade->record;
        origin->why = strdup(upgrade->record.why ? upgrade->record.why : "");
        if (!origin->why || upgrade_new(&back, upgrade->runner, &options) < 0) {
                (void) origin_free(origin);
                return NULL;
        }
        back->origin = origin;
        back->record.back = true;
        runner_config_unref(back->config);
        back->config = runner_config_ref(upgrade->before);
        if (make_new(back) < 0)
                return upgrade_free(back);
        back->program_fd = fd_take(&upgrade->program_fd);
        if (back->program_fd >= 0) {
                back->new->program_fd = fd_dup(back->program_fd);
                if (back->new->program_fd < 0)
                        return upgrade_free(back);
        }
        set_timer(back, back->runner->config->upgrade_timeout_us);
        return back;
}

/*
 * return_back() - the successor serves, and is not healthy: another process of the program before takes over from it, as it
 * has from that one. A successor that has died leaves nothing to take over: the next process that policy starts is of the
 * program before.
 */
static void return_back(Upgrade *upgrade) {
        Runner *runner = upgrade->runner;
        const char *why = NULL;
        Upgrade *back = NULL;

        upgrade->health = upgrade_health_free(upgrade->health);
        if (!upgrade->abandoned && runner->state == POLICY_UP && !runner->over && !runner->instance->over) {
                give_back(upgrade);
                why = why_no_way_back(upgrade);
                back = why ? NULL : way_back(upgrade);
                if (!back)
                        add_why(upgrade, "; there is no way back: %s", why ? why : "no memory");
        }
        conclude(upgrade, back);
        if (back)
                log_info("runner %s: the way back begins, pid %d serves meanwhile", runner->name, runner_pid(runner));
}

void upgrade_present_gone(Upgrade *upgrade, const Instance *instance) {
        char text[2 * INSTANCE_FAILURE_SIZE];

        if (!upgrade || upgrade->phase != UPGRADE_WATCHING || upgrade->abandoned)
                return;
        upgrade->health = upgrade_health_free(upgrade->health);
        note_why(upgrade, "the successor: %s", runner_describe_end(instance, text, sizeof(text)));
        give_back(upgrade);
        use_next(upgrade);
        raise(upgrade, UPGRADE_EVENT_NEW_GONE);
}

static void (*const actions[])(Upgrade *) = {
        [UPGRADE_ACTION_NONE] = NULL,     [UPGRADE_ACTION_CROSS] = cross,        [UPGRADE_ACTION_COMMIT] = commit,
        [UPGRADE_ACTION_BEGIN] = begin,   [UPGRADE_ACTION_KILL_NEW] = kill_new,  [UPGRADE_ACTION_REVERT] = revert,
        [UPGRADE_ACTION_RESUME] = resume, [UPGRADE_ACTION_GO_BACK] = go_back,    [UPGRADE_ACTION_KILL_OLD] = kill_old,
        [UPGRADE_ACTION_FINISH] = finish, [UPGRADE_ACTION_SWITCH] = switch_over, [UPGRADE_ACTION_RETURN] = return_back,
};
static_assert(ARRAY_SIZE(actions) == _UPGRADE_ACTION_N, "a function for each action");

/* fails() - whether this is the moment at which it fails, and in which phase that was. */
static bool fails(const Upgrade *upgrade, UpgradePhase next, UpgradeAction action) {
        return upgrade->record.phase == UPGRADE_OVER &&
               (next == UPGRADE_UNDOING || next == UPGRADE_RESUMING || action == UPGRADE_ACTION_RETURN) &&
               upgrade->phase != UPGRADE_UNDOING && upgrade->phase != UPGRADE_RESUMING;
}

static void handle(Upgrade *upgrade, UpgradeEvent event) {
        bool checked = upgrade->check && upgrade->phase == UPGRADE_CROSSING && event == UPGRADE_EVENT_DONE;
        UpgradePhase next;
        UpgradeAction action;

        if (checked) /* everything has been tried; what follows is the same as after a failure */
                event = UPGRADE_EVENT_FAILED;
        if (upgrade_next(upgrade->phase, event, &next, &action) < 0) {
                log_debug("runner %s: upgrade: event %s means nothing while %s", upgrade->runner->name,
                          upgrade_event_name(event), upgrade_phase_name(upgrade->phase));
                return;
        }
        log_debug("runner %s: upgrade: %s, %s: now %s, %s", upgrade->runner->name, upgrade_phase_name(upgrade->phase),
                  upgrade_event_name(event), upgrade_phase_name(next), upgrade_action_name(action));
        note_phase(upgrade);
        if (checked)
                upgrade->checked = true;
        else if (!upgrade->checked && fails(upgrade, next, action))
                upgrade->record.phase = upgrade->phase;
        upgrade->phase = next;
        if (actions[action])
                actions[action](upgrade);
}

/* Its last action frees the upgrade. */
static void handle_raised(LoopTask *task) {
        Upgrade *upgrade = CONTAINER_OF(task, Upgrade, task);
        Runner *runner = upgrade->runner;

        while (runner->upgrade == upgrade && upgrade->n_events > 0) {
                UpgradeEvent event = (UpgradeEvent) upgrade->events[0];

                upgrade->n_events--;
                memmove(upgrade->events, upgrade->events + 1, upgrade->n_events);
                handle(upgrade, event);
        }
}

static void timer_fired(LoopTimer *timer) {
        Upgrade *upgrade = CONTAINER_OF(timer, Upgrade, timer);

        const char *what = upgrade->phase == UPGRADE_STARTING     ? "the successor is not ready"
                           : upgrade->phase == UPGRADE_COMMITTING ? "the keeper has not answered"
                                                                  : upgrade->kind->waits_for(upgrade);

        upgrade_failed(upgrade, "%s: not within %g s", what, (double) upgrade->timer_us / USEC_PER_SEC);
}

void upgrade_abandon(Upgrade *upgrade, const char *why) {
        if (!upgrade || upgrade->abandoned)
                return;
        upgrade->abandoned = true;
        if (upgrade->phase == UPGRADE_WATCHING) /* it is done, and the end of its process says nothing of its health */
                upgrade_done(upgrade);
        else
                upgrade_failed(upgrade, "%s", why);
}

void upgrade_watch(Upgrade *upgrade, UpgradeWatcher *watcher) {
        watcher->upgrade = upgrade;
        LIST_INSERT_HEAD(&upgrade->watchers, watcher, link);
}

void upgrade_unwatch(UpgradeWatcher *watcher) {
        if (!watcher->upgrade)
                return;
        LIST_REMOVE(watcher, link);
        watcher->upgrade = NULL;
}

/* ------------------------------------------------------------------------------------------------------- making, freeing */

Upgrade *upgrade_free(Upgrade *upgrade) {
        if (!upgrade)
                return NULL;
        if (upgrade->kind->cancel)
                upgrade->kind->cancel(upgrade);
        fail_held(&upgrade->held);
        keeper_link_forget(upgrade->runner->supervisor->link, upgrade);
        loop_timer_stop(&upgrade->timer);
        loop_task_cancel(&upgrade->task);
        if (upgrade->new)
                supervisor_unqueue_spawn(upgrade->runner->supervisor, upgrade->new);
        instance_free(upgrade->new);
        runner_config_unref(upgrade->config);
        runner_config_unref(upgrade->base);
        runner_config_unref(upgrade->before);
        fd_close(upgrade->program_fd);
        upgrade_health_free(upgrade->health);
        origin_free(upgrade->origin);
        free(upgrade->record.why);
        free(upgrade);
        return NULL;
}

static const UpgradeKind *kind_of(const RunnerConfig *config) {
        return runner_config_native(config) ? &upgrade_native : &upgrade_plain;
}

static unsigned count_past(const Runner *runner) {
        unsigned n = 0;

        for (const Instance *past = runner->past; past; past = past->past)
                n++;
        return n;
}

const char *upgrade_refusal(const Runner *runner, int *ret_error) {
        const Supervisor *supervisor = runner->supervisor;
        const UpgradeKind *kind = kind_of(runner->config);

        *ret_error = -ESHUTDOWN;
        if (supervisor->stopping || runner->removed)
                return supervisor->stopping ? "the supervisor is stopping" : "is being removed";
        *ret_error = -EALREADY;
        if (runner->upgrade)
                return "is being upgraded already";
        if (count_past(runner) >= UPGRADE_PAST_MAX)
                return "its predecessors have not finished yet what they have begun";
        *ret_error = -ENOTCONN;
        if (runner->state != POLICY_UP || runner->over || runner_process_state(runner) != PROCESS_UP)
                return "is not up";
        *ret_error = -EBUSY;
        if (supervisor->takeover)
                return "the supervisor is being replaced; try again when that is done";
        *ret_error = -EOPNOTSUPP;
        if (runner->config->oneshot || runner->config->schedule)
                return "runs to its end, and is not upgraded: its next run is of the new program";
        if (runner->config->ready != runner->instance->config->ready)
                return "is of another kind now: restart it";
        return kind->refuse(runner);
}

/* with_program() - as @config, but for the program: a name of a file, not a text with % in it. */
static int with_program(const RunnerConfig *config, const char *program, RunnerConfig **ret_config) {
        _cleanup_free_ char *path = malloc(2 * strlen(program) + 1);
        size_t k = 0;

        if (!path)
                return -ENOMEM;
        for (const char *p = program; *p; p++) {
                path[k++] = *p;
                if (*p == '%' && !config->literal)
                        path[k++] = '%';
        }
        path[k] = '\0';
        return runner_config_with_program(config, path, ret_config);
}

/* make_new() - the successor: in the supervisor's table, and on its way. */
static int make_new(Upgrade *upgrade) {
        Runner *runner = upgrade->runner;
        Supervisor *supervisor = runner->supervisor;
        _cleanup_(instance_freep) Instance *new = NULL;
        int r = instance_new(&new, runner, supervisor_next_id(supervisor));

        if (r == 0)
                r = supervisor_add_instance(supervisor, new);
        if (r < 0)
                return r;
        runner_config_unref(new->config);
        new->config = runner_config_ref(upgrade->config);
        upgrade->new = TAKE_PTR(new);
        upgrade->record.from = upgrade->old->id;
        upgrade->record.to = upgrade->new->id;
        supervisor_queue_begin(supervisor, upgrade->new);
        return 0;
}

static int upgrade_new(Upgrade **ret_upgrade, Runner *runner, const UpgradeOptions *options) {
        Upgrade *upgrade = calloc(1, sizeof(*upgrade));
        int r = 0;

        if (!upgrade)
                return -ENOMEM;
        upgrade->runner = runner;
        upgrade->kind = kind_of(runner->config);
        upgrade->old = runner->instance;
        upgrade->check = options->check;
        upgrade->phase_began_us = clock_now();
        upgrade->timer = LOOP_TIMER_NULL(timer_fired);
        upgrade->task = LOOP_TASK_NULL(handle_raised);
        upgrade->program_fd = -1;
        upgrade->record = (UpgradeRecord){ .begun_us = clock_wall(), .phase = UPGRADE_OVER, .check = options->check };
        LIST_INIT(&upgrade->watchers);
        TAILQ_INIT(&upgrade->held.calls);
        if (options->program)
                r = with_program(runner->config, options->program, &upgrade->config);
        else
                upgrade->config = runner_config_ref(runner->config);
        if (r < 0) {
                free(upgrade);
                return r;
        }
        upgrade->base = runner_config_ref(runner->config);
        *ret_upgrade = upgrade;
        return 0;
}

/*
 * remember_before() - what the way back needs, while it is there: the file that is executed may be gone from its path by now,
 * and its process will be. Of a script the kernel names the interpreter: then there is its path alone.
 */
static void remember_before(Upgrade *upgrade) {
        _cleanup_fd_ int fd = -1;
        char path[32];

        if (upgrade->kind != &upgrade_native || upgrade->check || upgrade->config->upgrade_health_us == 0)
                return;
        upgrade->before = runner_config_ref(upgrade->old->config);
        upgrade->program = upgrade->old->program;
        (void) snprintf(path, sizeof(path), "/proc/%d/exe", upgrade->old->pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && program_stamp_fd(fd) == upgrade->program)
                upgrade->program_fd = fd_take(&fd);
}

int upgrade_begin(Runner *runner, const UpgradeOptions *options, char reason[UPGRADE_REASON_SIZE]) {
        int r = 0;
        const char *refusal = upgrade_refusal(runner, &r);

        if (refusal) {
                (void) snprintf(reason, UPGRADE_REASON_SIZE, "%s", refusal);
                return r;
        }
        runner_touch(runner);
        r = upgrade_new(&runner->upgrade, runner, options);
        if (r == 0)
                r = make_new(runner->upgrade);
        if (r < 0) {
                runner->upgrade = upgrade_free(runner->upgrade);
                (void) snprintf(reason, UPGRADE_REASON_SIZE, "no memory for a successor");
                return -ENOMEM;
        }
        remember_before(runner->upgrade);
        checkpoint_interrupt(runner);
        set_timer(runner->upgrade, options->timeout_us ? options->timeout_us : runner->config->upgrade_timeout_us);
        log_info("runner %s: an upgrade begins, pid %d serves meanwhile", runner->name, runner_pid(runner));
        return 0;
}
