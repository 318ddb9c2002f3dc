/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton start, stop, restart, reset, signal: what is done to runners by their names. What they have in common is in
 * operate.c; here is what each asks for, and what it says of the answer.
 */

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "client/call-output.h"
#include "client/command.h"
#include "client/exit-code.h"
#include "client/operate.h"
#include "client/status-text.h"
#include "common/parse.h"

#define NAMES_HELP                                                                                         \
        "NAME is a runner, a template (all its instances), or a pattern of names (* ? [...]), which the\n" \
        "shell must be kept from expanding.\n"

#define COMMON_HELP                                                                                             \
        "  --json                  one JSON object for each runner\n"                                           \
        "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n" \
        "  --help\n"

#define WAIT_HELP                                                                                         \
        "  --wait, --no-wait       return when it is done, as without either, or when it is on its way\n" \
        "  --timeout=DURATION      wait at most so long; what was begun goes on; exit code 20\n"

#define STRICT_HELP "  --strict                exit with 45 where nothing had to be done\n"

enum {
        STATE_TAKES = CONTROL_TAKES_JSON | CONTROL_TAKES_WAIT | CONTROL_TAKES_STRICT,
};

/* run() - @syntax and the rest of @operate say which command it is. */
static int run(const Command *command, const ControlSyntax *syntax, Operate *operate, int argc, char **argv) {
        char error[OPTIONS_ERROR_MAX] = "";
        ControlOptions options;
        int code = command_parsed(command, control_options_parse(syntax, argc, argv, &options, error), error);

        if (code != COMMAND_GO_ON)
                return code;
        operate->command = command->name;
        operate->options = &options;
        if (operate->n_names == 0)
                operate->n_names = options.n_operands;
        return operate_run(operate);
}

static void add_process(OperateOutcome *outcome, uint64_t instance, int pid, const Baton__Control__Exit *exit) {
        outcome->more = json_object();
        if (instance > 0)
                (void) json_object_set_new(outcome->more, "instance", json_integer((json_int_t) instance));
        if (pid > 0)
                (void) json_object_set_new(outcome->more, "pid", json_integer(pid));
        if (exit)
                (void) json_object_set_new(outcome->more, "exit", call_output_exit(exit));
}

/* ---- start ---- */

static void begin_start(const Operate *operate, Control *control, OperateTarget *target) {
        Baton__Control__StartRequest request = BATON__CONTROL__START_REQUEST__INIT;

        request.name = target->name;
        request.no_wait = operate->options->no_wait;
        control_begin(control, &target->call, "Start", &request.base, operate->options->timeout_us);
}

static void read_start(const Operate *operate, const void *message, OperateOutcome *outcome) {
        const Baton__Control__StartResponse *response = message;

        outcome->already = response->already;
        outcome->word = operate->options->no_wait ? "starting" : response->pid > 0 ? "up" : "done";
        add_process(outcome, response->instance, response->pid, NULL);
        if (response->already)
                (void) snprintf(outcome->text, sizeof(outcome->text), "was up already, pid %d", response->pid);
        else if (operate->options->no_wait)
                (void) snprintf(outcome->text, sizeof(outcome->text), "on its way up");
        else if (response->pid > 0)
                (void) snprintf(outcome->text, sizeof(outcome->text), "up, pid %d", response->pid);
        else
                (void) snprintf(outcome->text, sizeof(outcome->text), "done");
}

static int start(int argc, char **argv) {
        static const ControlSyntax syntax = { STATE_TAKES, 1, SIZE_MAX, "the name of a runner is" };
        Operate operate = {
                .response = &baton__control__start_response__descriptor,
                .begin = begin_start,
                .read = read_start,
        };

        return run(&command_start, &syntax, &operate, argc, argv);
}

const Command command_start = {
        .name = "start",
        .summary = "start runners",
        .help = "Usage: baton start NAME... [OPTION...]\n"
                "\n"
                "Starts runners, and those they require, and waits until they are up.\n" NAMES_HELP
                "\n" WAIT_HELP STRICT_HELP COMMON_HELP "\n"
                "Example: baton start db 'web.*'\n",
        .run = start,
};

/* ---- stop ---- */

static void begin_stop(const Operate *operate, Control *control, OperateTarget *target) {
        Baton__Control__StopRequest request = BATON__CONTROL__STOP_REQUEST__INIT;

        request.name = target->name;
        request.timeout_us = operate->options->stop_timeout_us;
        request.no_wait = operate->options->no_wait;
        control_begin(control, &target->call, "Stop", &request.base, operate->options->timeout_us);
}

/* add_leftovers() - what is of no group of baton's is for a person to end. */
static void add_leftovers(const Baton__Control__StopResponse *response, OperateOutcome *outcome) {
        size_t size = strlen(outcome->text);

        for (size_t i = 0; i < response->n_leftovers && size < sizeof(outcome->text); i++)
                size += (size_t) snprintf(outcome->text + size, sizeof(outcome->text) - size, "%s%s",
                                          i ? ", " : "; it left behind, and they live on: ", response->leftovers[i]);
}

static void read_stop(const Operate *operate, const void *message, OperateOutcome *outcome) {
        const Baton__Control__StopResponse *response = message;
        char how[EXIT_TEXT_MAX];

        outcome->already = response->already;
        outcome->word = operate->options->no_wait ? "stopping" : "down";
        add_process(outcome, 0, 0, response->exit);
        if (outcome->more)
                (void) json_object_set_new(outcome->more, "killed", json_boolean(response->killed));
        if (response->n_leftovers > 0)
                (void) json_object_set_new(outcome->more, "leftovers",
                                           status_leftovers_json(response->leftovers, response->n_leftovers));
        exit_describe(response->exit, how);
        if (response->already)
                (void) snprintf(outcome->text, sizeof(outcome->text), "was down already");
        else if (operate->options->no_wait)
                (void) snprintf(outcome->text, sizeof(outcome->text), "on its way down");
        else if (response->killed)
                (void) snprintf(outcome->text, sizeof(outcome->text), "down; it did not stop in time, and was killed");
        else
                (void) snprintf(outcome->text, sizeof(outcome->text), "down%s%s", response->exit ? "; " : "",
                                response->exit ? how : "");
        add_leftovers(response, outcome);
}

static int stop(int argc, char **argv) {
        static const ControlSyntax syntax = { STATE_TAKES | CONTROL_TAKES_STOP_TIMEOUT, 1, SIZE_MAX,
                                              "the name of a runner is" };
        Operate operate = {
                .response = &baton__control__stop_response__descriptor,
                .begin = begin_stop,
                .read = read_stop,
        };

        return run(&command_stop, &syntax, &operate, argc, argv);
}

const Command command_stop = {
        .name = "stop",
        .summary = "stop runners",
        .help = "Usage: baton stop NAME... [OPTION...]\n"
                "\n"
                "Stops runners, after those that require them, and waits until they are down; they stay down until\n"
                "they are started.\n" NAMES_HELP "\n"
                "  --stop-timeout=DURATION  what each has before SIGKILL (as configured)\n" WAIT_HELP STRICT_HELP
                        COMMON_HELP "\n"
                "Example: baton stop web --stop-timeout 30s\n",
        .run = stop,
};

/* ---- restart ---- */

static void begin_restart(const Operate *operate, Control *control, OperateTarget *target) {
        Baton__Control__RestartRequest request = BATON__CONTROL__RESTART_REQUEST__INIT;

        request.name = target->name;
        request.timeout_us = operate->options->stop_timeout_us;
        request.no_wait = operate->options->no_wait;
        control_begin(control, &target->call, "Restart", &request.base, operate->options->timeout_us);
}

static void read_restart(const Operate *operate, const void *message, OperateOutcome *outcome) {
        const Baton__Control__RestartResponse *response = message;

        outcome->word = operate->options->no_wait ? "restarting" : response->pid > 0 ? "up" : "done";
        add_process(outcome, response->instance, response->pid, response->exit);
        if (operate->options->no_wait)
                (void) snprintf(outcome->text, sizeof(outcome->text), "on its way down and up");
        else if (response->pid > 0)
                (void) snprintf(outcome->text, sizeof(outcome->text), "up, pid %d%s", response->pid,
                                response->killed ? "; the one before did not stop in time, and was killed" : "");
        else
                (void) snprintf(outcome->text, sizeof(outcome->text), "done");
}

static int restart(int argc, char **argv) {
        static const ControlSyntax syntax = { CONTROL_TAKES_JSON | CONTROL_TAKES_WAIT | CONTROL_TAKES_STOP_TIMEOUT, 1,
                                              SIZE_MAX, "the name of a runner is" };
        Operate operate = {
                .response = &baton__control__restart_response__descriptor,
                .begin = begin_restart,
                .read = read_restart,
        };

        return run(&command_restart, &syntax, &operate, argc, argv);
}

const Command command_restart = {
        .name = "restart",
        .summary = "stop runners and start them again",
        .help = "Usage: baton restart NAME... [OPTION...]\n"
                "\n"
                "Stops runners and starts them again, those that require them too, and waits until they are up; one\n"
                "that is down is started.\n" NAMES_HELP "\n"
                "  --stop-timeout=DURATION  what each has before SIGKILL (as configured)\n" WAIT_HELP COMMON_HELP "\n"
                "Example: baton restart 'web.*'\n",
        .run = restart,
};

/* ---- reset ---- */

static void begin_reset(const Operate *operate, Control *control, OperateTarget *target) {
        Baton__Control__ResetRequest request = BATON__CONTROL__RESET_REQUEST__INIT;

        request.name = target->name;
        control_begin(control, &target->call, "Reset", &request.base, operate->options->timeout_us);
}

static void read_reset(const Operate *operate, const void *message, OperateOutcome *outcome) {
        const Baton__Control__ResetResponse *response = message;

        (void) operate;
        outcome->already = response->already;
        outcome->word = "reset";
        (void) snprintf(outcome->text, sizeof(outcome->text), "%s",
                        response->already ? "had nothing to be reset" : "reset");
}

static int reset(int argc, char **argv) {
        static const ControlSyntax syntax = { CONTROL_TAKES_JSON | CONTROL_TAKES_STRICT, 1, SIZE_MAX,
                                              "the name of a runner is" };
        Operate operate = {
                .response = &baton__control__reset_response__descriptor,
                .begin = begin_reset,
                .read = read_reset,
        };

        return run(&command_reset, &syntax, &operate, argc, argv);
}

const Command command_reset = {
        .name = "reset",
        .summary = "forget failures: a runner that was given up is tried again",
        .help = "Usage: baton reset NAME... [OPTION...]\n"
                "\n"
                "Forgets the failures of runners and their count of restarts: one that has failed, or waits for its\n"
                "next start, is started now.\n" NAMES_HELP "\n" STRICT_HELP COMMON_HELP "\n"
                "Example: baton reset db\n",
        .run = reset,
};

/* ---- signal ---- */

static void begin_signal(const Operate *operate, Control *control, OperateTarget *target) {
        control_begin_signal(control, &target->call, target->name, operate->signal);
}

static void read_signal(const Operate *operate, const void *message, OperateOutcome *outcome) {
        char name[EXIT_TEXT_MAX];

        (void) message;
        outcome->word = "signaled";
        signal_describe(operate->signal, name);
        (void) snprintf(outcome->text, sizeof(outcome->text), "%.64s was sent", name);
}

static int send_signal(int argc, char **argv) {
        static const ControlSyntax syntax = { CONTROL_TAKES_JSON, 2, SIZE_MAX,
                                              "the name of a runner, or the signal behind it, is" };
        char error[OPTIONS_ERROR_MAX] = "";
        ControlOptions options;
        Operate operate = {
                .command = "signal",
                .response = &baton__control__signal_response__descriptor,
                .begin = begin_signal,
                .read = read_signal,
                .options = &options,
        };
        int code = command_parsed(&command_signal, control_options_parse(&syntax, argc, argv, &options, error), error);

        if (code != COMMAND_GO_ON)
                return code;
        operate.n_names = options.n_operands - 1;
        if (parse_signal(options.operands[operate.n_names], &operate.signal) < 0) {
                (void) snprintf(error, sizeof(error), "there is no signal '%.100s'",
                                options.operands[operate.n_names]);
                return command_usage(&command_signal, error);
        }
        return operate_run(&operate);
}

const Command command_signal = {
        .name = "signal",
        .summary = "send a signal to runners",
        .help = "Usage: baton signal NAME... SIGNAL [OPTION...]\n"
                "\n"
                "Sends a signal to the whole process group of runners.\n" NAMES_HELP "\n" COMMON_HELP "\n"
                "Example: baton signal nginx HUP\n",
        .run = send_signal,
};
