/* SPDX-License-Identifier: Apache-2.0 */

/* baton upgrade: another process goes on as a runner, with its state, its clients and their calls. */

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/command.h"
#include "client/exit-code.h"
#include "client/operate.h"
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

static int upgrade(int argc, char **argv) {
        static const ControlSyntax syntax = {
                CONTROL_TAKES_JSON | CONTROL_TAKES_WAIT | CONTROL_TAKES_PROGRAM,
                1,
                SIZE_MAX,
                "the name of a runner is",
        };
        Operate operate = { .response = &baton__control__upgrade_response__descriptor,
                            .begin = begin,
                            .read = read_upgrade };
        char error[OPTIONS_ERROR_MAX] = "";
        _cleanup_free_ char *program = NULL;
        ControlOptions options;
        int code =
                command_parsed(&command_upgrade, control_options_parse(&syntax, argc, argv, &options, error), error);

        if (code != COMMAND_GO_ON)
                return code;
        if (options.exec) {
                program = realpath(options.exec, NULL);
                operate.program = program ? program : options.exec;
        }
        operate.command = command_upgrade.name;
        operate.options = &options;
        operate.n_names = options.n_operands;
        return operate_run(&operate);
}

const Command command_upgrade = {
        .name = "upgrade",
        .summary = "replace the process of a runner while it serves",
        .help = "Usage: baton upgrade NAME... [OPTION...]\n"
                "\n"
                "Starts another process of each runner, which takes its state, its clients and their calls over; the\n"
                "process before finishes what it has begun, and leaves. If anything fails, the process before serves "
                "on.\n"
                "NAME is a runner, a template (all its instances), or a pattern of names (* ? [...]), which the shell "
                "must\n"
                "be kept from expanding.\n"
                "\n"
                "  --exec=PATH             the program, instead of the configured one, until the next reload\n"
                "  --check                 try everything but the replacement itself\n"
                "  --no-wait               return when it is on its way, not when it is done\n"
                "  --timeout=DURATION      give up if it is not done by then (30s)\n"
                "  --json                  one JSON object for each runner\n"
                "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n"
                "  --help\n"
                "\n"
                "Example: baton upgrade db --exec /usr/local/bin/db-2\n",
        .run = upgrade,
};
