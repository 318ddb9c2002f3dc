#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The fleet: the configured runners as a whole. A configuration becomes runners here, a newer one becomes the difference,
 * applied all or nothing; templates get as many instances as are wanted; everything is started and stopped in order.
 * Transient runners (a client's Start) are none of its business but for the stop of all.
 */

#include <stdbool.h>
#include <stdint.h>

#include "supervisor/config.h"
#include "supervisor/runner.h"

enum { FLEET_ERROR_SIZE = 512 };

/*
 * fleet_apply() - makes @config (a reference is taken) the one that holds, and begins what follows from it: added runners are
 * started where they shall be (autostart), removed ones stopped and forgotten, changed ones given their new configuration
 * and, where ConfigEffect says so and they have a process, upgraded or restarted, see fleet_compare(). An upgrade that fails
 * leaves the process that serves, with the configuration it was started with: the new one is for its next start. Runners
 * started or stopped by a command stay as they were told; templates that were scaled keep their number unless `instances'
 * changed. @ret_difference may be NULL; else the caller's to config_difference_deinit(), valid as long as both
 * configurations. Returns 0; -ESHUTDOWN: we are stopping; -EEXIST: a transient runner has the name of one that is new, see
 * @error; -ENOMEM. After an error nothing has changed.
 */
int fleet_apply(Supervisor *supervisor, Config *config, ConfigDifference *ret_difference,
                char error[FLEET_ERROR_SIZE]);

/*
 * fleet_compare() - what fleet_apply() of @config would change, with the number of processes that it would upgrade and
 * restart. Upgraded is where the change leaves two processes of a runner possible (CONFIG_EFFECT_UPGRADE) and it could be by
 * a command: a native one whose service is running and can save, a plain one with sockets that says when it is ready. 0 or
 * -ENOMEM; @ret_difference as above.
 */
int fleet_compare(const Supervisor *supervisor, const Config *config, ConfigDifference *ret_difference);

/*
 * fleet_scale() - @n instances of template @name: those above are stopped and forgotten, highest first; missing ones made
 * and started. @ret_before is how many there were. -ENOENT: no such template; -EINVAL: a runner that is no template;
 * -ERANGE: above CONFIG_INSTANCES_MAX; -ESHUTDOWN, -EEXIST, -ENOMEM as above.
 */
int fleet_scale(Supervisor *supervisor, const char *name, uint32_t n, uint32_t *ret_before,
                char error[FLEET_ERROR_SIZE]);

/*
 * fleet_recover_instance() - instance @number of @template is there, so all up to it are. That says nothing about the number
 * that was wished for, which the slot of the template has, and while one that lives is followed it changes that itself.
 */
void fleet_recover_instance(Supervisor *supervisor, const char *template, uint32_t number);

/*
 * fleet_recover_number() - of @template, which was scaled to @n before: missing instances are made, others forgotten; those
 * of them that have a process that was adopted are removed.
 */
void fleet_recover_number(Supervisor *supervisor, const char *template, uint32_t n);

/* fleet_count() - how many instances of @template there shall be. */
uint32_t fleet_count(const Supervisor *supervisor, const char *template);

/*
 * In a successor, when its configuration has made runners, for each snapshot of its predecessor:
 * fleet_restore()         - those that are gone are forgotten; those of @snapshot that the configuration did not lead to (of a
 *                           client, removed and not down yet, scaled) are made; each that it has is `crossed'
 *                           (runner-save.h). With the last snapshot instances that were scaled away are forgotten, too.
 * fleet_restore_crossed() - each for which all is there becomes what was said of it last, with @is_final whatever is there.
 *                           To be called again when an instance was adopted, or discarded.
 * fleet_restored()        - @snapshot will be freed.
 */
typedef struct Baton__Snapshot__Snapshot Baton__Snapshot__Snapshot;
typedef struct Manifest Manifest;
void fleet_restore(Supervisor *supervisor, const Baton__Snapshot__Snapshot *snapshot);
void fleet_restore_crossed(Supervisor *supervisor, Manifest *manifest, bool is_final);
void fleet_restored(Supervisor *supervisor, const Baton__Snapshot__Snapshot *snapshot);
