/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton-runner-fuse: a directory mounted at another place, for as long as its supervisor wants it, whatever becomes of the
 * process that serves it. Here are the events of its service; the file system is in the other files of this folder.
 *
 * <linux/fuse.h> is spoken directly, without libfuse3: that library begins a session with INIT and has no other way in, so
 * that a mount which goes on would need a forged one, with the very flags of the first, and its answer swallowed.
 *
 * Mount makes the mount and agrees with the kernel; what is asked of it waits there until Start. Serving begins when the
 * first checkpoint is kept, so that there is nothing that a death could take with it. Stop ends it with every request
 * that was taken answered. Nothing here touches the mount point once there is a mount: it would wait for itself.
 */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "baton/runner.h"
#include "common/clock.h"
#include "common/fd.h"
#include "common/feature.h"
#include "common/log.h"
#include "common/macro.h"
#include "common/parse.h"
#include "common/version.h"
#include "runner/fuse/mount.h"
#include "runner/fuse/state.h"

#define PROGRAM            "baton-runner-fuse"
#define LOG_TARGET         "fuse"
#define PENDING_VARIABLE   "BATON_PENDING"
#define TIMEOUT_DEFAULT_US USEC_PER_SEC
#define TIMEOUT_MAX_US     (3600 * USEC_PER_SEC)

enum {
        EXIT_USAGE = 2,
};

typedef struct Program {
        struct baton_runner *runner;
        Session *session; /* NULL: nothing is mounted */
        State state;
        bool pending_given;     /* on the command line: then it must be possible */
        bool wanted, unmounted; /* Start was, and no Stop; the mount point is free again */
        Pending pending;
        bool read_only;
        uint32_t max_inodes;
        uint64_t timeout_us;
        struct baton_runner_options options;
} Program;

static const char help[] =
        "Usage: " PROGRAM " [OPTION...] SOURCE MOUNT_POINT\n"
        "\n"
        "A runner that shows the directory SOURCE at MOUNT_POINT, to read and to write. Upgrades and crashes of it "
        "are\n"
        "a pause for those who use it, not an error. baton starts it, for example by this configuration:\n"
        "\n"
        "  runners:\n"
        "    files:\n"
        "      command: [" PROGRAM ", /srv/files, /mnt/files]\n"
        "      ready: hello\n"
        "\n"
        "Access is decided by the kernel, by owner, mode and access lists, for all users; only root, or users with "
        "the\n"
        "program fusermount3, can mount. What is mounted below SOURCE is not shown.\n"
        "\n"
        "  --pending=WHAT      what becomes of requests that a crash leaves unanswered: resend (they are done; needs\n"
        "                      Linux 6.9), flush (they fail with EIO), none (they wait); default: resend, or flush\n"
        "                      where the kernel cannot\n"
        "  --timeout=DURATION  what changes in SOURCE itself is seen after so long at the latest (1s)\n"
        "  --max-inodes=N      files and directories that the kernel may refer to at once (4194304)\n"
        "  --read-only         nothing can be changed through MOUNT_POINT\n"
        "  --uds-path=PATH     the supervisor's socket, instead of $BATON_BOOTSTRAP\n"
        "  -h, --help          show this\n"
        "  --version           show the version\n";

/* ---- serving ---- */

static void notice(Program *program, enum baton_level level, const char *what, int error) {
        BATON_LOG(program->runner, level, LOG_TARGET, "%s on %s: %s", program->state.source,
                  program->state.mount_point, error < 0 ? strerror(-error) : what);
}

/* begin() - serving, if it is still wanted. */
static void begin(Program *program) {
        int r;

        if (!program->wanted || !program->session)
                return;
        r = session_run(program->session);
        if (r < 0) {
                notice(program, BATON_ERROR, "", r);
                baton_runner_quit(program->runner);
        }
}

static void on_checkpoint(struct baton_runner *runner, int result, const char *reason, void *userdata) {
        Program *program = userdata;

        if (result < 0 && result != -EOPNOTSUPP)
                BATON_LOG(runner, BATON_WARNING, LOG_TARGET,
                          "%s: a crash would end the mount, since its state is not kept: %s",
                          program->state.mount_point, reason);
        begin(program);
}

/* ---- events ---- */

static Pending effective_pending(const Program *program) {
        return program->pending == PENDING_RESEND && !program->state.terms.can_resend ? PENDING_FLUSH
                                                                                      : program->pending;
}

/* make_mirror() - of the directory, with nothing known yet. */
static int make_mirror(const Program *program, Mirror **ret_mirror) {
        int root = open(program->state.source, O_PATH | O_DIRECTORY | O_CLOEXEC), r;
        Table table = TABLE_NULL;
        Vault vault = VAULT_NULL;

        if (root < 0)
                return -errno;
        r = table_create(&table, program->max_inodes);
        if (r == 0)
                r = vault_open(&vault);
        if (r == 0)
                return mirror_new(ret_mirror, root, &table, &vault, program->state.timeout_ns);
        table_unmap(&table);
        fd_close(root);
        return r;
}

static int agree(Program *program, struct baton_event *event) {
        int r = session_negotiate(program->session, &program->state.terms);

        if (r < 0) {
                baton_event_reason(event, "%s: the kernel does not begin as FUSE 7.%d does: %s",
                                   program->state.mount_point, REQUEST_MINOR_MIN, strerror(-r));
                return r;
        }
        if (program->pending_given && program->pending == PENDING_RESEND && !program->state.terms.can_resend) {
                baton_event_reason(event, "%s: this kernel cannot resend requests (Linux 6.9): use --pending=flush",
                                   program->state.mount_point);
                return -EOPNOTSUPP;
        }
        return 0;
}

static int on_mount(struct baton_event *event, void *userdata) {
        Program *program = userdata;
        MountOptions options = { program->state.source, program->state.mount_point, program->read_only };
        char reason[MOUNT_REASON_SIZE];
        Mirror *mirror;
        int device, r = make_mirror(program, &mirror);

        if (r < 0) {
                baton_event_reason(event, "cannot show %s: %s", program->state.source, strerror(-r));
                return r;
        }
        r = mount_open(&options, &device, reason);
        if (r < 0) {
                mirror_free(mirror);
                baton_event_reason(event, "%s", reason);
                return r;
        }
        r = session_new(&program->session, device, mirror);
        if (r == 0)
                r = agree(program, event);
        if (r < 0) {
                program->session = session_free(program->session);
                (void) mount_close(program->state.mount_point);
        }
        return r;
}

static int on_start(struct baton_event *event, void *userdata) {
        Program *program = userdata;
        int r = session_load(program->session, effective_pending(program));

        if (r < 0) {
                baton_event_reason(event, "cannot go on with %s: %s", program->state.mount_point, strerror(-r));
                return r;
        }
        program->wanted = true;
        if (baton_runner_checkpoint(program->runner, on_checkpoint, program) < 0)
                begin(program);
        return 0;
}

static int on_stop(struct baton_event *event, void *userdata) {
        Program *program = userdata;
        int r = session_stop(program->session);

        (void) event;
        program->wanted = false;
        if (r < 0)
                notice(program, BATON_ERROR, "", r);
        return 0; /* a loop that ended badly has ended */
}

/* What is written through a mapping leaves the kernel now, and must be taken: so it is served once more. */
static int on_unmount(struct baton_event *event, void *userdata) {
        Program *program = userdata;
        int r;

        if (!program->session || program->unmounted)
                return 0;
        r = session_load(program->session, effective_pending(program));
        if (r == 0)
                r = session_run(program->session);
        if (r == 0)
                r = mount_close(program->state.mount_point);
        (void) session_stop(program->session);
        program->session = session_free(program->session);
        program->unmounted = true;
        if (r < 0)
                baton_event_reason(event, "cannot unmount %s: %s", program->state.mount_point, strerror(-r));
        return r;
}

static int on_exit_event(struct baton_event *event, void *userdata) {
        Program *program = userdata;

        (void) event;
        program->session = session_free(program->session);
        return 0;
}

static int on_save(struct baton_save *save, void *userdata) {
        Program *program = userdata;
        _cleanup_free_ uint8_t *data = NULL;
        int fds[_STATE_FD_N], r;
        size_t size;

        if (!program->session) {
                baton_save_reason(save, "nothing is mounted");
                return -ESHUTDOWN;
        }
        r = state_pack(&program->state, &data, &size);
        if (r == 0)
                r = baton_save_write(save, data, size);
        state_fds(program->session, fds);
        for (unsigned i = 0; r == 0 && i < _STATE_FD_N; i++)
                r = baton_save_fd(save, state_fd_name(i), fds[i]);
        return r;
}

static int on_restore(struct baton_restore *restore, void *userdata) {
        Program *program = userdata;
        char reason[STATE_REASON_SIZE];
        int fds[_STATE_FD_N], r;
        const void *data;
        State state;
        size_t size;

        data = baton_restore_data(restore, &size);
        r = state_unpack(data, size, &state, reason);
        if (r == 0) {
                for (unsigned i = 0; i < _STATE_FD_N; i++)
                        fds[i] = baton_restore_take_fd(restore, state_fd_name(i));
                r = state_session(&state, fds, mount_is_device, &program->session, reason);
                if (r < 0)
                        state_deinit(&state);
        }
        if (r < 0) {
                baton_restore_reason(restore, "%s", reason);
                return r;
        }
        state.terms.can_resend &= feature_enabled(FEATURE_FUSE_RESEND);
        state_deinit(&program->state);
        program->state = state;
        return 0;
}

static int on_info(struct baton_event *event, void *userdata) {
        const Program *program = userdata;

        baton_event_reason(event, "%s on %s, FUSE 7.%u, unanswered requests: %s", program->state.source,
                           program->state.mount_point, program->state.terms.minor,
                           pending_name(effective_pending(program)));
        return 0;
}

static const struct baton_service service = {
        .size = sizeof(service),
        .mount = on_mount,
        .start = on_start,
        .stop = on_stop,
        .unmount = on_unmount,
        .exit = on_exit_event,
        .save = on_save,
        .restore = on_restore,
        .info = on_info,
        .description = "a directory as a file system",
        .version = STATE_VERSION,
        .max_state = STATE_SIZE_MAX,
        .max_fds = _STATE_FD_N,
};

/* ---- the program ---- */

/* ended() - by itself: somebody has unmounted it, or it failed. */
static int ended(Program *program) {
        int result;

        if (!program->session || !session_ended(program->session, &result))
                return 0;
        (void) session_stop(program->session);
        program->unmounted = result == 0;
        notice(program, result < 0 ? BATON_ERROR : BATON_NOTICE, "it was unmounted", result);
        if (result < 0)
                return result;
        baton_runner_quit(program->runner);
        return 0;
}

static int serve(Program *program) {
        struct pollfd fds[2] = { { .fd = baton_runner_fd(program->runner), .events = POLLIN }, { .fd = -1 } };
        int r;

        if (program->session)
                fds[1] = (struct pollfd){ .fd = session_event_fd(program->session), .events = POLLIN };
        if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
                return -errno;
        r = fds[1].revents ? ended(program) : 0;
        return r < 0 ? r : baton_runner_dispatch(program->runner, 0);
}

static int run(Program *program) {
        int r = baton_runner_new(&program->runner, &program->options);

        if (r < 0)
                return r;
        r = baton_runner_set_service(program->runner, &service, program);
        while (r == 0)
                r = serve(program);
        if (r < 0)
                (void) fprintf(stderr, PROGRAM ": %s (%s)\n", baton_runner_reason(program->runner), strerror(-r));
        return r;
}

/* absolute() - @path from the root; not resolved: a mount point may be one that is dead. */
static char *absolute(const char *path) {
        _cleanup_free_ char *here = path[0] == '/' ? strdup("") : getcwd(NULL, 0);
        char *result;

        if (!here || asprintf(&result, "%s%s%s", here, path[0] == '/' ? "" : "/", path) < 0)
                return NULL;
        return result;
}

static int usage_error(const char *what, const char *which) {
        (void) fprintf(stderr, PROGRAM ": %s '%s'; see " PROGRAM " --help\n", what, which);
        return -EINVAL;
}

enum {
        OPTION_VERSION = 256,
        OPTION_PENDING,
        OPTION_TIMEOUT,
        OPTION_MAX_INODES,
        OPTION_READ_ONLY,
};

/* take_pending() - 0; -EINVAL: it is no such word; -EOPNOTSUPP: it cannot be, and that was said. */
static int take_pending(Program *program, const char *value) {
        if (pending_parse(value, &program->pending) < 0)
                return -EINVAL;
        program->pending_given = true;
        if (program->pending != PENDING_RESEND || feature_enabled(FEATURE_FUSE_RESEND))
                return 0;
        (void) fputs(PROGRAM ": --pending=resend needs Linux 6.9: use flush or none\n", stderr);
        return -EOPNOTSUPP;
}

static int take_option(Program *program, int option, const char *value) {
        uint64_t number;
        int r;

        switch (option) {
        case OPTION_PENDING:
                r = take_pending(program, value);
                return r == -EINVAL ? usage_error("--pending is resend, flush or none, not", value) : r;
        case OPTION_TIMEOUT:
                if (parse_duration(value, &program->timeout_us) < 0 || program->timeout_us > TIMEOUT_MAX_US)
                        return usage_error("--timeout is a time of at most an hour, not", value);
                return 0;
        case OPTION_MAX_INODES:
                if (parse_u64(value, TABLE_INODES_MAX, &number) < 0 || number < TABLE_INODES_MIN)
                        return usage_error("--max-inodes is a number from 64 to 67108864, not", value);
                program->max_inodes = (uint32_t) number;
                return 0;
        case OPTION_READ_ONLY:
                program->read_only = true;
                return 0;
        default:
                return -EINVAL; /* getopt has said why */
        }
}

static int parse(Program *program, int argc, char **argv) {
        static const struct option options[] = {
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, OPTION_VERSION },
                { "pending", required_argument, NULL, OPTION_PENDING },
                { "timeout", required_argument, NULL, OPTION_TIMEOUT },
                { "max-inodes", required_argument, NULL, OPTION_MAX_INODES },
                { "read-only", no_argument, NULL, OPTION_READ_ONLY },
                { 0 },
        };
        int option, r = 0;

        while (r == 0 && (option = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (option) {
                case 'h':
                        (void) fputs(help, stdout);
                        exit(EXIT_SUCCESS);
                case OPTION_VERSION:
                        printf(PROGRAM " %s (%s)\n", version_release(), version_commit());
                        exit(EXIT_SUCCESS);
                default:
                        r = take_option(program, option, optarg);
                }
        if (r < 0)
                return r;
        if (!program->pending_given && getenv(PENDING_VARIABLE) &&
            (r = take_pending(program, getenv(PENDING_VARIABLE))) < 0)
                return r == -EINVAL ? usage_error("$" PENDING_VARIABLE " is resend, flush or none, not",
                                                  getenv(PENDING_VARIABLE))
                                    : r;
        if (argc - optind != 2) {
                (void) fputs(PROGRAM ": expected SOURCE and MOUNT_POINT; see " PROGRAM " --help\n", stderr);
                return -EINVAL;
        }
        program->state.source = absolute(argv[optind]);
        program->state.mount_point = absolute(argv[optind + 1]);
        program->state.timeout_ns = program->timeout_us * NSEC_PER_USEC;
        return program->state.source && program->state.mount_point ? 0 : -ENOMEM;
}

int main(int argc, char **argv) {
        Program program = {
                .timeout_us = TIMEOUT_DEFAULT_US,
                .max_inodes = TABLE_INODES_DEFAULT,
                .options = { .size = sizeof(program.options), .software = PROGRAM " " PACKAGE_VERSION },
        };
        struct rlimit before;
        int r;

        if (baton_runner_options_from_arguments(&program.options, &argc, argv) < 0)
                return EXIT_USAGE;
        r = parse(&program, argc, argv);
        if (r < 0)
                return r == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
        (void) fd_raise_limit(&before);
        r = run(&program);
        baton_runner_free(program.runner);
        session_free(program.session);
        state_deinit(&program.state);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
