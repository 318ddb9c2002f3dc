/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runner log: what comes in (log-input.c), the ring (log-ring.c), the file (log-file.c) and who reads, brought together.
 *
 * The first rule is that a runner never waits for us: a pipe is always read, and the ring drops its oldest. Whoever must
 * not lose them has asked for the exception (config.park): then what the file has not got, and what the one who follows has
 * not been given, is not dropped for what pipes bring. When it leaves no room for the next line, lines wait in their stage
 * and the pipes are not read: the runner waits in write(). That ends when the follower asks again, or has not for
 * LOG_FOLLOW_US, and when the file can be written again. Records of the RPC channel never wait.
 *
 * The time limit is for a supervisor of many: a service must not stand still because somebody's pager does. One that
 * ends with its only client has no such client but a live one, and it is he who has asked for the waiting: there the
 * limit is none (log_store_trust_follower()).
 *
 * The file is written at the end of the turn, once for all that came in it, and before a line is dropped that it lacks; so
 * that only what a full disk keeps out of it is ever lost, and counted. Readers are told after that.
 */

#include "supervisor/runner-log.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/parse.h"
#include "supervisor/runner-log-internal.h"

static void end_turn(LoopTask *task);
static void wake_readers(RunnerLog *log);

/* ------------------------------------------------------------------------------------------------- making and freeing */

/* want_file() - from here on the ring knows whether there is one. What is in the ring already goes into a new one, too. */
static int want_file(RunnerLog *log) {
        LogRingFile file = log_ring_state(log->ring)->file;
        int r = 0;

        if (log->path && !log->file)
                r = log_file_new(&log->file, log->name, log->path, log->config);
        if (r < 0 || file.wanted == (log->file != NULL))
                return r;
        file.wanted = log->file != NULL;
        file.told = log_ring_state(log->ring)->dropped;
        log_ring_set_file(log->ring, &file);
        return 0;
}

/* set_config() - 0 or -ENOMEM: there will be no file. */
static int set_config(RunnerLog *log, const LogConfig *config) {
        log->config = config;
        free(log->path);
        log->path = NULL;
        if (config->directory && asprintf(&log->path, "%s/%s.log", config->directory, log->name) < 0) {
                log->path = NULL;
                return -ENOMEM;
        }
        return 0;
}

/* find_ring() - that of the supervisor before. What a predecessor still writes it has prepared, too. 0 or a negative errno. */
static int find_ring(RunnerLog *log) {
        log->ring = log_store_take_found(log->store, log->name);
        if (!log->ring)
                return 0;
        log->told = log_ring_state(log->ring)->dropped;
        log_store_add(log->store, log);
        if (!log->store->held)
                return want_file(log);
        return log->path && !log->file ? log_file_new(&log->file, log->name, log->path, log->config) : 0;
}

int runner_log_new(RunnerLog **ret_log, LogStore *store, const char *name, const LogConfig *config) {
        RunnerLog *log = calloc(1, sizeof(*log));
        int r;

        if (!log)
                return -ENOMEM;
        log->store = store;
        log->name = name;
        log->settle = LOOP_TASK_NULL(end_turn);
        LIST_INIT(&log->inputs);
        TAILQ_INIT(&log->readers);
        r = set_config(log, config);
        if (r == 0)
                r = find_ring(log);
        if (r < 0) {
                runner_log_free(log);
                return r;
        }
        *ret_log = log;
        return 0;
}

void runner_log_follow_on(RunnerLog *log) {
        if (log->ring)
                log_store_forget(log->store, log_ring_id(log->ring)); /* a later one has taken its place */
        (void) find_ring(log);
}

/* write_file() - 0; or a negative errno, and another look is due. */
static int write_file(RunnerLog *log) {
        LogStore *store = log->store;
        int r;

        if (!log->file || store->held)
                return 0;
        if (!store->buffer)
                store->buffer = malloc(LOG_FILE_BUFFER_SIZE);
        if (!store->buffer)
                return -ENOMEM;
        r = log_file_write(log->file, log->ring, store->buffer);
        if (r < 0)
                log_store_look(store, log, log_file_retry(log->file));
        return r;
}

RunnerLog *runner_log_free(RunnerLog *log) {
        static const LogConfig nothing = LOG_CONFIG_NULL;

        if (!log)
                return NULL;
        assert(LIST_EMPTY(&log->inputs));
        if (log->ring && log->store->held)
                log_store_forget(log->store, log_ring_id(log->ring));
        if (log->ring) {
                for (int i = 0; i < LOG_RING_STREAMS; i++)
                        if (log_ring_state(log->ring)->streams[i].instance != 0)
                                (void) log_ring_frame(log->ring, i, LOG_RING_KEEP_NOTHING);
                (void) write_file(log);
        }
        log->over = true;
        log->config = &nothing; /* a reader that follows on has nothing kept for it */
        while (!TAILQ_EMPTY(&log->readers))
                wake_readers(log);
        loop_task_cancel(&log->settle);
        log_file_free(log->file);
        log_store_remove(log->store, log);
        free(log->path);
        free(log);
        return NULL;
}

int runner_log_configure(RunnerLog *log, const LogConfig *config) {
        int r, q = 0;

        if (log->ring)
                (void) write_file(log);
        log->file = log_file_free(log->file); /* it is found again, if it is the same one */
        r = set_config(log, config);
        if (log->ring)
                q = want_file(log);
        runner_log_came(log);
        return r < 0 ? r : q;
}

void runner_log_set_over(RunnerLog *log, bool over) {
        log->over = over;
        if (over)
                loop_task_queue(log->store->loop, &log->settle);
}

void runner_log_copied(RunnerLog *log, Precopy *precopy, Precopied *copied) {
        log->store->precopy = precopy;
        log->copied = copied;
}

static void touch(const RunnerLog *log) {
        if (log->copied)
                precopy_touch(log->store->precopy, log->copied);
}

LogCrossing runner_log_crossing(const RunnerLog *log) {
        return (LogCrossing){
                .over = log->over,
                .given = log->given,
                .follow_us = log->follow_deadline,
                .lost = log->lost,
        };
}

/* What no follower has been given is in the ring, which is believed: a position beyond it would be none. */
void runner_log_restore(RunnerLog *log, const LogCrossing *crossing) {
        log->lost = crossing->lost;
        log->follow_deadline = crossing->follow_us;
        log->given = log->ring ? MIN(crossing->given, runner_log_find(log, UINT64_MAX)) : 0;
        runner_log_set_over(log, crossing->over);
}

/* ------------------------------------------------------------------------------------------------------------- parking */

/* is_followed() - somebody will ask for the next line; who waits for it has all the time there is. */
static bool is_followed(RunnerLog *log) {
        uint64_t now = clock_now();

        if (log->follow_deadline > 0 && !TAILQ_EMPTY(&log->readers))
                log->follow_deadline = clock_after(now, log->store->follow_us);
        return log->follow_deadline > now;
}

/* keep_from() - the position from which on nothing is to be dropped. */
static uint64_t keep_from(RunnerLog *log) {
        uint64_t keep = log->file ? log_ring_state(log->ring)->file.position : LOG_RING_KEEP_NOTHING;

        return log->config->park && is_followed(log) ? MIN(keep, log->given) : keep;
}

static void park(RunnerLog *log) {
        LogInput *input;

        if (!log->parked) {
                log->parked = true;
                LIST_FOREACH (input, &log->inputs, link)
                        log_input_rest(input);
        }
        log_store_look(log->store, log,
                       log->file && log_file_error(log->file) ? log_file_retry(log->file) : log->follow_deadline);
}

static void resume_inputs(RunnerLog *log) {
        LogInput *input;

        LIST_FOREACH (input, &log->inputs, link)
                log_input_resume(input);
}

/* try_frame() - false: lines wait. */
static bool try_frame(RunnerLog *log, int stream) {
        while (!log_ring_frame(log->ring, stream, keep_from(log))) {
                uint64_t before = log_ring_state(log->ring)->file.position;

                if (write_file(log) == 0 && log_ring_state(log->ring)->file.position != before)
                        continue;
                return !log->config->park && log_ring_frame(log->ring, stream, LOG_RING_KEEP_NOTHING);
        }
        return true;
}

void runner_log_frame(RunnerLog *log, int stream) {
        if (!try_frame(log, stream))
                park(log);
}

/* unpark() - if everything that waited has found room. */
static void unpark(RunnerLog *log) {
        for (int i = 0; log->parked && i < LOG_RING_STREAMS; i++)
                if (log_ring_state(log->ring)->streams[i].instance != 0 && !try_frame(log, i)) {
                        park(log);
                        return;
                }
        if (!log->parked)
                return;
        log->parked = false;
        resume_inputs(log);
        loop_task_queue(log->store->loop, &log->settle);
}

/* tell_dropped() - what is too early to be told is, at another look. */
static void tell_dropped(RunnerLog *log) {
        uint64_t dropped = log->lost + (log->ring ? log_ring_state(log->ring)->dropped : 0), now, due;
        LogStore *store = log->store;

        if (dropped == log->told || !store->dropped)
                return;
        now = clock_now();
        due = log->told_us > 0 ? clock_after(log->told_us, LOG_DROPPED_US) : now;
        if (now < due) {
                if (log->ring && log->look_us > due)
                        log_store_look(store, log, due);
                return;
        }
        store->dropped(store->dropped_userdata, log->name, dropped - log->told);
        log->told = dropped;
        log->told_us = now;
}

void runner_log_lose(RunnerLog *log) {
        touch(log);
        log->lost++;
        if (log->store->dropped)
                loop_task_queue(log->store->loop, &log->settle);
}

void runner_log_look(RunnerLog *log) {
        if (!is_followed(log))
                log->follow_deadline = 0;
        (void) write_file(log);
        unpark(log);
        tell_dropped(log);
        runner_log_came(log);
}

/* ------------------------------------------------------------------------------------------------------------ the ring */

int runner_log_prepare(RunnerLog *log) {
        LogInput *input;
        int r;

        if (log->ring)
                return log->storing;
        r = log_store_prepare(log->store, log);
        if (r == 0)
                r = want_file(log);
        if (r < 0) {
                if (!log->failed)
                        log_error("runner %s: no room for its log: %s; what it writes is lost for now", log->name,
                                  strerror(-r));
                log->failed = true;
                return r;
        }
        log->failed = false;
        if (log->lost > 0)
                loop_task_queue(log->store->loop, &log->settle); /* what could not be told without a ring */
        if (log->storing)
                LIST_FOREACH (input, &log->inputs, link)
                        log_input_rest(input);
        return log->storing;
}

void runner_log_stored(RunnerLog *log, int result) {
        if (result < 0)
                log_warning("runner %s: its log is not kept if the supervisor crashes: the keeper says %s", log->name,
                            strerror(-result));
        log->storing = false;
        resume_inputs(log);
}

void runner_log_came(RunnerLog *log) {
        if (log->ring && (log->file || !TAILQ_EMPTY(&log->readers)))
                loop_task_queue(log->store->loop, &log->settle);
}

void runner_log_append(RunnerLog *log, const LogLine *line, uint64_t record_seq) {
        const LogRingState *state = log_ring_state(log->ring);

        if (log->file && state->head - state->file.position + 2 * line->size + LOG_TEXT_MAX > log_ring_size(log->ring))
                (void) write_file(log);
        log_ring_append(log->ring, line, record_seq);
        runner_log_came(log);
}

void runner_log_note(RunnerLog *log, int level, const char *format, ...) {
        LogLine line = { .source = LOG_SOURCE_RECORD, .level = (uint32_t) level, .target = "baton", .file = "" };
        _cleanup_free_ char *text = NULL;
        va_list arguments;
        int n;

        va_start(arguments, format);
        n = vasprintf(&text, format, arguments);
        va_end(arguments);
        if (n < 0 || runner_log_prepare(log) < 0) {
                runner_log_lose(log);
                return;
        }
        line.text = text;
        line.size = (size_t) n;
        line.pid = getpid();
        runner_log_append(log, &line, 0);
}

static void end_turn(LoopTask *task) {
        RunnerLog *log = CONTAINER_OF(task, RunnerLog, settle);

        if (log->ring) {
                (void) write_file(log);
                unpark(log);
        }
        tell_dropped(log);
        wake_readers(log);
}

/* ------------------------------------------------------------------------------------------------------------- reading */

uint64_t runner_log_id(const RunnerLog *log) {
        return log->ring ? log_ring_id(log->ring) : 0;
}

uint64_t runner_log_find(const RunnerLog *log, uint64_t seq) {
        return log->ring ? log_ring_find(log->ring, seq) : 0;
}

bool runner_log_read(const RunnerLog *log, uint64_t *position, LogLine *ret_line) {
        return log->ring && log_ring_read(log->ring, position, ret_line);
}

bool runner_log_back(const RunnerLog *log, uint64_t *position) {
        return log->ring && log_ring_back(log->ring, position);
}

bool runner_log_has_ended(const RunnerLog *log) {
        if (!log->over)
                return false;
        for (int i = 0; log->ring && i < LOG_RING_STREAMS; i++)
                if (log_ring_state(log->ring)->streams[i].instance != 0)
                        return false;
        return true;
}

void runner_log_follow(RunnerLog *log, uint64_t seq) {
        if (!log->config->park)
                return;
        touch(log);
        log->follow_deadline = clock_after(clock_now(), log->store->follow_us);
        log->given = runner_log_find(log, seq);
        unpark(log);
}

void runner_log_unfollow(RunnerLog *log) {
        touch(log);
        log->follow_deadline = 0;
        unpark(log);
}

void runner_log_wait(RunnerLog *log, LogReader *reader) {
        assert(!reader->log);
        reader->log = log;
        reader->turn = log->turn;
        TAILQ_INSERT_TAIL(&log->readers, reader, link);
}

void runner_log_unwait(LogReader *reader) {
        if (!reader->log)
                return;
        TAILQ_REMOVE(&reader->log->readers, reader, link);
        reader->log = NULL;
}

/* A callback may wait again, behind those that wait now, or take another one off: those of this turn alone are called. */
static void wake_readers(RunnerLog *log) {
        uint64_t turn = ++log->turn;
        LogReader *reader;

        while ((reader = TAILQ_FIRST(&log->readers)) && reader->turn < turn) {
                runner_log_unwait(reader);
                reader->callback(reader);
        }
}

void runner_log_status(const RunnerLog *log, LogStatus *ret_status) {
        const LogRingState *state;

        *ret_status = (LogStatus){ .first_seq = 1, .next_seq = 1, .dropped = log->lost };
        if (!log->ring)
                return;
        state = log_ring_state(log->ring);
        ret_status->lines = state->lines;
        ret_status->bytes = state->bytes;
        ret_status->dropped += state->dropped;
        ret_status->first_seq = state->first_seq;
        ret_status->next_seq = state->next_seq;
        ret_status->parked = log->parked;
        ret_status->file_error = log->file ? log_file_error(log->file) : 0;
}

/* ------------------------------------------------------------------------------------------- the last lines, for people */

/* utf8_step() - bytes of the character at @text, of which @size are left; 0: not UTF-8. */
static size_t utf8_step(const char *text, size_t size) {
        for (size_t n = 1; n <= MIN(size, (size_t) 4); n++)
                if (utf8_is_valid(text, n))
                        return n;
        return 0;
}

static char *copy_for_people(char *to, const char *text, size_t size) {
        while (size > 0) {
                size_t n = utf8_step(text, size);

                if (n == 0)
                        *to = '?';
                else
                        memcpy(to, text, n);
                n = MAX(n, (size_t) 1);
                to += n;
                text += n;
                size -= n;
        }
        *to++ = '\0';
        return to;
}

/* find_tail() - where to begin, and how many bytes the texts have. Returns how many lines. */
static size_t find_tail(const RunnerLog *log, uint64_t instance, size_t max_lines, size_t max_bytes,
                        uint64_t *ret_position, size_t *ret_bytes) {
        uint64_t position = log_ring_state(log->ring)->head, at;
        size_t n = 0, bytes = 0;
        LogLine line;

        while (n < max_lines && log_ring_back(log->ring, &position)) {
                at = position;
                if (!log_ring_read(log->ring, &at, &line) || (instance && line.instance != instance))
                        continue;
                if (bytes + line.size > max_bytes && n > 0)
                        break;
                *ret_position = position;
                bytes += MIN(line.size, max_bytes);
                n++;
        }
        *ret_bytes = bytes;
        return n;
}

size_t runner_log_tail(const RunnerLog *log, uint64_t instance, size_t max_lines, size_t max_bytes,
                       char ***ret_lines) {
        uint64_t position = 0;
        size_t n, bytes, i = 0;
        char **lines, *end;
        LogLine line;

        *ret_lines = NULL;
        n = log->ring ? find_tail(log, instance, max_lines, max_bytes, &position, &bytes) : 0;
        lines = n > 0 ? malloc(n * sizeof(*lines) + bytes + n) : NULL;
        if (!lines)
                return 0;
        end = (char *) (lines + n);
        while (i < n && log_ring_read(log->ring, &position, &line)) {
                if (instance && line.instance != instance)
                        continue;
                lines[i++] = end;
                end = copy_for_people(end, line.text, MIN(line.size, max_bytes));
        }
        *ret_lines = lines;
        return n;
}
