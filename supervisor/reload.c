/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Reload: from files to the fleet. The texts that were read go to the keeper as one sealed memfd as soon as they hold, so
 * that a supervisor that follows this one begins with what held, not with what somebody is just editing. Everything that
 * can be refused is, before anything changes.
 */

#include "supervisor/reload.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/pages.h"
#include "supervisor/listener.h"
#include "supervisor/metrics.h"
#include "supervisor/supervisor.h"
#include "supervisor/takeover.h"

void reload_deinit(Reload *reload) {
        config_difference_deinit(&reload->difference);
        config_errors_deinit(&reload->errors);
        reload->before = config_unref(reload->before);
        reload->after = config_unref(reload->after);
        (void) malloc_trim(0); /* reading took many times what remains, and what reads is large */
        pages_forget();
}

/* keep() - by the keeper, for a supervisor after this one. */
static void keep(Supervisor *supervisor, const ConfigSource *source) {
        _cleanup_fd_ int fd = -1;
        int r = config_source_pack(source, &fd);

        if (r == 0)
                r = keeper_link_replace(supervisor->link, 0, KEEPER_FD_CONFIG, 0, fd, NULL, NULL);
        if (r < 0)
                log_warning("the keeper cannot be given the configuration: %s; a supervisor after this one reads the "
                            "files again",
                            strerror(-r));
}

/* use_metrics() - where they can be had; that they cannot is said, and is no reason to refuse a configuration. */
static void use_metrics(Supervisor *supervisor, const char *address) {
        if (supervisor->successor)
                return;
        if (address && supervisor->metrics && strcmp(metrics_address(supervisor->metrics), address) == 0)
                return;
        supervisor->metrics = metrics_free(supervisor->metrics);
        if (address)
                (void) metrics_new(&supervisor->metrics, supervisor, address);
}

void reload_adopt_metrics(Supervisor *supervisor, const char *address, int fd_consume) {
        const char *wanted = supervisor->config ? supervisor->config->supervisor.metrics : NULL;

        if (wanted && fd_consume >= 0 && strcmp(wanted, address) == 0) {
                (void) metrics_adopt(&supervisor->metrics, supervisor, address, fd_consume);
                return;
        }
        fd_close(fd_consume);
        if (wanted)
                (void) metrics_new(&supervisor->metrics, supervisor, wanted);
}

/* use_section() - what the section `supervisor' says. */
static void use_section(Supervisor *supervisor, const SupervisorConfig *section) {
        const RolePolicy policy = {
                .owner = geteuid(),
                .has_operators = section->has_operators,
                .operators = section->operators_gid,
                .others = section->others_read ? ROLE_READ : ROLE_NOTHING,
        };

        if (section->stop_timeout_us)
                supervisor->stop_timeout_us = section->stop_timeout_us;
        supervisor->role_policy = policy;
        if (supervisor->listener)
                listener_set_policy(supervisor->listener, &policy);
        use_metrics(supervisor, section->metrics);
}

/* use() - @source, whose paths are kept for the next time. */
static int use(Supervisor *supervisor, ConfigSource *source, bool is_kept, Reload *reload) {
        int r = fleet_apply(supervisor, reload->after, &reload->difference, reload->error);

        if (r < 0)
                return r;
        use_section(supervisor, &reload->after->supervisor);
        if (!is_kept)
                keep(supervisor, source);
        config_paths_free(supervisor->config_paths);
        supervisor->config_paths = config_source_take_paths(source);
        supervisor->configured_us = clock_wall();
        takeover_again(supervisor->takeover);
        return 0;
}

/* read_and_use() - @paths are read, or @kept_fd is. */
static int read_and_use(Supervisor *supervisor, char *const *paths, int kept_fd, bool dry_run, Reload *reload) {
        _cleanup_(config_source_freep) ConfigSource *source = NULL;
        bool is_kept = kept_fd >= 0;
        int r = is_kept ? config_source_unpack(&source, kept_fd) : config_source_read(&source, paths, &reload->errors);

        reload->before = supervisor->config ? config_ref(supervisor->config) : NULL;
        if (r == 0)
                r = config_load(&reload->after, source, is_kept ? CONFIG_LOAD_AGAIN : CONFIG_LOAD_CHECK,
                                &reload->errors);
        if (r == 0 && dry_run)
                return fleet_compare(supervisor, reload->after, &reload->difference);
        return r < 0 ? r : use(supervisor, source, is_kept, reload);
}

/* say_why() - each line of what is wrong, once. */
static void say_why(Supervisor *supervisor, const Reload *reload, int error) {
        const char *first = *reload->error ? reload->error : strerror(-error);
        _cleanup_free_ char *line = NULL;

        for (size_t i = 0; i < reload->errors.n_kept; i++) {
                free(line);
                line = config_error_line(&reload->errors.errors[i]);
                log_error("%s", line ? line : first);
                if (i == 0 && line)
                        events_publish(supervisor->events,
                                       &(Event){ .kind = EVENT_CONFIGURATION_REFUSED, .text = line });
        }
        if (reload->errors.n > reload->errors.n_kept)
                log_error("... and %zu more errors", reload->errors.n - reload->errors.n_kept);
        if (reload->errors.n > 0)
                return;
        log_error("the configuration cannot be used: %s", first);
        events_publish(supervisor->events, &(Event){ .kind = EVENT_CONFIGURATION_REFUSED, .text = first });
}

int reload_first(Supervisor *supervisor, char *const *paths, int kept_fd) {
        Reload reload = { 0 };
        int r = read_and_use(supervisor, paths, kept_fd, false, &reload);

        if (r == -EBADMSG && kept_fd >= 0) {
                log_error("what the keeper has kept is no configuration: the files are read again");
                reload_deinit(&reload);
                reload = (Reload){ 0 };
                r = read_and_use(supervisor, paths, -1, false, &reload);
        }
        if (r < 0)
                say_why(supervisor, &reload, r);
        reload_deinit(&reload);
        return r;
}

static int run(Supervisor *supervisor, bool dry_run, Reload *ret_reload) {
        int r;

        if (!supervisor->config_paths)
                return -ENOENT;
        r = read_and_use(supervisor, supervisor->config_paths, -1, dry_run, ret_reload);
        if (r < 0 && !dry_run)
                say_why(supervisor, ret_reload, r);
        return r;
}

/* The service manager hears of each attempt, whatever comes of it: one that asked for it by HUP waits for both words. */
int reload_run(Supervisor *supervisor, bool dry_run, Reload *ret_reload) {
        int r;

        *ret_reload = (Reload){ 0 };
        if (dry_run)
                return run(supervisor, true, ret_reload);
        (void) keeper_link_notify(supervisor->link, KEEPER_NOTIFY_RELOADING, NULL);
        r = run(supervisor, false, ret_reload);
        (void) keeper_link_notify(supervisor->link, KEEPER_NOTIFY_READY, NULL);
        return r;
}

void reload_by_signal(Supervisor *supervisor) {
        _cleanup_free_ char *text = NULL;
        Reload reload;
        int r = reload_run(supervisor, false, &reload);

        if (r == -ENOENT)
                log_notice("asked to reload, but there is no configuration");
        if (r == 0)
                text = config_difference_text(&reload.difference);
        if (r == 0)
                log_notice("configuration loaded again: %s", config_difference_is_empty(&reload.difference)
                                                                     ? "nothing has changed"
                                                             : text ? text
                                                                    : "");
        reload_deinit(&reload);
}
