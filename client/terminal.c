/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Terminal: the runner has the one side of a pseudo-terminal, which controls its session; we have the other, and pass bytes
 * between that and our own terminal, which is raw meanwhile. So everything a program does with its terminal, it does with
 * its own: modes, the foreground of its jobs, the signals of keys and of the window. Ours is given back as it was, however
 * the runner ends.
 *
 * One thing the kernel does not do there: a process whose parent is in another session, as the runner's is, is not stopped
 * by a key, since nobody would let it go on. We would: so where the key for that is typed, the runner itself is in the
 * foreground and has left the signal at its default, both of us are stopped, as if it had been typed to a program of our
 * shell's. A runner that handles the signal, as shells do, gets the key.
 */

#include "client/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/macro.h"

enum {
        READ_SIZE = 4096,
        DRAIN_MS = 100, /* that nothing comes in: somebody else holds the runner's side, and is not waited for */
};

static void on_input(int fd, void *userdata);

bool terminal_is_ours(void) {
        return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp();
}

/* ---- our terminal ---- */

static int make_raw(const Terminal *terminal) {
        struct termios raw = terminal->saved;

        if (!terminal->is_ours)
                return 0;
        cfmakeraw(&raw);
        return tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) < 0 ? -errno : 0;
}

static void give_back(const Terminal *terminal) {
        if (terminal->is_ours)
                (void) tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal->saved);
}

static void pass_size(const Terminal *terminal) {
        struct winsize size;

        if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 || ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0)
                (void) ioctl(terminal->master, TIOCSWINSZ, &size);
}

static void on_signals(int fd, void *userdata) {
        struct signalfd_siginfo info;
        Terminal *terminal = userdata;

        while (read(fd, &info, sizeof(info)) == (ssize_t) sizeof(info)) {
                terminal->wants_suspend |= info.ssi_signo == SIGTSTP;
                if (info.ssi_signo == SIGCONT) /* somebody had stopped us: a shell then has its own modes */
                        (void) make_raw(terminal);
                if (info.ssi_signo != SIGTSTP)
                        pass_size(terminal);
        }
}

static int open_signals(Terminal *terminal) {
        struct sigaction action;
        sigset_t set;

        (void) sigemptyset(&set);
        (void) sigaddset(&set, SIGWINCH);
        (void) sigaddset(&set, SIGCONT);
        if (sigaction(SIGTSTP, NULL, &action) == 0 && action.sa_handler != SIG_IGN)
                (void) sigaddset(&set, SIGTSTP);
        if (sigprocmask(SIG_BLOCK, &set, &terminal->before) < 0)
                return -errno;
        terminal->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return terminal->signal_fd < 0 ? -errno
                                       : endpoint_watch(terminal->endpoint, terminal->signal_fd, on_signals, terminal);
}

int terminal_suspend(Terminal *terminal) {
        sigset_t stop;
        int r;

        terminal->wants_suspend = false;
        give_back(terminal);
        (void) sigemptyset(&stop);
        (void) sigaddset(&stop, SIGTSTP);
        /* It takes effect when it is unblocked, before that returns; nothing happens where nobody would let us go on. */
        (void) kill(0, SIGTSTP);
        (void) sigprocmask(SIG_UNBLOCK, &stop, NULL);
        (void) sigprocmask(SIG_BLOCK, &stop, NULL);
        r = make_raw(terminal);
        pass_size(terminal);
        return r;
}

/* ---- to the runner ---- */

/* is_stopped_by_key() - whether what the key does at the runner's terminal is nothing, and would be a stop at ours. */
static bool is_stopped_by_key(const Terminal *terminal, cc_t *ret_key) {
        const uint64_t bit = UINT64_C(1) << (SIGTSTP - 1);
        uint64_t ignored = 0, caught = 0;
        struct termios modes;
        char path[64], line[256];
        FILE *file;

        if (!terminal->is_ours || tcgetattr(terminal->master, &modes) < 0 || !(modes.c_lflag & ISIG) ||
            modes.c_cc[VSUSP] == _POSIX_VDISABLE || tcgetpgrp(terminal->master) != terminal->runner)
                return false;
        (void) snprintf(path, sizeof(path), "/proc/%d/status", (int) terminal->runner);
        file = fopen(path, "re");
        if (!file)
                return false;
        while (fgets(line, sizeof(line), file)) {
                if (strncmp(line, "SigIgn:", 7) == 0)
                        ignored = strtoull(line + 7, NULL, 16);
                if (strncmp(line, "SigCgt:", 7) == 0)
                        caught = strtoull(line + 7, NULL, 16);
        }
        (void) fclose(file);
        *ret_key = modes.c_cc[VSUSP];
        return !((ignored | caught) & bit);
}

static void watch_input(Terminal *terminal, bool wanted) {
        int r = 0;

        wanted = wanted && !terminal->input_ended;
        if (wanted && terminal->is_file)
                endpoint_defer(terminal->endpoint, &terminal->task);
        if (wanted == terminal->reading || terminal->is_file)
                return;
        r = endpoint_watch(terminal->endpoint, STDIN_FILENO, wanted ? on_input : NULL, terminal);
        terminal->is_file = r == -EPERM;
        terminal->reading = wanted && r == 0;
        if (terminal->is_file)
                endpoint_defer(terminal->endpoint, &terminal->task);
}

static void on_room(ByteOutput *output) {
        Terminal *terminal = output->userdata;

        watch_input(terminal, byte_output_has_room(output));
}

/* end_input() - as if the key for that had been typed: twice where a line is not whole, since the first only sends it. */
static void end_input(Terminal *terminal) {
        struct termios modes;

        watch_input(terminal, false);
        terminal->input_ended = true;
        if (terminal->is_ours || tcgetattr(terminal->master, &modes) < 0)
                return;
        for (int i = terminal->is_whole ? 1 : 0; i < 2; i++)
                (void) byte_output_append(&terminal->to_runner, &modes.c_cc[VEOF], 1);
}

static void pass_input(Terminal *terminal, const char *data, size_t size) {
        const char *found;
        cc_t key;

        while (size > 0 && is_stopped_by_key(terminal, &key) && (found = memchr(data, key, size))) {
                (void) byte_output_append(&terminal->to_runner, data, (size_t) (found - data));
                size -= (size_t) (found - data) + 1;
                data = found + 1;
                terminal->wants_suspend = true;
        }
        if (size > 0)
                (void) byte_output_append(&terminal->to_runner, data, size);
}

static void on_input(int fd, void *userdata) {
        Terminal *terminal = userdata;
        char data[READ_SIZE];
        ssize_t n = read(fd, data, sizeof(data));

        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return;
        if (n <= 0) {
                end_input(terminal);
                return;
        }
        terminal->is_whole = data[n - 1] == '\n';
        pass_input(terminal, data, (size_t) n);
        if (!byte_output_has_room(&terminal->to_runner))
                watch_input(terminal, false);
}

static void on_turn(EndpointTask *task) {
        Terminal *terminal = CONTAINER_OF(task, Terminal, task);

        if (terminal->input_ended || !byte_output_has_room(&terminal->to_runner))
                return; /* on_room() */
        on_input(STDIN_FILENO, terminal);
        watch_input(terminal, byte_output_has_room(&terminal->to_runner));
}

/* ---- from the runner ---- */

static void on_output(int fd, void *userdata) {
        Terminal *terminal = userdata;
        char data[READ_SIZE];
        ssize_t n;

        n = read(fd, data, sizeof(data));
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return;
        terminal->progress = true;
        if (n <= 0) { /* EIO: the other side is closed */
                terminal->ended = true;
                (void) endpoint_watch(terminal->endpoint, fd, NULL, NULL);
                return;
        }
        if (byte_output_append(&terminal->to_us, data, (size_t) n) < 0)
                terminal->to_us.error = -ENOMEM;
        if (byte_output_has_room(&terminal->to_us))
                return;
        terminal->paused = true;
        (void) endpoint_watch(terminal->endpoint, fd, NULL, NULL);
}

/* The runner waits in write() as long as there is none. */
static void on_our_room(ByteOutput *output) {
        Terminal *terminal = output->userdata;

        if (!terminal->paused || !byte_output_has_room(output))
                return;
        terminal->paused = false;
        (void) endpoint_watch(terminal->endpoint, terminal->master, on_output, terminal);
}

int terminal_error(const Terminal *terminal) {
        return terminal->to_us.error;
}

int terminal_drain(Terminal *terminal, bool (*given_up)(void *userdata), void *userdata) {
        int r = 0;

        do {
                terminal->progress = false;
                r = endpoint_dispatch(terminal->endpoint, DRAIN_MS);
                if (r == 0)
                        r = terminal_error(terminal);
        } while (r == 0 && (!byte_output_is_empty(&terminal->to_us) || (!terminal->ended && terminal->progress)) &&
                 !given_up(userdata));
        return r;
}

/* ---- from open to close ---- */

static int make_pair(Terminal *terminal, int *ret_slave) {
        _cleanup_fd_ int slave = -1;
        int unlock = 0;

        terminal->master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
        if (terminal->master < 0 || ioctl(terminal->master, TIOCSPTLCK, &unlock) < 0)
                return -errno;
        slave = ioctl(terminal->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (slave < 0)
                return -errno;
        if (terminal->is_ours && tcsetattr(slave, TCSANOW, &terminal->saved) < 0)
                return -errno;
        pass_size(terminal);
        *ret_slave = fd_take(&slave);
        return 0;
}

int terminal_open(Terminal *terminal, Endpoint *endpoint, int *ret_slave) {
        *terminal = TERMINAL_NULL;
        terminal->endpoint = endpoint;
        terminal->is_whole = true;
        terminal->task = ENDPOINT_TASK_NULL(on_turn);
        (void) sigprocmask(SIG_BLOCK, NULL, &terminal->before);
        terminal->is_ours = terminal_is_ours() && tcgetattr(STDIN_FILENO, &terminal->saved) == 0;
        return make_pair(terminal, ret_slave);
}

int terminal_begin(Terminal *terminal, pid_t runner) {
        int r;

        terminal->runner = runner;
        r = byte_output_open(&terminal->to_runner, terminal->endpoint, terminal->master, on_room, terminal);
        if (r == 0)
                r = byte_output_open(&terminal->to_us, terminal->endpoint, STDOUT_FILENO, on_our_room, terminal);
        if (r == 0)
                r = open_signals(terminal);
        if (r == 0)
                r = make_raw(terminal);
        if (r < 0)
                return r;
        pass_size(terminal); /* it may have changed meanwhile */
        watch_input(terminal, true);
        return endpoint_watch(terminal->endpoint, terminal->master, on_output, terminal);
}

void terminal_close(Terminal *terminal) {
        if (terminal->master < 0)
                return;
        if (terminal->runner)
                give_back(terminal);
        if (terminal->reading)
                (void) endpoint_watch(terminal->endpoint, STDIN_FILENO, NULL, NULL);
        endpoint_cancel(terminal->endpoint, &terminal->task);
        byte_output_close(&terminal->to_runner);
        byte_output_close(&terminal->to_us);
        (void) endpoint_watch(terminal->endpoint, terminal->master, NULL, NULL);
        terminal->master = fd_close(terminal->master);
        if (terminal->signal_fd >= 0)
                (void) endpoint_watch(terminal->endpoint, terminal->signal_fd, NULL, NULL);
        terminal->signal_fd = fd_close(terminal->signal_fd);
        (void) sigprocmask(SIG_SETMASK, &terminal->before, NULL);
}
