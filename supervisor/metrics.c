/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Metrics: the text. One family after the other, each over all runners, as OpenMetrics wants it; what is a number already is
 * written as it is kept. Names of runners need no escaping: they have letters, digits and . _ - @ only.
 */

#include "supervisor/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/version.h"
#include "supervisor/checkpoint.h"
#include "supervisor/holder.h"
#include "supervisor/instance.h"
#include "supervisor/listener.h"
#include "supervisor/supervisor.h"
#include "supervisor/upgrade.h"

typedef struct Family {
        const char *name, *type, *unit, *help;
        void (*write)(FILE *file, const char *name, const Runner *runner);
} Family;

static void sample(FILE *file, const char *name, const Runner *runner, uint64_t value) {
        (void) fprintf(file, "%s{runner=\"%s\"} %" PRIu64 "\n", name, runner->name, value);
}

/* seconds() - without the locale's decimal point. */
static void seconds(FILE *file, const char *name, const Runner *runner, uint64_t us) {
        (void) fprintf(file, "%s{runner=\"%s\"} %" PRIu64 ".%06" PRIu64 "\n", name, runner->name, us / USEC_PER_SEC,
                       us % USEC_PER_SEC);
}

static void state(FILE *file, const char *name, const Runner *runner) {
        for (unsigned i = 0; i < _POLICY_STATE_N; i++)
                (void) fprintf(file, "%s{runner=\"%s\",%s=\"%s\"} %d\n", name, runner->name, name,
                               policy_state_name((PolicyState) i), runner->state == i);
}

static void uptime(FILE *file, const char *name, const Runner *runner) {
        const Instance *instance = runner->instance;

        if (runner_pid(runner) > 0 && instance->started_us > 0)
                seconds(file, name, runner, clock_now() - instance->started_us);
}

static void starts(FILE *file, const char *name, const Runner *runner) {
        sample(file, name, runner, runner->n_starts);
}

static void restarts(FILE *file, const char *name, const Runner *runner) {
        sample(file, name, runner, runner->n_restarts);
}

static void upgrades_done(FILE *file, const char *name, const Runner *runner) {
        sample(file, name, runner, runner->upgrades ? runner->upgrades->n_done : 0);
}

static void upgrades_failed(FILE *file, const char *name, const Runner *runner) {
        sample(file, name, runner, runner->upgrades ? runner->upgrades->n_failed : 0);
}

static void failovers(FILE *file, const char *name, const Runner *runner) {
        sample(file, name, runner, runner->n_failovers);
}

static void checkpoints(FILE *file, const char *name, const Runner *runner) {
        if (runner->config->recover == CONFIG_RECOVER_FAILOVER)
                sample(file, name, runner, checkpoint_counts(runner).done);
}

static void checkpoints_failed(FILE *file, const char *name, const Runner *runner) {
        if (runner->config->recover == CONFIG_RECOVER_FAILOVER)
                sample(file, name, runner, checkpoint_counts(runner).failed);
}

static void checkpoint_time(FILE *file, const char *name, const Runner *runner) {
        const Holder *holder = runner->supervisor->holder;
        const Kept *kept = holder_kept(holder, runner);

        if (kept)
                seconds(file, name, runner, holder_kept_entry(holder, kept)->since_wall_us);
}

static void checkpoint_size(FILE *file, const char *name, const Runner *runner) {
        const Holder *holder = runner->supervisor->holder;
        const Kept *kept = holder_kept(holder, runner);

        if (kept)
                sample(file, name, runner, holder_kept_entry(holder, kept)->state_size);
}

static void last_exit(FILE *file, const char *name, const Runner *runner) {
        const RunnerExit *exit = runner_exit(runner, 0);

        if (exit)
                seconds(file, name, runner, exit->ended_us);
}

static LogStatus log_of(const Runner *runner) {
        LogStatus status;

        runner_log_status(runner->log, &status);
        return status;
}

static void log_lines(FILE *file, const char *name, const Runner *runner) {
        sample(file, name, runner, log_of(runner).lines);
}

static void log_bytes(FILE *file, const char *name, const Runner *runner) {
        sample(file, name, runner, log_of(runner).bytes);
}

static void log_dropped(FILE *file, const char *name, const Runner *runner) {
        sample(file, name, runner, log_of(runner).dropped);
}

/* Counters have `_total' behind their names. */
static const Family families[] = {
        { "baton_runner_state", "stateset", NULL, "What baton is doing about the runner.", state },
        { "baton_runner_uptime_seconds", "gauge", "seconds", "Since its process was made.", uptime },
        { "baton_runner_starts", "counter", NULL, "Processes made for it, ever.", starts },
        { "baton_runner_upgrades", "counter", NULL, "Upgrades of it that succeeded, ever.", upgrades_done },
        { "baton_runner_upgrades_failed", "counter", NULL, "Upgrades of it that failed, likewise.", upgrades_failed },
        { "baton_runner_checkpoints", "counter", NULL, "Checkpoints of it that are or were kept, likewise.",
          checkpoints },
        { "baton_runner_checkpoints_failed", "counter", NULL, "Attempts at one that failed, likewise.",
          checkpoints_failed },
        { "baton_runner_checkpoint_time_seconds", "gauge", "seconds", "When the last one was kept, wall clock.",
          checkpoint_time },
        { "baton_runner_checkpoint_size_bytes", "gauge", "bytes", "Its state.", checkpoint_size },
        { "baton_runner_failovers", "gauge", NULL, "Of the restarts, those that went on from a checkpoint.",
          failovers },
        { "baton_runner_restarts", "gauge", NULL, "Made by policy after an end, since the last reset.", restarts },
        { "baton_runner_last_exit_time_seconds", "gauge", "seconds", "When its last process ended, wall clock.",
          last_exit },
        { "baton_runner_log_lines", "counter", NULL, "Lines it has written.", log_lines },
        { "baton_runner_log_bytes", "counter", "bytes", "Bytes of them.", log_bytes },
        { "baton_runner_log_dropped", "counter", NULL, "Lines for which there was no room.", log_dropped },
};

static void write_family(FILE *file, const Supervisor *supervisor, const Family *family) {
        char name[64];

        (void) fprintf(file, "# TYPE %s %s\n", family->name, family->type);
        if (family->unit && strcmp(family->type, "counter") != 0)
                (void) fprintf(file, "# UNIT %s %s\n", family->name, family->unit);
        (void) fprintf(file, "# HELP %s %s\n", family->name, family->help);
        (void) snprintf(name, sizeof(name), "%s%s", family->name,
                        strcmp(family->type, "counter") == 0 ? "_total" : "");
        for (const Runner *runner = runner_first(supervisor); runner; runner = runner_next(runner))
                family->write(file, name, runner);
}

static void write_gauge(FILE *file, const char *name, const char *help, uint64_t value) {
        (void) fprintf(file, "# TYPE %s gauge\n# HELP %s %s\n%s %" PRIu64 "\n", name, name, help, name, value);
}

static void write_seconds(FILE *file, const char *name, uint64_t us) {
        (void) fprintf(file, "%s %" PRIu64 ".%06" PRIu64 "\n", name, us / USEC_PER_SEC, us % USEC_PER_SEC);
}

static void write_phases(FILE *file, const TakeoverEntry *entry) {
        char name[64];

        for (unsigned i = 0; i < _TAKEOVER_PHASE_N; i++) {
                if (entry->phase_us[i] == 0)
                        continue;
                (void) snprintf(name, sizeof(name), "baton_takeover_phase_seconds{phase=\"%s\"}",
                                takeover_phase_name(i));
                write_seconds(file, name, takeover_phase_us(entry, (TakeoverPhase) i));
        }
}

/* write_takeovers() - counters that go on from one supervisor to the next. */
static void write_takeovers(FILE *file, const Takeovers *takeovers) {
        TakeoverCounts counts = takeovers_counts(takeovers);
        TakeoverEntry last;

        (void) fputs(
                "# TYPE baton_takeovers counter\n# HELP baton_takeovers Takeovers and recoveries of the supervisor, "
                "by how they came out.\n",
                file);
        for (unsigned i = TAKEOVER_DONE; i < _TAKEOVER_OUTCOME_N; i++)
                (void) fprintf(file, "baton_takeovers_total{outcome=\"%s\"} %" PRIu64 "\n", takeover_outcome_name(i),
                               counts.outcomes[i]);
        (void) fputs("# TYPE baton_takeover_pause_seconds gauge\n# UNIT baton_takeover_pause_seconds seconds\n"
                     "# HELP baton_takeover_pause_seconds In which nobody served, in the last one that was done.\n",
                     file);
        if (counts.outcomes[TAKEOVER_DONE] > 0)
                write_seconds(file, "baton_takeover_pause_seconds", counts.last_pause_us);
        (void) fputs("# TYPE baton_takeover_phase_seconds gauge\n# UNIT baton_takeover_phase_seconds seconds\n"
                     "# HELP baton_takeover_phase_seconds Phases of the last takeover, those that it reached.\n",
                     file);
        for (size_t i = 0; takeovers_copy(takeovers, i, &last); i++)
                if (last.phase_us[0] > 0) {
                        write_phases(file, &last);
                        break;
                }
}

static void write_supervisor(FILE *file, const Supervisor *supervisor) {
        ListenerCounts clients = listener_counts(supervisor->listener);

        (void) fprintf(file,
                       "# TYPE baton_supervisor info\n# HELP baton_supervisor The program that runs.\n"
                       "baton_supervisor_info{version=\"%s\",commit=\"%s\"} 1\n",
                       version_release(), version_commit());
        write_gauge(file, "baton_supervisor_generation", "One higher after each takeover or recovery.",
                    supervisor->generation);
        write_gauge(file, "baton_runners", "Runners there are.", HASH_CNT(by_name, supervisor->runners));
        write_gauge(file, "baton_control_clients", "Control connections that are open.", clients.clients);
        (void) fprintf(file,
                       "# TYPE baton_control_refused counter\n# HELP baton_control_refused Connections refused by a "
                       "quota.\nbaton_control_refused_total %" PRIu64 "\n",
                       clients.refused);
        write_takeovers(file, supervisor->takeovers);
}

char *metrics_text(const Supervisor *supervisor) {
        char *text = NULL;
        size_t size;
        FILE *file = open_memstream(&text, &size);
        bool failed;

        if (!file)
                return NULL;
        write_supervisor(file, supervisor);
        for (size_t i = 0; i < ARRAY_SIZE(families); i++)
                write_family(file, supervisor, &families[i]);
        (void) fputs("# EOF\n", file);
        failed = ferror(file);
        if (fclose(file) != 0 || failed) {
                free(text);
                return NULL;
        }
        return text;
}
