/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton-runner-echo: answers what it is asked, and misbehaves on request. It is what baton is tested and measured with,
 * and is written as an application would be: of libbaton only the public header.
 *
 * The loop has two forms, both the library's: it waits inside baton_runner_dispatch() as long as nothing else is to be
 * watched, and in a poll() of its own, on the library's descriptor and a timerfd, while calls sleep.
 */

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/macro.h"
#include "common/version.h"
#include "runner/echo.h"

#define PROGRAM    "baton-runner-echo"
#define LOG_TARGET "echo"
#define EXIT_USAGE 2

typedef struct Forward Forward;

/* A call that is answered later. */
struct Sleeper {
        LIST_ENTRY(Sleeper) link;
        Echo *echo;
        struct baton_call *call;
        uint64_t deadline;
};

/* A call that waits for the supervisor's answer. */
struct Forward {
        struct baton_call *call;
        struct baton_request *request;
};

static const char help[] =
        "Usage: " PROGRAM " [OPTION...]\n"
        "\n"
        "A runner that answers what it is asked, for tests, measurements and first steps. baton starts it:\n"
        "\n"
        "  baton call --exec " PROGRAM " -- echo.Echo/Unary string:hello\n"
        "  baton call --exec " PROGRAM " -- echo.Echo/Sleep u64:1000000\n"
        "  baton call --exec " PROGRAM " -- echo.Echo/Fail u64:5 'string:no such thing'\n"
        "\n"
        "Methods, their arguments and answers (baton.Values, but for Unary and what streams carry):\n"
        "\n"
        "  echo.Echo/Unary                         type, payload, metadata and descriptors as they came\n"
        "  echo.Echo/ServerStream u64:COUNT [u64:SIZE]   that many items of that many bytes (64)\n"
        "  echo.Echo/ClientStream                  takes items; u64 u64: how many they were, and how many bytes\n"
        "  echo.Echo/Bidi                          sends items back as they came\n"
        "  echo.Echo/Sleep u64:MICROSECONDS        answers then; others are served meanwhile\n"
        "  echo.Echo/Fail u64:STATUS string:TEXT [string:TYPE buffer:DETAIL]\n"
        "  echo.Echo/Call string:METHOD [string:TYPE buffer:PAYLOAD]\n"
        "                                          calls the supervisor back and passes its answer on\n"
        "  echo.Echo/Log u64:COUNT [string:TEXT]   that many log records\n"
        "  echo.Echo/Output string:TEXT [string:TEXT]   to standard output and standard error\n"
        "  echo.Echo/Held                          u64: how many descriptors are open here\n"
        "  echo.Echo/Exit i64:CODE                 ends without an answer\n"
        "  echo.Echo/Crash i64:SIGNAL              the same, by a signal\n"
        "\n"
        "  --uds-path PATH  connect to this bootstrap socket instead of $BATON_BOOTSTRAP\n"
        "  -h, --help       show this\n"
        "  --version        show the version\n";

/* ---- echo ---- */

/* take_fds() - all descriptors of @call in an array of their own; NULL: there are none, or no memory for them. */
static int *take_fds(struct baton_call *call, size_t *ret_n) {
        size_t n = baton_call_n_fds(call);
        int *fds = n > 0 ? calloc(n, sizeof(*fds)) : NULL;

        *ret_n = fds ? n : 0;
        for (size_t i = 0; i < *ret_n; i++)
                fds[i] = baton_call_take_fd(call, i);
        return fds;
}

static void on_unary(struct baton_call *call, void *userdata) {
        _cleanup_free_ int *fds = NULL;
        const void *data, *value;
        const char *key;
        size_t size, n_fds;

        (void) userdata;
        for (size_t i = 0; (value = baton_call_metadata_at(call, i, &key, &size)); i++)
                (void) baton_call_add_metadata(call, key, value, size);
        data = baton_call_data(call, &size);
        fds = take_fds(call, &n_fds);
        (void) baton_call_answer_fds(call, baton_call_type(call), data, size, fds, n_fds);
}

/* ---- sleep ---- */

static void arm_timer(Echo *echo) {
        uint64_t earliest = USEC_INFINITY;
        struct itimerspec when = { 0 };
        Sleeper *sleeper;

        LIST_FOREACH (sleeper, &echo->sleepers, link)
                earliest = MIN(earliest, sleeper->deadline);
        if (earliest != USEC_INFINITY) {
                when.it_value.tv_sec = (time_t) (earliest / USEC_PER_SEC);
                when.it_value.tv_nsec = (long) (earliest % USEC_PER_SEC * NSEC_PER_USEC);
        }
        (void) timerfd_settime(echo->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static struct baton_call *sleeper_free(Sleeper *sleeper) {
        struct baton_call *call = sleeper->call;

        LIST_REMOVE(sleeper, link);
        free(sleeper);
        return call;
}

static void on_sleep_cancelled(struct baton_call *call, void *userdata) {
        (void) baton_call_fail(sleeper_free(userdata), BATON_CANCELLED, "woken up");
        (void) call;
}

static void on_sleep(struct baton_call *call, void *userdata) {
        _cleanup_(values_freep) Baton__Values *values = arguments_unpack(call);
        const Baton__Value *delay =
                values ? argument_needed(call, values, 0, BATON__VALUE__V_U, "u64, microseconds") : NULL;
        Echo *echo = userdata;
        Sleeper *sleeper;

        if (!delay)
                return;
        sleeper = calloc(1, sizeof(*sleeper));
        if (!sleeper) {
                (void) baton_call_fail(call, BATON_RESOURCE_EXHAUSTED, "out of memory");
                return;
        }
        sleeper->echo = echo;
        sleeper->call = call;
        sleeper->deadline = clock_after(clock_now(), delay->u);
        LIST_INSERT_HEAD(&echo->sleepers, sleeper, link);
        baton_call_on_cancel(call, on_sleep_cancelled, sleeper);
        arm_timer(echo);
}

static void wake_sleepers(Echo *echo) {
        uint64_t now = clock_now();
        Sleeper *sleeper, *next;

        for (sleeper = LIST_FIRST(&echo->sleepers); sleeper; sleeper = next) {
                next = LIST_NEXT(sleeper, link);
                if (sleeper->deadline <= now)
                        answer_nothing(sleeper_free(sleeper));
        }
        arm_timer(echo);
}

/* ---- calls back ---- */

static void on_forward_cancelled(struct baton_call *call, void *userdata) {
        Forward *forward = userdata;

        baton_request_cancel(forward->request);
        free(forward);
        (void) baton_call_fail(call, BATON_CANCELLED, "cancelled");
}

static void on_forward_answer(const struct baton_answer *answer, void *userdata) {
        Forward *forward = userdata;
        struct baton_call *call = forward->call;

        free(forward);
        if (answer->status != BATON_OK) {
                (void) baton_call_fail(call, answer->status, "%s", answer->message);
                return;
        }
        (void) baton_call_answer_fds(call, answer->type, answer->data, answer->size, answer->fds, answer->n_fds);
        for (size_t i = 0; i < answer->n_fds; i++)
                answer->fds[i] = -1;
}

/* forward() - calls the supervisor as the arguments say, with what descriptors there are. */
static int forward(Echo *echo, struct baton_call *call, const Baton__Values *values, const char *method) {
        const Baton__Value *type = argument_optional(values, 1, BATON__VALUE__V_S);
        const Baton__Value *payload = argument_optional(values, 2, BATON__VALUE__V_B);
        struct baton_call_parameters parameters = { .size = sizeof(parameters), .method = method };
        Forward *object = calloc(1, sizeof(*object));
        _cleanup_free_ int *fds = NULL;
        int r;

        if (!object)
                return -ENOMEM;
        object->call = call;
        if (type)
                parameters.type = type->s;
        if (payload) {
                parameters.data = payload->b.data;
                parameters.data_size = payload->b.len;
        }
        fds = take_fds(call, &parameters.n_fds);
        parameters.fds_consume = fds;
        r = baton_runner_call(echo->runner, &parameters, on_forward_answer, object, &object->request);
        if (r < 0)
                free(object);
        else
                baton_call_on_cancel(call, on_forward_cancelled, object);
        return r;
}

static void on_call_back(struct baton_call *call, void *userdata) {
        _cleanup_(values_freep) Baton__Values *values = arguments_unpack(call);
        const Baton__Value *method =
                values ? argument_needed(call, values, 0, BATON__VALUE__V_S, "string, a method") : NULL;
        int r;

        if (!method)
                return;
        r = forward(userdata, call, values, method->s);
        if (r < 0)
                (void) baton_call_fail(call, BATON_INTERNAL, "cannot call %s: %s", method->s, strerror(-r));
}

/* ---- misbehaviour, and what shows it ---- */

static void on_fail(struct baton_call *call, void *userdata) {
        _cleanup_(values_freep) Baton__Values *values = arguments_unpack(call);
        const Baton__Value *status, *message, *type, *detail;

        (void) userdata;
        status = values ? argument_needed(call, values, 0, BATON__VALUE__V_U, "u64, a status") : NULL;
        message = status ? argument_needed(call, values, 1, BATON__VALUE__V_S, "string, a message") : NULL;
        if (!message)
                return;
        type = argument_optional(values, 2, BATON__VALUE__V_S);
        detail = argument_optional(values, 3, BATON__VALUE__V_B);
        if (type)
                (void) baton_call_add_detail(call, type->s, detail ? detail->b.data : NULL,
                                             detail ? detail->b.len : 0);
        (void) baton_call_fail(call,
                               status->u <= BATON_UNAUTHENTICATED ? (enum baton_status) status->u : BATON_UNKNOWN,
                               "%s", message->s);
}

static void on_log(struct baton_call *call, void *userdata) {
        _cleanup_(values_freep) Baton__Values *values = arguments_unpack(call);
        const Baton__Value *count =
                values ? argument_needed(call, values, 0, BATON__VALUE__V_U, "u64, a count") : NULL;
        const Baton__Value *text;
        Echo *echo = userdata;

        if (!count)
                return;
        text = argument_optional(values, 1, BATON__VALUE__V_S);
        for (uint64_t i = 1; i <= count->u; i++)
                BATON_LOG(echo->runner, BATON_INFO, LOG_TARGET, "%s %llu", text ? text->s : "record",
                          (unsigned long long) i);
        answer_nothing(call);
}

static void on_output(struct baton_call *call, void *userdata) {
        _cleanup_(values_freep) Baton__Values *values = arguments_unpack(call);
        const Baton__Value *text =
                values ? argument_needed(call, values, 0, BATON__VALUE__V_S, "string, a text") : NULL;
        const Baton__Value *second;

        (void) userdata;
        if (!text)
                return;
        second = argument_optional(values, 1, BATON__VALUE__V_S);
        (void) fputs(text->s, stdout);
        (void) fflush(stdout);
        (void) fputs(second ? second->s : text->s, stderr);
        (void) fflush(stderr);
        answer_nothing(call);
}

static void on_held(struct baton_call *call, void *userdata) {
        int n = fd_count();
        uint64_t number = (uint64_t) n;

        (void) userdata;
        if (n < 0)
                (void) baton_call_fail(call, BATON_INTERNAL, "cannot count descriptors: %s", strerror(-n));
        else
                answer_numbers(call, &number, 1);
}

static void on_exit_request(struct baton_call *call, void *userdata) {
        _cleanup_(values_freep) Baton__Values *values = arguments_unpack(call);
        const Baton__Value *code =
                values ? argument_needed(call, values, 0, BATON__VALUE__V_I, "i64, an exit code") : NULL;

        (void) userdata;
        if (code)
                exit((int) (code->i & 0xff));
}

static void on_crash(struct baton_call *call, void *userdata) {
        _cleanup_(values_freep) Baton__Values *values = arguments_unpack(call);
        const Baton__Value *number =
                values ? argument_needed(call, values, 0, BATON__VALUE__V_I, "i64, a signal") : NULL;

        (void) userdata;
        if (!number)
                return;
        /* Sanitizers catch some; SIGKILL and SIGSTOP cannot be set, nor need it. */
        (void) signal((int) number->i, SIG_DFL);
        if (number->i < 1 || number->i >= NSIG || raise((int) number->i) != 0)
                (void) baton_call_fail(call, BATON_INVALID_ARGUMENT, "argument 1: no signal %lld",
                                       (long long) number->i);
        else
                answer_nothing(call);
}

/* ---- the program ---- */

#define RAW ""

static const struct {
        const char *name;
        baton_method_fn function;
        const char *request, *response;
        unsigned flags;
} methods[] = {
        { "echo.Echo/Unary", on_unary, RAW, RAW, 0 },
        { "echo.Echo/ServerStream", echo_server_stream, VALUES_TYPE, RAW, BATON_METHOD_SERVER_STREAMS },
        { "echo.Echo/ClientStream", echo_client_stream, RAW, VALUES_TYPE, BATON_METHOD_CLIENT_STREAMS },
        { "echo.Echo/Bidi", echo_bidi, RAW, RAW, BATON_METHOD_CLIENT_STREAMS | BATON_METHOD_SERVER_STREAMS },
        { "echo.Echo/Sleep", on_sleep, VALUES_TYPE, VALUES_TYPE, 0 },
        { "echo.Echo/Fail", on_fail, VALUES_TYPE, VALUES_TYPE, 0 },
        { "echo.Echo/Call", on_call_back, VALUES_TYPE, RAW, 0 },
        { "echo.Echo/Log", on_log, VALUES_TYPE, VALUES_TYPE, 0 },
        { "echo.Echo/Output", on_output, VALUES_TYPE, VALUES_TYPE, 0 },
        { "echo.Echo/Held", on_held, VALUES_TYPE, VALUES_TYPE, 0 },
        { "echo.Echo/Exit", on_exit_request, VALUES_TYPE, VALUES_TYPE, 0 },
        { "echo.Echo/Crash", on_crash, VALUES_TYPE, VALUES_TYPE, 0 },
};

static int add_methods(Echo *echo) {
        int r = 0;

        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(methods); i++) {
                r = baton_runner_add_method(echo->runner, methods[i].name, methods[i].function, echo);
                if (r == 0)
                        r = baton_runner_describe_method(echo->runner, methods[i].name, methods[i].request,
                                                         methods[i].response, methods[i].flags);
        }
        return r;
}

/* serve() - one turn: in the library's loop, or in ours while calls sleep. As baton_runner_dispatch(). */
static int serve(Echo *echo) {
        struct pollfd fds[2];

        if (LIST_EMPTY(&echo->sleepers))
                return baton_runner_dispatch(echo->runner, -1);
        fds[0] = (struct pollfd){ .fd = baton_runner_fd(echo->runner), .events = POLLIN };
        fds[1] = (struct pollfd){ .fd = echo->timer_fd, .events = POLLIN };
        if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
                return errno == EINTR ? 0 : -errno;
        if (fds[1].revents)
                wake_sleepers(echo);
        return baton_runner_dispatch(echo->runner, 0);
}

static int run(Echo *echo, const struct baton_runner_options *options) {
        int r = baton_runner_new(&echo->runner, options);

        if (r < 0)
                return r;
        r = add_methods(echo);
        while (r == 0)
                r = serve(echo);
        if (r < 0)
                (void) fprintf(stderr, PROGRAM ": %s (%s)\n", baton_runner_reason(echo->runner), strerror(-r));
        return r;
}

static int parse(int argc, char **argv) {
        enum { OPTION_VERSION = 256 };
        static const struct option options[] = {
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, OPTION_VERSION },
                { 0 },
        };
        int option;

        while ((option = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (option) {
                case 'h':
                        (void) fputs(help, stdout);
                        exit(EXIT_SUCCESS);
                case OPTION_VERSION:
                        printf(PROGRAM " %s (%s)\n", version_release(), version_commit());
                        exit(EXIT_SUCCESS);
                default:
                        return -EINVAL; /* getopt has said why */
                }
        if (optind == argc)
                return 0;
        (void) fprintf(stderr, PROGRAM ": unexpected argument '%s'; see " PROGRAM " --help\n", argv[optind]);
        return -EINVAL;
}

int main(int argc, char **argv) {
        struct baton_runner_options options = { .size = sizeof(options), .software = PROGRAM " " PACKAGE_VERSION };
        Echo echo = { .timer_fd = -1 };
        int r;

        if (baton_runner_options_from_arguments(&options, &argc, argv) < 0 || parse(argc, argv) < 0)
                return EXIT_USAGE;
        echo.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (echo.timer_fd < 0) {
                (void) fprintf(stderr, PROGRAM ": timerfd_create: %s\n", strerror(errno));
                return EXIT_FAILURE;
        }
        r = run(&echo, &options);
        baton_runner_free(echo.runner);
        streams_free(&echo);
        while (!LIST_EMPTY(&echo.sleepers))
                (void) sleeper_free(LIST_FIRST(&echo.sleepers));
        fd_close(echo.timer_fd);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
