/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Chronicle, the memory: a memfd of which the keeper has a duplicate, sealed against shrinking, and in it a header and one
 * chapter after the other: its length, and a packed baton.chronicle.Chapter. A chapter is there as soon as `head' is behind
 * it, which is stored last: a SIGKILL between any two stores leaves all chapters whole. When it is full, what is still worth
 * knowing is written into another memory, of twice the size that this takes, and the keeper is given that one instead.
 *
 * What is read was written by another process, perhaps of another version, perhaps one that died of writing anywhere:
 * lengths are bounded, messages are parsed as foreign ones, and what makes no sense ends the reading there.
 *
 * Without memory nothing is kept for the next supervisor; nothing else depends on it.
 */

#include "supervisor/chronicle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <uthash.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/memfd.h"
#include "proto/chronicle.pb-c.h"
#include "supervisor/config-save.h"
#include "supervisor/keeper-link.h"
#include "supervisor/runner-internal.h"
#include "supervisor/runner-save.h"
#include "supervisor/supervisor.h"
#include "supervisor/upgrade-history.h"

#define MEMORY_MAGIC   UINT64_C(0x656c63696e6f7268)
#define MEMORY_VERSION 1u

enum {
        MEMORY_MIN = 64 * 1024,
        MEMORY_MAX = 256 * 1024 * 1024,
        CHAPTER_MAX = 1024 * 1024,
};

typedef Baton__Chronicle__Chapter Chapter;
typedef struct Past Past;

typedef struct Memory {
        uint64_t magic;
        uint32_t version, reserved;
        uint64_t head; /* bytes of chapters, each behind its length */
        uint8_t spare[64 - 24];
        uint8_t chapters[];
} Memory;
static_assert(sizeof(Memory) == 64, "the header's size is part of the format");

/* What was read of one runner. */
struct Past {
        UT_hash_handle hh;
        RunnerExit exits[RUNNER_EXITS_MAX]; /* the oldest first */
        unsigned n_exits;
        UpgradeHistory *upgrades;
        RunnerConfig *made;
        char *program, *why; /* NULL: as configured; not known */
        char *next_program;  /* of this instance, if it serves: */
        uint64_t next;       /* 0: there is none */
        RunnerUnmet unmet;
        char name[CONFIG_NAME_MAX + 1];
};

struct Chronicle {
        Supervisor *supervisor;
        int fd; /* told by the keeper, and not mapped yet; -1: none */
        Memory *memory;
        size_t size;
        bool begun, failed; /* failed: that was said */
        Past *pasts;
};

/* Bytes to be written. */
typedef struct Bytes {
        uint8_t *data;
        size_t n, room;
        bool failed;
} Bytes;

int chronicle_new(Chronicle **ret_chronicle, Supervisor *supervisor) {
        Chronicle *chronicle = calloc(1, sizeof(*chronicle));

        if (!chronicle)
                return -ENOMEM;
        chronicle->supervisor = supervisor;
        chronicle->fd = -1;
        *ret_chronicle = chronicle;
        return 0;
}

static void unmap(Chronicle *chronicle) {
        if (chronicle->memory)
                (void) munmap(chronicle->memory, chronicle->size);
        chronicle->memory = NULL;
        chronicle->size = 0;
}

static Past *past_free(Past *past) {
        if (!past)
                return NULL;
        upgrade_history_free(past->upgrades);
        runner_config_unref(past->made);
        free(past->program);
        free(past->next_program);
        free(past->why);
        free(past);
        return NULL;
}

static void forget_pasts(Chronicle *chronicle) {
        Past *past, *next;

        HASH_ITER (hh, chronicle->pasts, past, next) {
                HASH_DEL(chronicle->pasts, past);
                past_free(past);
        }
}

Chronicle *chronicle_free(Chronicle *chronicle) {
        if (!chronicle)
                return NULL;
        forget_pasts(chronicle);
        unmap(chronicle);
        fd_close(chronicle->fd);
        free(chronicle);
        return NULL;
}

void chronicle_stored(Chronicle *chronicle, int fd_consume) {
        fd_close(chronicle->fd);
        chronicle->fd = fd_consume;
}

/* ------------------------------------------------------------------------------------------------------------- reading */

/* map() - what the keeper has. 0; -EPROTO: none of ours; another negative errno. */
static int map(Chronicle *chronicle) {
        _cleanup_fd_ int fd = fd_take(&chronicle->fd);
        struct stat st;
        Memory *memory;
        int r;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_size < (off_t) sizeof(*memory) || st.st_size > MEMORY_MAX)
                return -EPROTO;
        r = memfd_check(fd, (uint64_t) st.st_size, F_SEAL_SHRINK | F_SEAL_GROW);
        if (r < 0)
                return r;
        memory = mmap(NULL, (size_t) st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED)
                return -errno;
        if (memory->magic != MEMORY_MAGIC || memory->version != MEMORY_VERSION ||
            memory->head > (uint64_t) st.st_size - sizeof(*memory)) {
                (void) munmap(memory, (size_t) st.st_size);
                return -EPROTO;
        }
        chronicle->memory = memory;
        chronicle->size = (size_t) st.st_size;
        return 0;
}

static Past *find(const Chronicle *chronicle, const char *name) {
        Past *past;

        HASH_FIND_STR(chronicle->pasts, name, past);
        return past;
}

static Past *find_or_add(Chronicle *chronicle, const char *name) {
        Past *past = find(chronicle, name);

        if (past)
                return past;
        past = calloc(1, sizeof(*past));
        if (!past)
                return NULL;
        (void) strcpy(past->name, name);
        HASH_ADD_STR(chronicle->pasts, name, past);
        return past->hh.tbl ? past : past_free(past);
}

/* add_exit() - told again it replaces what was said of the same instance. */
static void add_exit(Past *past, const Baton__Snapshot__Exit *message) {
        RunnerExit exit;

        runner_exit_restore(message, &exit);
        if (past->n_exits > 0 && past->exits[past->n_exits - 1].instance == exit.instance)
                past->n_exits--;
        if (past->n_exits == RUNNER_EXITS_MAX) {
                past->n_exits--;
                memmove(past->exits, past->exits + 1, past->n_exits * sizeof(exit));
        }
        past->exits[past->n_exits++] = exit;
}

static void set_program(Past *past, const Baton__Chronicle__Program *program) {
        char **to = program->instance ? &past->next_program : &past->program;

        free(past->next_program);
        past->next_program = NULL;
        past->next = program->instance;
        if (to == &past->program)
                free(past->program);
        *to = restored_text(program->path);
}

static void set_why(Past *past, const Baton__Chronicle__Why *why) {
        free(past->why);
        past->why = restored_text(why->text);
        past->unmet = (RunnerUnmet) restored_number(why->unmet, UNMET_GROUP + 1, UNMET_NOTHING);
}

static void take(Past *past, const Chapter *chapter) {
        if (chapter->exit)
                add_exit(past, chapter->exit);
        if (chapter->upgrade)
                upgrade_history_restore(&past->upgrades, chapter->upgrade);
        if (chapter->program)
                set_program(past, chapter->program);
        if (chapter->why)
                set_why(past, chapter->why);
        if (chapter->made) {
                runner_config_unref(past->made);
                past->made = NULL;
                (void) runner_config_restore(chapter->made, &past->made);
        }
}

/* read_chapter() - 0; -EPROTO: it makes no sense; -ENOMEM. */
static int read_chapter(Chronicle *chronicle, const uint8_t *data, size_t size) {
        Chapter *chapter = baton__chronicle__chapter__unpack(NULL, size, data);
        Past *past = NULL;
        int r = 0;

        if (!chapter || !*chapter->name || strlen(chapter->name) > CONFIG_NAME_MAX) {
                r = -EPROTO;
        } else if (chapter->forgotten) {
                past = find(chronicle, chapter->name);
                if (past)
                        HASH_DEL(chronicle->pasts, past);
                past_free(past);
        } else {
                past = find_or_add(chronicle, chapter->name);
                if (past)
                        take(past, chapter);
                else
                        r = -ENOMEM;
        }
        if (chapter)
                baton__chronicle__chapter__free_unpacked(chapter, NULL);
        return r;
}

void chronicle_read(Chronicle *chronicle) {
        uint64_t at = 0, head;
        int r = chronicle->fd >= 0 ? map(chronicle) : 0;

        head = chronicle->memory ? chronicle->memory->head : 0;
        while (r == 0 && at < head) {
                uint32_t size;

                if (head - at < sizeof(size)) {
                        r = -EPROTO;
                        break;
                }
                (void) memcpy(&size, chronicle->memory->chapters + at, sizeof(size));
                at += sizeof(size);
                if (size > CHAPTER_MAX || size > head - at)
                        r = -EPROTO;
                else
                        r = read_chapter(chronicle, chronicle->memory->chapters + at, size);
                at += size;
        }
        if (r < 0)
                log_warning("not all is known of what has become of runners under the supervisor before: %s",
                            strerror(-r));
        unmap(chronicle); /* what we write goes into a memory of our own, and begins with what is still worth knowing */
}

void chronicle_configure(Runner *runner, uint64_t instance) {
        const Past *past = find(runner->supervisor->chronicle, runner->name);
        RunnerConfig *config = NULL;
        const char *program;

        if (!past || runner->transient || runner->hidden)
                return;
        program = past->next > 0 && past->next == instance ? past->next_program : past->program;
        if (!program || strcmp(program, runner->config->command[0]) == 0)
                return;
        if (runner_config_with_program(runner->config, program, &config) < 0) {
                log_warning("runner %s: no memory to remember its program: the next start is of what is configured",
                            runner->name);
                return;
        }
        runner_config_unref(runner->config);
        runner->config = config;
}

RunnerConfig *chronicle_configuration(const Chronicle *chronicle, const char *name) {
        const Past *past = find(chronicle, name);

        return past && past->made && strcmp(past->made->name, name) == 0 ? runner_config_ref(past->made) : NULL;
}

void chronicle_restore(Runner *runner) {
        Past *past = find(runner->supervisor->chronicle, runner->name);

        if (!past)
                return;
        if (past->n_exits > 0)
                runner_forget_exits(runner);
        for (unsigned i = 0; i < past->n_exits; i++)
                runner_note_exit(runner, &past->exits[i]);
        if (past->upgrades) {
                upgrade_history_free(runner->upgrades);
                runner->upgrades = TAKE_PTR(past->upgrades);
        }
}

bool chronicle_restore_why(Runner *runner) {
        const Past *past = find(runner->supervisor->chronicle, runner->name);

        if (!past || !past->why)
                return false;
        runner->unmet = past->unmet;
        runner_set_why(runner, "%s", past->why);
        return true;
}

/* ------------------------------------------------------------------------------------------------------------- writing */

static bool is_told_of(const Runner *runner) {
        const Supervisor *supervisor = runner->supervisor;

        return supervisor->followed && supervisor->chronicle && supervisor->chronicle->begun && !runner->hidden;
}

static void fail(Chronicle *chronicle) {
        if (!chronicle->failed)
                log_warning("a supervisor after this one will not know what has become of runners: no memory");
        chronicle->failed = true;
}

static void bytes_add(Bytes *bytes, const Chapter *chapter) {
        size_t size = baton__chronicle__chapter__get_packed_size(chapter), room = bytes->room;
        uint8_t *data;

        if (bytes->failed || size > CHAPTER_MAX)
                return;
        while (room - bytes->n < size + sizeof(uint32_t))
                room = room ? room * 2 : 256;
        data = room > bytes->room ? realloc(bytes->data, room) : bytes->data;
        if (!data) {
                bytes->failed = true;
                return;
        }
        bytes->data = data;
        bytes->room = room;
        (void) memcpy(data + bytes->n, &(uint32_t){ (uint32_t) size }, sizeof(uint32_t));
        bytes->n += sizeof(uint32_t);
        bytes->n += baton__chronicle__chapter__pack(chapter, data + bytes->n);
}

/* begin_chapter() - its texts are the runner's. */
static Chapter begin_chapter(const Runner *runner) {
        Chapter chapter = BATON__CHRONICLE__CHAPTER__INIT;

        chapter.name = (char *) runner->name;
        return chapter;
}

static void tell_exit(Bytes *bytes, const Runner *runner, const RunnerExit *exit) {
        Chapter chapter = begin_chapter(runner);
        Baton__Snapshot__Exit message = BATON__SNAPSHOT__EXIT__INIT;

        runner_exit_save(exit, &message);
        chapter.exit = &message;
        bytes_add(bytes, &chapter);
}

/* tell_upgrades() - from the @first on. */
static void tell_upgrades(Bytes *bytes, const Runner *runner, unsigned first) {
        Chapter chapter = begin_chapter(runner);
        Save save = { 0 };

        chapter.upgrade = upgrade_history_save(&save, runner->upgrades, first);
        if (chapter.upgrade)
                bytes_add(bytes, &chapter);
        else
                bytes->failed = save.error < 0;
        if (chapter.upgrade)
                protobuf_c_message_free_unpacked(&chapter.upgrade->base, NULL);
}

static void tell_program(Bytes *bytes, const Runner *runner, const char *path, uint64_t instance) {
        Chapter chapter = begin_chapter(runner);
        Baton__Chronicle__Program program = BATON__CHRONICLE__PROGRAM__INIT;

        program.path = (char *) path;
        program.instance = instance;
        chapter.program = &program;
        bytes_add(bytes, &chapter);
}

static void tell_why(Bytes *bytes, const Runner *runner) {
        Chapter chapter = begin_chapter(runner);
        Baton__Chronicle__Why why = BATON__CHRONICLE__WHY__INIT;

        why.text = runner->why;
        why.unmet = runner->unmet;
        chapter.why = &why;
        bytes_add(bytes, &chapter);
}

static void tell_made(Bytes *bytes, const Runner *runner) {
        Chapter chapter = begin_chapter(runner);

        bytes->failed |= runner_config_save(runner->config, &chapter.made) < 0;
        if (!chapter.made)
                return;
        bytes_add(bytes, &chapter);
        protobuf_c_message_free_unpacked(&chapter.made->base, NULL);
}

/* program_of() - "": what the configuration says. */
static const char *program_of(const Runner *runner, const RunnerConfig *config) {
        const Config *all = runner->supervisor->config;
        const RunnerConfig *configured = all ? config_find(all, config->name) : NULL;

        return configured && strcmp(configured->command[0], config->command[0]) != 0 ? config->command[0] : "";
}

static bool has_failed(const Runner *runner) {
        return runner->why && (runner->state == POLICY_FAILED || runner->state == POLICY_BACKOFF);
}

/* tell_all() - of one runner. */
static void tell_all(Bytes *bytes, const Runner *runner) {
        const Upgrade *upgrade = runner->upgrade;

        if (runner->transient)
                tell_made(bytes, runner);
        for (unsigned i = runner->n_exits; i > 0; i--)
                tell_exit(bytes, runner, runner_exit(runner, i - 1));
        if (runner->upgrades)
                tell_upgrades(bytes, runner, 0);
        if (!runner->transient && *program_of(runner, runner->config))
                tell_program(bytes, runner, program_of(runner, runner->config), 0);
        if (upgrade && upgrade->new)
                tell_program(bytes, runner, program_of(runner, upgrade->config), upgrade->new->id);
        if (has_failed(runner))
                tell_why(bytes, runner);
}

/* renew() - into another memory, with room for as much again and @more. 0 or a negative errno. */
static int renew(Chronicle *chronicle, size_t more) {
        _cleanup_fd_ int fd = -1;
        size_t size = MEMORY_MIN;
        Bytes bytes = { 0 };
        void *memory;
        int r;

        for (const Runner *runner = runner_first(chronicle->supervisor); runner; runner = runner_next(runner))
                if (!runner->hidden)
                        tell_all(&bytes, runner);
        while (size < sizeof(Memory) + 2 * (bytes.n + more))
                size *= 2;
        r = bytes.failed ? -ENOMEM : size > MEMORY_MAX ? -ENOSPC : 0;
        if (r == 0)
                r = memfd_shared("baton-chronicle", size, 0, &fd, &memory);
        if (r == 0) {
                unmap(chronicle);
                chronicle->memory = memory;
                chronicle->size = size;
                if (bytes.n > 0)
                        (void) memcpy(chronicle->memory->chapters, bytes.data, bytes.n);
                chronicle->memory->head = bytes.n;
                chronicle->memory->version = MEMORY_VERSION;
                chronicle->memory->magic = MEMORY_MAGIC;
                (void) keeper_link_replace(chronicle->supervisor->link, 0, KEEPER_FD_HISTORY, KEEPER_HISTORY_RUNNERS,
                                           fd, NULL, NULL);
        }
        free(bytes.data);
        return r;
}

/* write_down() - @bytes, which are freed. What a new memory begins with has it already: it is of what is known. */
static void write_down(const Runner *runner, Bytes *bytes) {
        Chronicle *chronicle = runner->supervisor->chronicle;
        Memory *memory = chronicle->memory;
        size_t room = memory ? chronicle->size - sizeof(*memory) : 0;

        if (bytes->failed) {
                fail(chronicle);
        } else if (!memory || memory->head > room || room - memory->head < bytes->n) {
                if (renew(chronicle, bytes->n) < 0)
                        fail(chronicle);
        } else {
                (void) memcpy(memory->chapters + memory->head, bytes->data, bytes->n);
                __atomic_store_n(&memory->head, memory->head + bytes->n, __ATOMIC_RELEASE);
        }
        free(bytes->data);
}

void chronicle_begin(Chronicle *chronicle) {
        int r = chronicle->fd >= 0 ? map(chronicle) : 0;

        if (r < 0)
                log_warning("what has become of runners is written down anew: %s", strerror(-r));
        chronicle->begun = true;
        if (!chronicle->pasts)
                return;
        forget_pasts(chronicle);
        if (renew(chronicle, 0) < 0)
                fail(chronicle);
}

void chronicle_exit(const Runner *runner, const RunnerExit *exit) {
        Bytes bytes = { 0 };

        if (!is_told_of(runner))
                return;
        tell_exit(&bytes, runner, exit);
        write_down(runner, &bytes);
}

void chronicle_upgrade(const Runner *runner) {
        Bytes bytes = { 0 };

        if (!is_told_of(runner) || !runner->upgrades)
                return;
        tell_upgrades(&bytes, runner, runner->upgrades->n - 1);
        write_down(runner, &bytes);
}

void chronicle_why(const Runner *runner) {
        Bytes bytes = { 0 };

        if (!is_told_of(runner) || !has_failed(runner))
                return;
        tell_why(&bytes, runner);
        write_down(runner, &bytes);
}

void chronicle_made(const Runner *runner) {
        Bytes bytes = { 0 };

        if (!is_told_of(runner) || !runner->transient)
                return;
        tell_made(&bytes, runner);
        write_down(runner, &bytes);
}

void chronicle_forget(const Runner *runner) {
        Chapter chapter = begin_chapter(runner);
        Bytes bytes = { 0 };

        if (!is_told_of(runner) || !runner->supervisor->chronicle->memory)
                return;
        chapter.forgotten = true;
        bytes_add(&bytes, &chapter);
        write_down(runner, &bytes);
}

void chronicle_program(const Runner *runner) {
        Bytes bytes = { 0 };

        if (!is_told_of(runner) || runner->transient)
                return;
        tell_program(&bytes, runner, program_of(runner, runner->config), 0);
        write_down(runner, &bytes);
}

void chronicle_program_of(const Runner *runner, const RunnerConfig *config, uint64_t instance) {
        Bytes bytes = { 0 };

        if (!is_told_of(runner) || runner->transient)
                return;
        tell_program(&bytes, runner, program_of(runner, config), instance);
        write_down(runner, &bytes);
}
