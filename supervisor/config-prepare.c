/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, what exec gets: arguments and environment of one start, put together in one block. The environment is, each over
 * what is before it: the supervisor's own (unless inherit_env is off), who the user is, the files, what is configured, and
 * what the start adds. What says how to reach the supervisor's own manager is never handed on.
 *
 * Files and PATH are looked at here, at each start, and not when the configuration is loaded: what an administrator put
 * there since holds at the next start, and a supervisor that follows another needs none of them to go on.
 */

#include "supervisor/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/text.h"

enum { ENV_FILE_MAX = 1024 * 1024 };

#define BOOTSTRAP    "BATON_BOOTSTRAP="
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Whose start it is. */
typedef struct Whose {
        const RunnerConfig *config;
        const char *name;
        uint32_t number;
} Whose;

/* Strings that are being collected: all bytes behind one another, and where each begins. */
typedef struct Builder {
        char *text;
        size_t used, size;
        size_t *starts;
        size_t n, room;
        int error; /* the first one: a negative errno */
} Builder;

static void builder_deinit(Builder *builder) {
        free(builder->text);
        free(builder->starts);
}

static void put(Builder *builder, const char *bytes, size_t n) {
        if (n == 0)
                return;
        if (builder->used + n > builder->size) {
                size_t size = MAX(builder->size * 2, builder->used + n + 1024);
                char *text = realloc(builder->text, size);

                if (!text) {
                        builder->error = -ENOMEM;
                        return;
                }
                builder->text = text;
                builder->size = size;
        }
        memcpy(builder->text + builder->used, bytes, n);
        builder->used += n;
}

/* begin() - the next string; what is put from here on is in it, up to a byte 0. */
static void begin(Builder *builder) {
        if (builder->n == builder->room) {
                size_t room = MAX(builder->room * 2, (size_t) 32);
                size_t *starts = reallocarray(builder->starts, room, sizeof(*starts));

                if (!starts) {
                        builder->error = -ENOMEM;
                        return;
                }
                builder->starts = starts;
                builder->room = room;
        }
        builder->starts[builder->n++] = builder->used;
}

/* put_expanded() - @text and a byte 0, with what it says of @whose replaced. Anything else behind a % stays as it is. */
static void put_expanded(Builder *builder, const Whose *whose, const char *text) {
        const char *percent;
        char number[16];

        while (!whose->config->literal && (percent = strchr(text, '%'))) {
                const char *with = percent[1] == 'n'   ? whose->name
                                   : percent[1] == 't' ? whose->config->name
                                   : percent[1] == '%' ? "%"
                                   : percent[1] == 'i' ? number
                                                       : NULL;

                (void) snprintf(number, sizeof(number), "%u", whose->number);
                put(builder, text, (size_t) (percent - text));
                put(builder, with ? with : "%", with ? strlen(with) : 1);
                text = percent + (with ? 2 : 1);
        }
        put(builder, text, strlen(text) + 1);
}

static void add(Builder *builder, const Whose *whose, const char *text) {
        begin(builder);
        put_expanded(builder, whose, text);
}

static void add_literal(Builder *builder, const char *text) {
        begin(builder);
        put(builder, text, strlen(text) + 1);
}

char *runner_config_expand(const RunnerConfig *config, const char *text, const char *name, uint32_t number) {
        const Whose whose = { config, name, number };
        Builder builder = { 0 };

        put_expanded(&builder, &whose, text);
        if (builder.error < 0)
                free(TAKE_PTR(builder.text));
        return builder.text;
}

/* -------------------------------------------------------------------------------------------------------- environment */

static _printf_(3, 4) int fail(char *error, int result, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(error, CONFIG_ERROR_SIZE, format, arguments);
        va_end(arguments);
        return result;
}

/* set_variable() - @text, NAME=value, with the name's older value gone. @first: where the environment begins. */
static void set_variable(Builder *builder, size_t first, const Whose *whose, const char *text) {
        size_t length = strcspn(text, "=") + 1, at;

        if (builder->error < 0)
                return;
        for (at = first; at < builder->n; at++)
                if (strncmp(builder->text + builder->starts[at], text, length) == 0)
                        break;
        if (at == builder->n)
                begin(builder);
        if (builder->error < 0)
                return;
        builder->starts[at] = builder->used; /* the older one stays as a gap */
        if (whose)
                put_expanded(builder, whose, text);
        else
                put(builder, text, strlen(text) + 1);
}

static bool is_ours(const char *variable) {
        static const char *const ours[] = { BOOTSTRAP,     "NOTIFY_SOCKET=", "WATCHDOG_PID=",   "WATCHDOG_USEC=",
                                            "LISTEN_PID=", "LISTEN_FDS=",    "LISTEN_FDNAMES=", "MAINPID=" };

        for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
                if (strncmp(variable, ours[i], strlen(ours[i])) == 0)
                        return true;
        return false;
}

static void set_user(Builder *builder, size_t first, const ConfigUser *user) {
        const struct {
                const char *name, *value;
        } variables[] = {
                { "USER", user->name }, { "LOGNAME", user->name }, { "HOME", user->home }, { "SHELL", user->shell }
        };

        for (size_t i = 0; i < ARRAY_SIZE(variables); i++) {
                _cleanup_free_ char *text = NULL;

                if (!variables[i].value)
                        continue;
                if (asprintf(&text, "%s=%s", variables[i].name, variables[i].value) < 0) {
                        text = NULL;
                        builder->error = -ENOMEM;
                        return;
                }
                set_variable(builder, first, NULL, text);
        }
}

/* read_all() - the whole file, ended by a byte 0; the caller's to free. 0 or a negative errno. */
static int read_all(const char *path, char **ret_text, size_t *ret_size) {
        _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

        return fd < 0 ? -errno : fd_read_file(fd, ENV_FILE_MAX, ret_text, ret_size);
}

static bool is_name(const char *text, size_t length) {
        for (size_t i = 0; i < length; i++)
                if (!(text[i] == '_' || (text[i] >= 'A' && text[i] <= 'Z') || (text[i] >= 'a' && text[i] <= 'z') ||
                      (i > 0 && text[i] >= '0' && text[i] <= '9')))
                        return false;
        return length > 0;
}

/* strip() - blanks at both ends, and a pair of quotes around @value. */
static char *strip(char *value) {
        size_t length;

        value += strspn(value, " \t");
        length = strlen(value);
        while (length > 0 && strchr(" \t\r", value[length - 1]))
                value[--length] = '\0';
        if (length >= 2 && (*value == '"' || *value == '\'') && value[length - 1] == *value) {
                value[length - 1] = '\0';
                return value + 1;
        }
        return value;
}

/* set_line() - false: it is none that can be understood. */
static bool set_line(Builder *builder, size_t first, char *line) {
        char *equals, *value;
        size_t length;

        line += strspn(line, " \t\r");
        if (*line == '\0' || *line == '#')
                return true;
        equals = strchr(line, '=');
        length = equals ? (size_t) (equals - line) : 0;
        if (!is_name(line, length))
                return false;
        value = strip(equals + 1);
        memmove(equals + 1, value, strlen(value) + 1);
        set_variable(builder, first, NULL, line);
        return true;
}

static int set_from_file(Builder *builder, size_t first, const Whose *whose, const char *configured, char *error) {
        bool optional = *configured == '-';
        _cleanup_free_ char *path =
                runner_config_expand(whose->config, configured + optional, whose->name, whose->number);
        _cleanup_free_ char *text = NULL;
        size_t size = 0;
        unsigned n = 0;
        int r = path ? read_all(path, &text, &size) : -ENOMEM;

        if (r == -ENOENT && optional)
                return 0;
        if (r == -EFBIG)
                return fail(error, r, "env_file %s: larger than 1 MiB", path);
        if (r < 0)
                return fail(error, r, "env_file %s: %s", path ? path : configured, strerror(-r));
        if (memchr(text, '\0', size))
                return fail(error, -EINVAL, "env_file %s: expected text, not a byte 0", path);
        for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
                n++;
                if (!set_line(builder, first, line))
                        return fail(error, -EINVAL, "env_file %s: line %u: expected NAME=value", path, n);
        }
        return 0;
}

static int set_environment(Builder *builder, const Whose *whose, const char *const *extra, char *error) {
        const RunnerConfig *config = whose->config;
        const char *const *variable = config->env;
        size_t first = builder->n;
        int r = 0;

        /* Here each name is there once, mostly: nothing to look for. */
        for (char **inherited = environ; config->inherit_env && *inherited; inherited++)
                if (!is_ours(*inherited))
                        add_literal(builder, *inherited);
        for (; config->literal && variable && *variable; variable++)
                if (strncmp(*variable, BOOTSTRAP, strlen(BOOTSTRAP)) != 0)
                        add_literal(builder, *variable);
        if (!config->inherit_env && !config->literal)
                add_literal(builder, "PATH=" DEFAULT_PATH);
        if (config->user)
                set_user(builder, first, config->user);
        for (const char *const *file = config->env_file; file && *file && r == 0; file++)
                r = set_from_file(builder, first, whose, *file, error);
        for (; variable && *variable; variable++)
                set_variable(builder, first, whose, *variable);
        for (; extra && *extra; extra++)
                set_variable(builder, first, NULL, *extra);
        return r;
}

/* ------------------------------------------------------------------------------------------------------------ program */

/* find_in() - a program @name in @path, a list as in PATH; the caller's to free. -ENOENT, or why none could be executed. */
static int find_in(const char *path, const char *name, char **ret_program) {
        int why = -ENOENT;

        for (const char *entry = path; entry; entry = strchr(entry, ':') ? strchr(entry, ':') + 1 : NULL) {
                size_t length = strcspn(entry, ":");
                _cleanup_free_ char *program = NULL;
                struct stat st;

                if (asprintf(&program, "%.*s%s%s", (int) length, entry, length > 0 ? "/" : "./", name) < 0) {
                        program = NULL;
                        return -ENOMEM;
                }
                if (stat(program, &st) < 0 || !S_ISREG(st.st_mode))
                        continue;
                if (access(program, X_OK) < 0) {
                        why = -errno;
                        continue;
                }
                *ret_program = TAKE_PTR(program);
                return 0;
        }
        return why;
}

/* find_program() - @program as it is, or, without a slash, from PATH of the environment that begins at @first. */
static int find_program(Builder *builder, size_t first, const Whose *whose, const char *program, char *error) {
        const char *path = DEFAULT_PATH;
        _cleanup_free_ char *found = NULL;
        int r;

        if (strchr(program, '/') || whose->config->literal) {
                add_literal(builder, program);
                return 0;
        }
        for (size_t i = first; i < builder->n; i++)
                if (strncmp(builder->text + builder->starts[i], "PATH=", 5) == 0)
                        path = builder->text + builder->starts[i] + 5;
        r = find_in(path, program, &found);
        if (r == -ENOENT)
                return fail(error, r, "program %s: not found in PATH (%.300s)", program, path);
        if (r == -EACCES)
                return fail(error, r, "program %s: found in PATH, but not executable", program);
        if (r < 0)
                return fail(error, r, "program %s: %s", program, strerror(-r));
        add_literal(builder, found);
        return 0;
}

/* ---------------------------------------------------------------------------------------------------------- the block */

/* finish() - @builder has the arguments, of the environment @n_env, the program, and, if @has_cwd, the directory. */
static int finish(const Builder *builder, size_t n_arguments, size_t n_env, bool has_cwd, RunnerStart **ret_start) {
        size_t n = n_arguments + n_env + 2, pointers = n * sizeof(char *), i = 0;
        RunnerStart *start = malloc(sizeof(*start) + pointers + builder->used);
        char **all, *text;

        if (!start)
                return -ENOMEM;
        all = (char **) (start + 1);
        text = (char *) (all + n);
        memcpy(text, builder->text, builder->used);
        start->argv = all;
        for (; i < n_arguments; i++)
                *all++ = text + builder->starts[i];
        *all++ = NULL;
        start->envp = all;
        for (; i < n_arguments + n_env; i++)
                *all++ = text + builder->starts[i];
        *all = NULL;
        start->path = text + builder->starts[i++];
        start->cwd = has_cwd ? text + builder->starts[i] : NULL;
        *ret_start = start;
        return 0;
}

/* add_uds_path() - as an argument what the variable says. Where there is none (a check) there is nothing to be told. */
static void add_uds_path(Builder *builder, const char *const *extra) {
        for (; extra && *extra; extra++)
                if (text_begins(*extra, BOOTSTRAP)) {
                        add_literal(builder, "--uds-path");
                        add_literal(builder, *extra + strlen(BOOTSTRAP));
                }
}

static int build(Builder *builder, const Whose *whose, const char *const *command, const char *const *extra,
                 RunnerStart **ret_start, char *error) {
        const char *cwd = whose->config->cwd;
        size_t n_arguments, n_env;
        int r;

        for (; *command; command++)
                add(builder, whose, *command);
        if (whose->config->uds_path)
                add_uds_path(builder, extra);
        n_arguments = builder->n;
        r = set_environment(builder, whose, extra, error);
        n_env = builder->n - n_arguments;
        if (r == 0 && builder->error == 0) {
                /* A copy: what is put behind may move the text. */
                _cleanup_free_ char *program = strdup(builder->text + builder->starts[0]);

                r = program ? find_program(builder, n_arguments, whose, program, error) : -ENOMEM;
        }
        if (r == 0 && cwd)
                add(builder, whose, cwd);
        if (r == 0)
                r = builder->error;
        if (r == 0)
                r = finish(builder, n_arguments, n_env, cwd, ret_start);
        return r == -ENOMEM ? fail(error, r, "%s", strerror(ENOMEM)) : r;
}

static int prepare(const Whose *whose, const char *const *command, const char *const *extra, RunnerStart **ret_start,
                   char *error) {
        _cleanup_(builder_deinit) Builder builder = { 0 };

        if (whose->config->user && whose->config->user->unresolved)
                return fail(error, -ENOENT, "%s", whose->config->user->unresolved);
        return build(&builder, whose, command, extra, ret_start, error);
}

int runner_config_prepare(const RunnerConfig *config, const char *name, uint32_t number, const char *const *extra,
                          RunnerStart **ret_start, char error[CONFIG_ERROR_SIZE]) {
        const Whose whose = { config, name, number };

        return prepare(&whose, config->command, extra, ret_start, error);
}

/* in_directory() - @program, as it is to be found from here. */
static int in_directory(const Whose *whose, const char *program, char **ret_path) {
        _cleanup_free_ char *cwd = NULL;
        int r;

        if (*program == '/' || !whose->config->cwd)
                return (*ret_path = strdup(program)) ? 0 : -ENOMEM;
        cwd = runner_config_expand(whose->config, whose->config->cwd, whose->name, whose->number);
        r = cwd ? asprintf(ret_path, "%s/%s", cwd, program) : -1;
        return r < 0 ? -ENOMEM : 0;
}

int runner_config_program(const RunnerConfig *config, const char *name, uint32_t number, char **ret_path) {
        const Whose whose = { config, name, number };
        _cleanup_free_ RunnerStart *start = NULL;
        _cleanup_free_ char *program = NULL;
        char error[CONFIG_ERROR_SIZE];
        int r;

        program = runner_config_expand(config, config->command[0], name, number);
        if (!program)
                return -ENOMEM;
        if (strchr(program, '/') || config->literal)
                return in_directory(&whose, program, ret_path);
        /* Which PATH it is looked for in is known when there is an environment. */
        r = prepare(&whose, config->command, NULL, &start, error);
        return r < 0 ? r : in_directory(&whose, start->path, ret_path);
}

int runner_config_prepare_hook(const RunnerConfig *config, const ConfigHook *hook, const char *name, uint32_t number,
                               const char *const *extra, RunnerStart **ret_start, char error[CONFIG_ERROR_SIZE]) {
        const Whose whose = { config, name, number };

        return prepare(&whose, hook->command, extra, ret_start, error);
}
