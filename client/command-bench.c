/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton bench: how many calls a runner takes, over a lane of our own. For each size of the request and each number of calls
 * in flight, one row: calls are made for a while, each answer makes room for the next call, and what is counted begins
 * after a warm-up and ends with the time; the calls then open are waited for, and not counted.
 *
 * Nothing is allocated by us in a row: a call in flight is a slot, with the moment when it was made.
 */

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/call-output.h"
#include "client/command.h"
#include "client/exec.h"
#include "client/exit-code.h"
#include "client/latency.h"
#include "client/output.h"
#include "common/clock.h"

#define WARM_UP_PART 10                  /* of the time: one in so many before it */
#define GRACE_US     (10 * USEC_PER_SEC) /* for what is open at the end */

typedef struct Row Row;

typedef struct BenchCommand {
        Exec exec; /* first: work() is given it */
        BenchOptions options;
        json_t *rows;     /* with --json: those that are done */
        Latency *latency; /* of the row that runs */
} BenchCommand;

typedef struct Slot {
        Row *row;
        Call *call;
        uint64_t began;
} Slot;

typedef struct Cpu {
        uint64_t own_ns, runner_ns;
} Cpu;

struct Row {
        BenchCommand *command;
        uint8_t *payload;
        size_t size, in_flight, open;
        Slot *slots;
        uint64_t from, until; /* what is answered in between counts */
        uint64_t bytes;       /* of payload, both ways */
        Cpu before, cpu;
        bool over;              /* no call is made any more */
        ControlFailure failure; /* the first */
};

/* ---- the row's calls ---- */

/* processor_time() - of ourselves, and of the runner as the system counts it; 0 where it cannot be asked. */
static Cpu processor_time(pid_t runner) {
        struct timespec now;
        clockid_t clock;
        Cpu cpu = { 0 };

        if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0)
                cpu.own_ns = (uint64_t) now.tv_sec * 1000000000 + (uint64_t) now.tv_nsec;
        if (clock_getcpuclockid(runner, &clock) == 0 && clock_gettime(clock, &now) == 0)
                cpu.runner_ns = (uint64_t) now.tv_sec * 1000000000 + (uint64_t) now.tv_nsec;
        return cpu;
}

static void fail(Row *row, Status status, const char *message) {
        row->over = true;
        if (row->failure.status != STATUS_OK)
                return;
        row->failure.status = status;
        row->failure.message = strdup(message);
}

static void on_answer(Call *call, const Answer *answer, void *userdata);

static void begin(Slot *slot) {
        Row *row = slot->row;
        const CallParameters parameters = { .method = row->command->options.method,
                                            .payload = row->payload,
                                            .size = row->size };
        int r;

        slot->began = latency_clock();
        r = call_start(row->command->exec.lane, &parameters, on_answer, slot, &slot->call);
        if (r == 0)
                row->open++;
        else
                fail(row, r == -ESHUTDOWN ? STATUS_UNAVAILABLE : status_from_errno(r), strerror(-r));
}

/* count() - an answer came @now. */
static void count(Row *row, const Slot *slot, uint64_t now, size_t answer_size) {
        if (now >= row->until) {
                if (!row->over && row->command->latency->n > 0)
                        row->cpu = processor_time(row->command->exec.pid);
                row->over = true;
                return;
        }
        if (now < row->from)
                return;
        if (row->command->latency->n == 0)
                row->before = processor_time(row->command->exec.pid);
        row->bytes += row->size + answer_size;
        latency_add(row->command->latency, now - slot->began);
}

static void on_answer(Call *call, const Answer *answer, void *userdata) {
        Slot *slot = userdata;
        Row *row = slot->row;

        (void) call;
        slot->call = NULL;
        row->open--;
        if (answer->status != STATUS_OK)
                fail(row, answer->status, answer->message);
        else
                count(row, slot, latency_clock(), answer->size);
        if (!row->over)
                begin(slot);
        else if (row->open == 0)
                endpoint_wake(row->command->exec.session.endpoint); /* it may be before the wait of this turn */
}

/* ---- one row ---- */

/* finish() - until nothing is open any more, or it took too long. 0, -EINTR, or an errno of the endpoint. */
static int finish(Row *row) {
        int r = control_wait_until(&row->command->exec.session.control, clock_after(row->until / 1000, GRACE_US),
                                   &row->open);

        if (r == 0 && row->open > 0)
                fail(row, STATUS_DEADLINE_EXCEEDED, "calls are still open 10 s after the end");
        return r;
}

static int row_run(Row *row) {
        uint64_t duration = row->command->options.duration_us * 1000;

        memset(row->command->latency, 0, sizeof(*row->command->latency));
        row->from = latency_clock() + duration / WARM_UP_PART;
        row->until = row->from + duration;
        for (size_t i = 0; i < row->in_flight && !row->over; i++) {
                row->slots[i].row = row;
                begin(&row->slots[i]);
        }
        return finish(row);
}

static void row_deinit(Row *row) {
        for (size_t i = 0; row->slots && i < row->in_flight; i++)
                if (row->slots[i].call)
                        call_cancel(row->slots[i].call);
        control_failure_deinit(&row->failure);
        free(row->payload);
        free(row->slots);
}

/* ---- what is printed ---- */

/* What a row says. Times in nanoseconds, those of processors for each call. */
typedef struct Figures {
        uint64_t calls_per_s, bytes_per_s, p50, p99, own, runner;
} Figures;

static Figures figures(const Row *row) {
        const Latency *latency = row->command->latency;
        double seconds = (double) (row->until - row->from) / 1e9;
        uint64_t n = MAX(latency->n, UINT64_C(1));

        return (Figures){
                .calls_per_s = (uint64_t) ((double) latency->n / seconds),
                .bytes_per_s = (uint64_t) ((double) row->bytes / seconds),
                .p50 = latency_quantile(latency, 0.5),
                .p99 = latency_quantile(latency, 0.99),
                .own = (row->cpu.own_ns - row->before.own_ns) / n,
                .runner = (row->cpu.runner_ns - row->before.runner_ns) / n,
        };
}

static int print_title(const BenchCommand *c) {
        if (c->options.json)
                return 0;
        (void) printf("%s of %s, %.3g s each; cpu is microseconds per call, of baton and of the runner\n",
                      c->options.method, c->exec.name, (double) c->options.duration_us / 1e6);
        (void) printf("%9s %9s %10s %10s %9s %9s %10s %10s\n", "size", "in flight", "calls/s", "MB/s", "p50 us",
                      "p99 us", "cpu baton", "cpu runner");
        return output_flush(stdout);
}

static json_t *row_to_json(const Row *row, const Figures *f) {
        return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "size", (json_int_t) row->size, "in_flight",
                         (json_int_t) row->in_flight, "calls", (json_int_t) row->command->latency->n, "calls_per_s",
                         (json_int_t) f->calls_per_s, "bytes_per_s", (json_int_t) f->bytes_per_s, "p50_ns",
                         (json_int_t) f->p50, "p99_ns", (json_int_t) f->p99, "cpu_baton_ns", (json_int_t) f->own,
                         "cpu_runner_ns", (json_int_t) f->runner);
}

static int print_row(const Row *row) {
        Figures f = figures(row);

        if (row->command->options.json)
                return json_array_append_new(row->command->rows, row_to_json(row, &f)) < 0 ? -ENOMEM : 0;
        (void) printf("%9zu %9zu %10" PRIu64 " %10.1f %9.1f %9.1f %10.2f %10.2f\n", row->size, row->in_flight,
                      f.calls_per_s, (double) f.bytes_per_s / 1e6, (double) f.p50 / 1e3, (double) f.p99 / 1e3,
                      (double) f.own / 1e3, (double) f.runner / 1e3);
        return output_flush(stdout);
}

static int print_json(BenchCommand *c) {
        json_t *all = call_output_frame(STATUS_OK, exec_elapsed(&c->exec));

        if (json_object_update_new(all, json_pack("{s:s, s:s, s:O}", "runner", c->exec.name, "method",
                                                  c->options.method, "rows", c->rows)) == 0)
                return call_output_json(all);
        json_decref(all);
        return -ENOMEM;
}

/* ---- all rows ---- */

static int bench_row(BenchCommand *c, size_t size, size_t in_flight) {
        Row row = { .command = c, .size = size, .in_flight = in_flight };
        int r = -ENOMEM, code;

        row.payload = calloc(1, size + 1);
        row.slots = calloc(in_flight, sizeof(*row.slots));
        if (row.payload && row.slots)
                r = row_run(&row);
        if (r < 0)
                code = exec_stopped(&c->exec, r);
        else if (row.failure.status != STATUS_OK)
                code = exec_failed(&c->exec, &row.failure, NULL);
        else {
                r = print_row(&row);
                code = r < 0 ? exec_output_failed(&c->exec, r) : EXIT_CODE_OK;
        }
        row_deinit(&row);
        return code;
}

static int bench_rows(BenchCommand *c) {
        int r = print_title(c), code = EXIT_CODE_OK;

        for (size_t s = 0; s < c->options.sizes.n && r == 0; s++)
                for (size_t f = 0; f < c->options.in_flight.n && code == EXIT_CODE_OK; f++) {
                        uint64_t size = c->options.sizes.values[s], in_flight = c->options.in_flight.values[f];

                        if (c->options.in_flight_given || in_flight == 1 || size * in_flight <= BENCH_OPEN_MAX)
                                code = bench_row(c, size, in_flight);
                }
        if (c->options.json && code == EXIT_CODE_OK)
                r = print_json(c);
        return r < 0 ? exec_output_failed(&c->exec, r) : code;
}

static int work(Exec *exec) {
        BenchCommand *c = (BenchCommand *) exec;
        int code;

        if (exec_attach(exec, &code) < 0)
                return code;
        c->latency = calloc(1, sizeof(*c->latency));
        c->rows = json_array();
        code = c->latency && c->rows ? bench_rows(c) : exec_stopped(exec, -ENOMEM);
        json_decref(c->rows);
        free(c->latency);
        return code;
}

static int run(int argc, char **argv) {
        BenchCommand c = { 0 };
        char error[OPTIONS_ERROR_MAX] = "";
        int code = command_parsed(&command_bench, bench_options_parse(argc, argv, &c.options, error), error);

        if (code == COMMAND_GO_ON) {
                c.exec = (Exec){
                        .command = command_bench.name,
                        .what = c.options.method,
                        .options = &c.options.runner,
                        .json = c.options.json,
                        .max_frame = c.options.max_frame,
                        .work = work,
                };
                code = exec_run(&c.exec);
        }
        bench_options_deinit(&c.options);
        return code;
}

const Command command_bench = {
        .name = "bench",
        .summary = "measure how many calls a runner, or a program started for it, takes",
        .help = "Usage: baton bench [OPTION...] NAME [-- METHOD]\n"
                "       baton bench [OPTION...] --exec PROGRAM [ARGUMENT...] [-- METHOD]\n"
                "\n"
                "Attaches to the runner NAME, or to PROGRAM, started as one, so that the supervisor is not in\n"
                "between, and calls METHOD (echo.Echo/Unary) with requests of zero bytes, so many at a time, for a\n"
                "while each. Prints a row for each size and number: calls and payload per second (there and back),\n"
                "how long half and 99 % of the calls took at most, and the processor time per call at both ends. An\n"
                "answer that is no success ends it.\n"
                "\n"
                "  --exec                    PROGRAM is to be started; without it NAME is that of a runner that runs\n"
                "  --socket=PATH             the supervisor that has NAME ($BATON_SOCKET, else the usual place)\n"
                "  --size=SIZE[,SIZE...]     bytes of a request (64,64K)\n"
                "  --in-flight=N[,N...]      calls open at a time (1,16,256, up to 64M of requests)\n"
                "  --duration=DURATION       of each row, after a warm-up of a tenth of it (1s)\n"
                "  --json                    print one JSON object: status, code, time_us, runner, method, and rows\n"
                "                            (size, in_flight, calls, calls_per_s, bytes_per_s, p50_ns, p99_ns,\n"
                "                            and for each call cpu_baton_ns, cpu_runner_ns)\n"
                "  --max-frame=SIZE          how large an answer may be, with what surrounds it (8M in a frame,\n"
                "                            1G as a sealed object)\n"
                "  --start-timeout=DURATION  how long the runner may take to connect (10s)\n"
                "  --env=NAME=VALUE          a variable of the runner's environment; again for more\n"
                "  --name=NAME               the runner's name in messages (from PROGRAM's)\n"
                "  --help\n"
                "\n"
                "Exit codes: as those of call, see baton call --help.\n"
                "\n"
                "Examples:\n"
                "  baton bench --duration=5s greeter -- greet.Greeter/Greet\n"
                "  baton bench --exec baton-runner-echo\n"
                "  baton bench --size=1M --in-flight=1,16 --duration=5s --exec ./server -- my.Service/Method\n",
        .run = run,
};
