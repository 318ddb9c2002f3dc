/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Command lines of the commands that go to a supervisor that runs. They name runners, not programs, so nothing behind them
 * belongs to somebody else: options may stand anywhere. One table has all of them, each command says which it takes.
 */

#include <errno.h>
#include <string.h>

#include "client/options-internal.h"
#include "client/options-logs.h"
#include "common/clock.h"
#include "common/parse.h"

enum {
        OPTION_ALL = 512,
        OPTION_BATCH,
        OPTION_CHANGED,
        OPTION_CHECK,
        OPTION_DRY_RUN,
        OPTION_EXEC_PROGRAM,
        OPTION_FAULT,
        OPTION_FORCE,
        OPTION_KEEPER,
        OPTION_NO_WAIT,
        OPTION_SINCE,
        OPTION_STRICT,
        OPTION_TIMEOUT,
        OPTION_WAIT,
        OPTION_WATCH,
};

static const struct option all_options[] = {
        { "all", no_argument, NULL, OPTION_ALL },
        { "batch", required_argument, NULL, OPTION_BATCH },
        { "changed", no_argument, NULL, OPTION_CHANGED },
        { "check", no_argument, NULL, OPTION_CHECK },
        { "dry-run", no_argument, NULL, OPTION_DRY_RUN },
        { "exec", required_argument, NULL, OPTION_EXEC_PROGRAM },
        { "fault", required_argument, NULL, OPTION_FAULT },
        { "follow", no_argument, NULL, 'f' },
        { "force", no_argument, NULL, OPTION_FORCE },
        { "help", no_argument, NULL, OPTION_HELP },
        { "json", no_argument, NULL, OPTION_JSON },
        { "keeper", no_argument, NULL, OPTION_KEEPER },
        { "no-wait", no_argument, NULL, OPTION_NO_WAIT },
        { "since", required_argument, NULL, OPTION_SINCE },
        { "socket", required_argument, NULL, OPTION_SOCKET },
        { "stop-timeout", required_argument, NULL, OPTION_STOP_TIMEOUT },
        { "strict", no_argument, NULL, OPTION_STRICT },
        { "timeout", required_argument, NULL, OPTION_TIMEOUT },
        { "wait", no_argument, NULL, OPTION_WAIT },
        { "watch", no_argument, NULL, OPTION_WATCH },
        { NULL, 0, NULL, 0 },
};

/* needed() - the CONTROL_TAKES_* without which a command that has @takes does not take @option. */
static unsigned needed(int option, unsigned takes) {
        switch (option) {
        case OPTION_JSON:
                return CONTROL_TAKES_JSON;
        case OPTION_WAIT:
        case OPTION_NO_WAIT:
                return CONTROL_TAKES_WAIT;
        case OPTION_TIMEOUT:
                return takes & (CONTROL_TAKES_WAIT | CONTROL_TAKES_TAKEOVER | CONTROL_TAKES_TIMEOUT)
                               ? 0
                               : CONTROL_TAKES_WAIT;
        case OPTION_CHECK:
        case OPTION_EXEC_PROGRAM:
                return takes & (CONTROL_TAKES_TAKEOVER | CONTROL_TAKES_PROGRAM) ? 0 : CONTROL_TAKES_TAKEOVER;
        case OPTION_ALL:
        case OPTION_BATCH:
        case OPTION_CHANGED:
                return CONTROL_TAKES_BATCHES;
        case OPTION_FORCE:
                return takes & (CONTROL_TAKES_TAKEOVER | CONTROL_TAKES_BATCHES) ? 0 : CONTROL_TAKES_TAKEOVER;
        case OPTION_FAULT:
        case OPTION_KEEPER:
                return CONTROL_TAKES_TAKEOVER;
        case OPTION_STOP_TIMEOUT:
                return CONTROL_TAKES_STOP_TIMEOUT;
        case OPTION_STRICT:
                return CONTROL_TAKES_STRICT;
        case OPTION_DRY_RUN:
                return CONTROL_TAKES_DRY_RUN;
        case 'f':
        case OPTION_SINCE:
                return CONTROL_TAKES_FOLLOW;
        case OPTION_WATCH:
                return CONTROL_TAKES_WATCH;
        default:
                return 0;
        }
}

static int take_batch(size_t *ret_batch, char *error) {
        uint64_t n;

        if (parse_u64(optarg, CONTROL_BATCH_MAX, &n) < 0 || n == 0)
                return ERROR(error, "--batch wants a number from 1 to %d, not '%.100s'", CONTROL_BATCH_MAX, optarg);
        *ret_batch = (size_t) n;
        return 0;
}

/* take_since() - digits alone are a number, whatever they are as a duration. */
static int take_since(ControlOptions *options, char *error) {
        if (parse_u64(optarg, UINT64_MAX, &options->since) == 0 ||
            logs_parse_time(optarg, clock_wall(), &options->since_us) == 0)
                return 0;
        return ERROR(error, "--since wants the number of an event, or a time as 'baton logs' takes it, not '%.100s'",
                     optarg);
}

static int take(ControlOptions *options, int option, char *error) {
        switch (option) {
        case OPTION_ALL:
                options->all = true;
                return 0;
        case OPTION_BATCH:
                return take_batch(&options->batch, error);
        case OPTION_CHANGED:
                options->changed = true;
                return 0;
        case OPTION_CHECK:
                options->check = true;
                return 0;
        case OPTION_EXEC_PROGRAM:
                options->exec = optarg;
                return 0;
        case OPTION_FAULT:
                options->fault = optarg;
                return *optarg ? 0 : ERROR(error, "--fault wants PHASE:FAULT");
        case OPTION_FORCE:
                options->force = true;
                return 0;
        case OPTION_KEEPER:
                options->keeper = true;
                return 0;
        case OPTION_DRY_RUN:
                options->dry_run = true;
                return 0;
        case 'f':
                options->follow = true;
                return 0;
        case OPTION_JSON:
                options->json = true;
                return 0;
        case OPTION_WAIT:
        case OPTION_NO_WAIT:
                options->no_wait = option == OPTION_NO_WAIT;
                return 0;
        case OPTION_SINCE:
                return take_since(options, error);
        case OPTION_SOCKET:
                options->socket = optarg;
                return *optarg ? 0 : ERROR(error, "--socket wants a path");
        case OPTION_STOP_TIMEOUT:
                return options_take_duration("stop-timeout", &options->stop_timeout_us, error);
        case OPTION_STRICT:
                options->strict = true;
                return 0;
        case OPTION_TIMEOUT:
                return options_take_duration("timeout", &options->timeout_us, error);
        case OPTION_WATCH:
                options->watch = true;
                return 0;
        default:
                return OPTIONS_HELP;
        }
}

/* next() - getopt_long() with '?' for everything that is wrong, and a line in @error. */
static int next(int argc, char **argv, unsigned takes, char *error) {
        int c = getopt_long(argc, argv, takes & CONTROL_TAKES_FOLLOW ? ":f" : ":", all_options, NULL);
        const char *at = optind > 0 && optind <= argc ? argv[optind - 1] : "";

        if (c == ':') {
                (void) ERROR(error, "option '%.100s' needs an argument", at);
                return '?';
        }
        if (c == '?' && optopt >= OPTION_COUNT)
                (void) ERROR(error, "option '%.100s' takes no argument", at);
        else if (c == '?' && optopt > 0)
                (void) ERROR(error, "unknown option '-%c'", optopt);
        else if (c == '?' || (c >= 0 && needed(c, takes) & ~takes)) {
                (void) ERROR(error, "unknown option '%.100s'", at);
                return '?';
        }
        return c;
}

int control_options_parse(const ControlSyntax *syntax, int argc, char **argv, ControlOptions *ret_options,
                          char *error) {
        int c, r;

        *ret_options = (ControlOptions){ 0 };
        options_begin();
        while ((c = next(argc, argv, syntax->options, error)) >= 0) {
                r = c == '?' ? -EINVAL : take(ret_options, c, error);
                if (r != 0)
                        return r;
        }
        ret_options->operands = argv + optind;
        ret_options->n_operands = (size_t) (argc - optind);
        for (size_t i = 0; i < ret_options->n_operands; i++)
                if (!utf8_is_valid(ret_options->operands[i], strlen(ret_options->operands[i])))
                        return ERROR(error, "a name is not UTF-8: '%.100s'", ret_options->operands[i]);
        if (ret_options->n_operands < syntax->min)
                return ERROR(error, "%s missing", syntax->operands);
        if (ret_options->n_operands > syntax->max)
                return syntax->max == 0
                               ? ERROR(error, "it takes no arguments")
                               : ERROR(error, "one argument too many: '%.100s'", ret_options->operands[syntax->max]);
        return 0;
}
