/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Daemon: the beginning. First the keeper's table is read to its end, the listener and the configuration as it was loaded
 * among it; then the configuration makes runners, and those that have a process already adopt it; then clients are let in,
 * then SERVING. Clients that connect before wait in the listener's queue, which the keeper has had open all the time.
 *
 * Directories for bootstrap sockets that lie around are those of runners that had not connected when a supervisor died:
 * they are dead, and their directories go first.
 */

#include "supervisor/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/step.h"
#include "supervisor/chronicle.h"
#include "supervisor/holder.h"
#include "supervisor/log-store.h"
#include "supervisor/recovery.h"
#include "supervisor/reload.h"
#include "supervisor/successor.h"

struct Daemon {
        Supervisor *supervisor;
        SupervisorOptions options;
        Recovery recovery;
        int control, config; /* told by the keeper; -1: not, or taken */
        bool is_configured;  /* a successor's: from here on ... */
        bool config_changed; /* ... another configuration is one too many */
        bool is_middle; /* since the keeper's last END something was told, and what belongs to it may not have been yet */
};

int daemon_new(Daemon **ret_daemon, Supervisor *supervisor, const SupervisorOptions *options) {
        Daemon *daemon = calloc(1, sizeof(*daemon));

        if (!daemon)
                return -ENOMEM;
        daemon->supervisor = supervisor;
        daemon->options = *options;
        daemon->control = daemon->config = -1;
        recovery_init(&daemon->recovery);
        *ret_daemon = daemon;
        return 0;
}

Daemon *daemon_free(Daemon *daemon) {
        if (!daemon)
                return NULL;
        recovery_deinit(&daemon->recovery);
        fd_close(daemon->control);
        fd_close(daemon->config);
        free(daemon);
        return NULL;
}

/* ------------------------------------------------------------------------------------------------- bootstrap directories */

/* remove_directory() - the one thing that is in it, whichever of the two, and then it. */
static void remove_directory(int boot, const char *name) {
        _cleanup_fd_ int fd = openat(boot, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (fd >= 0) {
                (void) unlinkat(fd, "bootstrap", 0);
                (void) unlinkat(fd, "notify", 0);
        }
        if (unlinkat(boot, name, AT_REMOVEDIR) < 0)
                log_debug("cannot remove %s, left by a supervisor before: %s", name, strerror(errno));
}

static void clean_boot(const Daemon *daemon) {
        _cleanup_free_ char *path = NULL;
        struct dirent *entry;
        DIR *dir;

        if (asprintf(&path, "%s/boot", daemon->options.runtime_dir) < 0) {
                path = NULL;
                return;
        }
        dir = opendir(path);
        if (!dir)
                return;
        while ((entry = readdir(dir)))
                if (entry->d_name[0] != '.' && !recovery_uses(&daemon->recovery, entry->d_name))
                        remove_directory(dirfd(dir), entry->d_name);
        (void) closedir(dir);
}

/* --------------------------------------------------------------------------------------------------- the keeper's words */

void daemon_slot(Daemon *daemon, const KeeperSlot *slot, int pidfd_consume) {
        daemon->is_middle = true;
        recovery_slot(&daemon->recovery, slot, pidfd_consume);
}

/* is_shortage() - there is nothing wrong with what came, but we cannot have it: a successor refuses then. */
static bool is_shortage(int r) {
        return r == -ENOMEM || r == -EMFILE || r == -ENFILE;
}

static void adopt_history(Daemon *daemon, int fd_consume) {
        int r = takeovers_adopt(daemon->supervisor->takeovers, fd_consume);

        daemon->recovery.incomplete |= is_shortage(r);
        if (r < 0)
                log_warning("the history of takeovers begins anew: %s", strerror(-r));
}

/* take_config() - a later one is the one that holds. */
static void take_config(Daemon *daemon, int fd_consume) {
        daemon->config_changed |= daemon->is_configured;
        fd_close(daemon->config);
        daemon->config = fd_consume;
}

void daemon_stored(Daemon *daemon, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        int r = 0;

        daemon->is_middle = true;
        if (fd < 0)
                daemon->recovery.incomplete = true;
        else if (instance != 0)
                recovery_stored(&daemon->recovery, instance, kind, tag, fd_take(&fd));
        else if (kind == KEEPER_FD_CONTROL && daemon->control < 0)
                daemon->control = fd_take(&fd);
        else if (kind == KEEPER_FD_CONFIG)
                take_config(daemon, fd_take(&fd));
        else if (kind == KEEPER_FD_HISTORY && tag == KEEPER_HISTORY_RUNNERS)
                chronicle_stored(daemon->supervisor->chronicle, fd_take(&fd));
        else if (kind == KEEPER_FD_HISTORY)
                adopt_history(daemon, fd_take(&fd));
        else if (kind == KEEPER_FD_SOCKET)
                holder_adopt(daemon->supervisor->holder, tag, fd_take(&fd));
        else
                r = log_store_adopt(daemon->supervisor->logs, kind, tag, fd_take(&fd));
        if (is_shortage(r))
                daemon->recovery.incomplete = true;
        else if (r < 0)
                log_warning("the keeper has a descriptor (kind %u, tag %" PRIu64 ") that is none of ours", kind, tag);
}

void daemon_gone(Daemon *daemon, uint64_t instance, KeeperFdKind kind, uint64_t tag) {
        daemon->is_middle = true;
        if (instance != 0)
                recovery_gone(&daemon->recovery, instance);
        else if (kind == KEEPER_FD_RING)
                log_store_forget(daemon->supervisor->logs, tag);
        else if (kind == KEEPER_FD_SOCKET)
                holder_disown(daemon->supervisor->holder, tag);
}

/* configure() - runners are made and begun. Without files on the command line there is no configuration. */
static int configure(Daemon *daemon) {
        char *const *paths = (char *const *) daemon->options.configs;

        if (daemon->config < 0 && (!paths || !*paths))
                return 0;
        return reload_first(daemon->supervisor, paths, daemon->config);
}

static int listen_to_clients(Daemon *daemon) {
        int r;

        if (daemon->control < 0) {
                log_error("cannot start: the keeper has sent no control listener");
                return -EBADF;
        }
        r = listener_new(&daemon->supervisor->listener, daemon->supervisor, fd_take(&daemon->control));
        if (r == 0 && daemon->supervisor->config)
                listener_set_policy(daemon->supervisor->listener, &daemon->supervisor->role_policy);
        return r;
}

static int begin(Daemon *daemon) {
        LogStore *logs = daemon->supervisor->logs;
        int r;

        clean_boot(daemon);
        r = log_store_recover(logs);
        if (r < 0) {
                log_error("cannot start: the logs: %s", strerror(-r));
                return r;
        }
        holder_recover(daemon->supervisor->holder);
        r = configure(daemon);
        if (r < 0)
                return r;
        chronicle_read(daemon->supervisor->chronicle);
        recovery_run(&daemon->recovery, daemon->supervisor);
        chronicle_begin(daemon->supervisor->chronicle);
        holder_settle(daemon->supervisor->holder);
        log_store_settle(logs);
        return listen_to_clients(daemon);
}

static void serve(const Daemon *daemon) {
        Supervisor *supervisor = daemon->supervisor;

        supervisor->begun = true;
        (void) keeper_link_serving(supervisor->link);
        if (supervisor->stop_early)
                supervisor_stop(supervisor, sigdescr_np(SIGTERM));
        else if (daemon->options.runtime_dir)
                (void) keeper_link_notify(supervisor->link, KEEPER_NOTIFY_READY, NULL);
}

/* --------------------------------------------------------------------------------------------- one that follows another */

static void find_logs(const Supervisor *supervisor) {
        const char *name;
        size_t cursor = 0;

        while ((name = log_store_next_found(supervisor->logs, &cursor))) {
                Runner *runner = runner_find(supervisor, name);

                if (!runner)
                        continue;
                runner_log_follow_on(runner->log);
                cursor = 0; /* it was taken, and another is in its place */
        }
}

static int begin_following(Daemon *daemon) {
        int r = configure(daemon);

        daemon->is_configured = true;
        return r < 0 ? r : listen_to_clients(daemon);
}

void daemon_told(Daemon *daemon) {
        daemon->is_middle = false;
}

int daemon_follow(Daemon *daemon, bool is_final, char reason[RECOVERY_REASON_SIZE]) {
        Supervisor *supervisor = daemon->supervisor;
        int r;

        if (daemon->is_middle)
                return 0;
        r = log_store_follow(supervisor->logs);
        if (r < 0) {
                (void) snprintf(reason, RECOVERY_REASON_SIZE, "the scratch of the logs cannot be used: %s",
                                strerror(-r));
                return r;
        }
        if (!daemon->is_configured && begin_following(daemon) < 0) {
                (void) snprintf(reason, RECOVERY_REASON_SIZE, "the configuration cannot be used: see the lines above");
                return -EINVAL;
        }
        if (daemon->config_changed) {
                (void) snprintf(reason, RECOVERY_REASON_SIZE, "the configuration was loaded again meanwhile");
                return -EAGAIN;
        }
        if (is_final) /* the board is the predecessor's until then */
                holder_recover(supervisor->holder);
        r = recovery_follow(&daemon->recovery, supervisor, is_final, reason);
        find_logs(supervisor);
        return r;
}

void daemon_follow_again(Daemon *daemon, uint64_t instance) {
        recovery_again(&daemon->recovery, instance);
}

bool daemon_tidy(Daemon *daemon, unsigned max) {
        return recovery_forget(&daemon->recovery, max);
}

void daemon_followed(Daemon *daemon) {
        log_store_release(daemon->supervisor->logs);
        chronicle_begin(daemon->supervisor->chronicle);
        holder_settle(daemon->supervisor->holder);
        serve(daemon);
}

/* give_up() - the first one ends the tree with it; a later one dies, and the keeper decides what follows. */
static void give_up(Daemon *daemon) {
        Supervisor *supervisor = daemon->supervisor;

        supervisor->exit_status = EXIT_FAILURE;
        if (supervisor->generation == 1)
                supervisor_stop(supervisor, "the start failed");
        else
                loop_stop(supervisor->loop);
}

void daemon_loaded(Daemon *daemon) {
        Supervisor *supervisor = daemon->supervisor;

        events_publish(supervisor->events,
                       &(Event){ .kind = EVENT_SUPERVISOR_STARTED, .number = supervisor->generation });
        step_note("supervisor", "active", 0);
        takeovers_recovered(supervisor->takeovers, supervisor->generation);
        if (daemon->options.runtime_dir && begin(daemon) < 0) {
                give_up(daemon);
                return;
        }
        serve(daemon);
}
