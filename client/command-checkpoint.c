/* SPDX-License-Identifier: Apache-2.0 */

/* baton checkpoint: the state of a runner, as it is now, is kept for whoever takes its place when it dies. */

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "client/command.h"
#include "client/exit-code.h"
#include "client/operate.h"

static void begin(const Operate *operate, Control *control, OperateTarget *target) {
        Baton__Control__CheckpointRequest request = BATON__CONTROL__CHECKPOINT_REQUEST__INIT;

        request.name = target->name;
        control_begin(control, &target->call, "Checkpoint", &request.base, operate->options->timeout_us);
}

static void read_checkpoint(const Operate *operate, const void *message, OperateOutcome *outcome) {
        const Baton__Control__CheckpointResponse *response = message;

        (void) operate;
        outcome->word = "kept";
        outcome->more = json_pack("{s:I, s:I}", "state_size", (json_int_t) response->state_size, "descriptors",
                                  (json_int_t) response->descriptors);
        (void) snprintf(outcome->text, sizeof(outcome->text), "kept, %" PRIu64 " bytes, %u descriptor%s",
                        response->state_size, response->descriptors, response->descriptors == 1 ? "" : "s");
}

static int checkpoint(int argc, char **argv) {
        static const ControlSyntax syntax = {
                CONTROL_TAKES_JSON | CONTROL_TAKES_TIMEOUT,
                1,
                SIZE_MAX,
                "the name of a runner is",
        };
        Operate operate = { .response = &baton__control__checkpoint_response__descriptor,
                            .begin = begin,
                            .read = read_checkpoint };
        char error[OPTIONS_ERROR_MAX] = "";
        ControlOptions options;
        int code = command_parsed(&command_checkpoint, control_options_parse(&syntax, argc, argv, &options, error),
                                  error);

        if (code != COMMAND_GO_ON)
                return code;
        operate.command = command_checkpoint.name;
        operate.options = &options;
        operate.n_names = options.n_operands;
        return operate_run(&operate);
}

const Command command_checkpoint = {
        .name = "checkpoint",
        .summary = "keep the state of a runner as it is now",
        .help = "Usage: baton checkpoint NAME... [OPTION...]\n"
                "\n"
                "Asks each runner for its state and its descriptors, and keeps them in place of those before, for "
                "the\n"
                "process that takes its place when it dies ('recover: failover'). Done when they would survive a\n"
                "crash of the supervisor, too. NAME is a runner, a template (all its instances), or a pattern of\n"
                "names (* ? [...]), which the shell must be kept from expanding.\n"
                "\n"
                "  --timeout=DURATION      wait at most so long; what was begun goes on; exit code 20\n"
                "  --json                  one JSON object for each runner\n"
                "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n"
                "  --help\n"
                "\n"
                "Example: baton checkpoint db\n",
        .run = checkpoint,
};
