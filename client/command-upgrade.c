/* SPDX-License-Identifier: Apache-2.0 */

/* baton upgrade: another process goes on as a runner, with its state, its clients and their calls. */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/exit-code.h"
#include "client/operate.h"
#include "client/options-internal.h"
#include "client/output.h"
#include "client/status-text.h"

static void begin(const Operate *operate, Control *control, OperateTarget *target) {
        Baton__Control__UpgradeRequest request = BATON__CONTROL__UPGRADE_REQUEST__INIT;
        const ControlOptions *options = operate->options;

        request.name = target->name;
        request.program = control_bytes(operate->program);
        request.check = options->check;
        request.timeout_us = options->timeout_us; /* which the supervisor keeps, and says what took so long */
        request.no_wait = options->no_wait;
        control_begin(control, &target->call, "Upgrade", &request.base, 0);
}

static void read_upgrade(const Operate *operate, const void *message, OperateOutcome *outcome) {
        const Baton__Control__UpgradeResponse *response = message;
        const Baton__Control__UpgradeRecord *record = response->record;
        bool check = operate->options->check;
        double pause = record ? (double) record->pause_us / 1000 : 0;

        outcome->word = !record ? "upgrading" : check ? "possible" : "upgraded";
        outcome->more = json_pack("{s:I, s:i}", "instance", (json_int_t) response->instance, "pid", response->pid);
        if (outcome->more && record)
                (void) json_object_set_new(outcome->more, "upgrade", status_upgrade_json(record));
        if (!record)
                (void) snprintf(outcome->text, sizeof(outcome->text), "the upgrade is on its way");
        else if (check)
                (void) snprintf(outcome->text, sizeof(outcome->text), "an upgrade would succeed");
        else
                (void) snprintf(outcome->text, sizeof(outcome->text), "upgraded, pid %d, pause %.1f ms", response->pid,
                                pause);
}

/* choose() - with --all whose program or configuration is not the present one, with --changed whose program is not. */
static int choose(const Operate *operate, const Baton__Control__RunnerStatus *runner, OperateTarget *target) {
        const Baton__Control__UpgradeOutlook *outlook = runner->outlook;
        bool is_up = runner->state == BATON__CONTROL__RUNNER_STATUS__STATE__UP;
        bool is_old;

        if (!outlook)
                return -EPROTO;
        is_old = outlook->program || (outlook->configuration && !operate->options->changed);
        if (*outlook->cannot) {
                target->choice = is_old ? OPERATE_CANNOT : OPERATE_CURRENT;
                target->why = strdup(outlook->cannot);
                return target->why ? 0 : -ENOMEM;
        }
        target->choice = is_old || (operate->options->force && is_up) ? OPERATE_CHOSEN : OPERATE_CURRENT;
        return 0;
}

static int check_options(const ControlOptions *options, char *error) {
        bool chooses = options->all || options->changed;

        if (!chooses && options->n_operands == 0)
                return ERROR(error, "the name of a runner is missing, or --all, or --changed");
        if (options->all && options->n_operands > 0)
                return ERROR(error, "--all goes with no name");
        if (chooses && options->exec)
                return ERROR(error, "--exec goes with names alone, not with --all and --changed");
        if (options->exec && !*options->exec)
                return ERROR(error, "--exec wants the path of a program");
        if (options->force && !chooses)
                return ERROR(error, "--force goes with --all or --changed: what is named is upgraded anyway");
        if (options->no_wait && (chooses || options->batch > 0))
                return ERROR(error, "--no-wait does not go with batches, which wait for what comes of each");
        return 0;
}

static void print_count(const char **between, size_t n, const char *what) {
        if (n == 0)
                return;
        (void) printf("%s%zu %s", *between, n, what);
        *between = ", ";
}

/* print_summary() - what was done, and what was not. */
static void print_summary(const Operate *operate) {
        const char *between = "";

        print_count(&between, operate->n_finished - operate->n_failed,
                    operate->options->check ? "possible" : "upgraded");
        print_count(&between, operate->n_failed, "failed");
        print_count(&between, operate->n_untouched, "untouched");
        print_count(&between, operate->n_cannot, "to be restarted");
        print_count(&between, operate->n_current, "up to date");
        (void) printf("%s\n", *between ? "" : "there is no runner");
        (void) output_flush(stdout);
}

static int upgrade(int argc, char **argv) {
        static const ControlSyntax syntax = {
                CONTROL_TAKES_JSON | CONTROL_TAKES_WAIT | CONTROL_TAKES_PROGRAM | CONTROL_TAKES_BATCHES,
                0,
                SIZE_MAX,
                "",
        };
        Operate operate = { .response = &baton__control__upgrade_response__descriptor,
                            .begin = begin,
                            .read = read_upgrade };
        char error[OPTIONS_ERROR_MAX] = "";
        _cleanup_free_ char *program = NULL;
        ControlOptions options;
        int code, r = control_options_parse(&syntax, argc, argv, &options, error);

        if (r == 0)
                r = check_options(&options, error);
        code = command_parsed(&command_upgrade, r, error);
        if (code != COMMAND_GO_ON)
                return code;
        if (options.exec) {
                program = realpath(options.exec, NULL);
                operate.program = program ? program : options.exec;
        }
        operate.command = command_upgrade.name;
        operate.options = &options;
        operate.n_names = options.n_operands;
        operate.choose = options.all || options.changed ? choose : NULL;
        operate.batch = options.batch > 0 ? options.batch : operate.choose != NULL;
        code = operate_run(&operate);
        if (operate.batch > 0 && operate.n_targets > 0 && !options.json)
                print_summary(&operate);
        return code;
}

const Command command_upgrade = {
        .name = "upgrade",
        .summary = "replace the process of a runner while it serves",
        .help = "Usage: baton upgrade NAME... [OPTION...]\n"
                "       baton upgrade --all | --changed [NAME...] [OPTION...]\n"
                "\n"
                "Starts another process of each runner, which takes its state, its clients and their calls over; the\n"
                "process before finishes what it has begun, and leaves. If anything fails, the process before serves\n"
                "on. NAME is a runner, a template (all its instances), or a pattern of names (* ? [...]), which the\n"
                "shell must be kept from expanding.\n"
                "\n"
                "With --all or --changed in batches: one that fails is the last, and the same command goes on with\n"
                "what is left.\n"
                "\n"
                "  --all                   every runner whose program or configuration is not the present one\n"
                "  --changed               those, of the named or of all, whose program on the disk is another one\n"
                "                          now\n"
                "  --force                 with them: those that are up to date, too\n"
                "  --batch=N               N at a time, and none after one that has failed (1 with --all and\n"
                "                          --changed; without them and --batch all at once, whatever fails)\n"
                "  --exec=PATH             the program, instead of the configured one, until the next reload\n"
                "  --check                 try everything but the replacement itself\n"
                "  --wait, --no-wait       return when it is done, as without either, or when it is on its way\n"
                "  --timeout=DURATION      give up if it is not done by then (30s)\n"
                "  --json                  one JSON object for each runner\n"
                "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n"
                "  --help\n"
                "\n"
                "Example: baton upgrade db --exec /usr/local/bin/db-2\n"
                "         baton upgrade --changed --batch 4 'web.*'\n",
        .run = upgrade,
};
