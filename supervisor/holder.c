/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Holder. A descriptor is Held here, has an entry on the board under a tag, and a duplicate with the keeper under the same
 * tag, as one of instance 0. A new supervisor is told the duplicates, finds the board among them (tag 0), and puts the
 * three together; an entry without a descriptor, and a descriptor without an entry, were being made or ended when the one
 * before died, and are ended.
 *
 * A socket is recognized by what it was opened as (type, address, and the options that cannot be changed later), which is
 * its entry's address: so a reload closes and opens only what has changed, and what only differs in its backlog or mode is
 * adjusted. The keeper's answer to a DROP is waited for before another socket is opened, since until then the address may
 * be taken by our own.
 *
 * Stored descriptors are watched for the hang-up of their peer by an epoll set of their own: libev does not watch for
 * nothing but that. They leave the set before they are closed, since their duplicates live on.
 */

#include "supervisor/holder-internal.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/checkpoint.h"
#include "supervisor/runner-internal.h"
#include "supervisor/socket-open.h"

static void hung_up(LoopIo *io, unsigned events);
static void timed_out(LoopTimer *timer);

/* ----------------------------------------------------------------------------------------------------- making, freeing */

int holder_new(Holder **ret_holder, Supervisor *supervisor) {
        Holder *holder = calloc(1, sizeof(*holder));

        if (!holder)
                return -ENOMEM;
        holder->supervisor = supervisor;
        holder->epoll = -1;
        holder->io = LOOP_IO_NULL(hung_up);
        kept_init(holder);
        if (board_new(&holder->board) < 0) {
                free(holder);
                return -ENOMEM;
        }
        *ret_holder = holder;
        return 0;
}

/*
 * by_file() - an order of open files, in which two descriptors of one are the same: a runner may store very many, again and
 * again. Where the kernel does not tell, each is a file of its own.
 */
static int by_file(const void *a, const void *b) {
        const Held *one = a, *other = b;
        pid_t us = getpid();
        long order = syscall(SYS_kcmp, us, us, KCMP_FILE, one->fd, other->fd);

        if (order < 0 || order > 2)
                return one->fd - other->fd;
        return order == 1 ? -1 : order == 2;
}

/* list_of() - what it is in. */
static struct HeldList *list_of(HeldSet *set, const Held *held) {
        return board_entry(set->holder->board, held->place)->kind == BOARD_ATTACHED ? &set->lanes : &set->list;
}

static BoardEntry *entry_of(const Held *held) {
        return board_entry(held->set->holder->board, held->place);
}

static bool is_stored(const Held *held) {
        return entry_of(held)->kind == BOARD_STORED;
}

static void free_held(Held *held) {
        HeldSet *set = held->set;
        Holder *holder = set->holder;

        if (held->watched)
                (void) epoll_ctl(holder->epoll, EPOLL_CTL_DEL, held->fd, NULL);
        TAILQ_REMOVE(list_of(set, held), held, link);
        HASH_DELETE(hh, holder->all, held);
        if (is_stored(held))
                (void) tdelete(held, &set->by_file, by_file);
        fd_close(held->fd);
        free(held);
}

static void free_set(HeldSet *set) {
        set->kept = kept_unref(set->kept);
        loop_timer_stop(&set->timer);
        HASH_DELETE(hh, set->holder->sets, set);
        free(set);
}

static void forget_told(Holder *holder) {
        Told *told, *next;

        HASH_ITER (hh, holder->told, told, next) {
                HASH_DELETE(hh, holder->told, told);
                fd_close(told->fd);
                free(told);
        }
}

/* Nothing is said to the keeper, and no path removed: another supervisor may follow. */
Holder *holder_free(Holder *holder) {
        HeldSet *set, *next;
        Held *held;

        if (!holder)
                return NULL;
        HASH_ITER (hh, holder->sets, set, next) {
                while ((held = TAILQ_FIRST(&set->list)))
                        free_held(held);
                while ((held = TAILQ_FIRST(&set->lanes)))
                        free_held(held);
                free_set(set);
        }
        kept_end(holder);
        forget_told(holder);
        if (holder->supervisor->link)
                keeper_link_forget(holder->supervisor->link, holder);
        loop_io_stop(&holder->io);
        fd_close(holder->epoll);
        board_free(holder->board);
        free(holder);
        return NULL;
}

/* ------------------------------------------------------------------------------------------------------------- the set */

HeldSet *holder_find_set(const Holder *holder, const char *name) {
        HeldSet *set;

        HASH_FIND(hh, holder->sets, name, strlen(name), set);
        return set;
}

HeldSet *holder_make_set(Holder *holder, const char *name) {
        HeldSet *set = holder_find_set(holder, name);

        if (set)
                return set;
        set = calloc(1, sizeof(*set) + strlen(name) + 1);
        if (!set)
                return NULL;
        (void) strcpy(set->name, name);
        set->holder = holder;
        set->timer = LOOP_TIMER_NULL(timed_out);
        TAILQ_INIT(&set->list);
        TAILQ_INIT(&set->lanes);
        HASH_ADD(hh, holder->sets, name, strlen(set->name), set);
        if (set->hh.tbl)
                return set;
        free(set);
        return NULL;
}

void holder_clean_set(HeldSet *set) {
        if (TAILQ_EMPTY(&set->list) && TAILQ_EMPTY(&set->lanes) && !set->kept)
                free_set(set);
}

/* insert() - behind those of its kind. */
static Held *insert(HeldSet *set, size_t place, int fd_consume) {
        Held *held = calloc(1, sizeof(*held)), *before;

        if (!held) {
                fd_close(fd_consume);
                return NULL;
        }
        *held = (Held){ .set = set, .place = place, .tag = board_entry(set->holder->board, place)->tag };
        held->fd = fd_consume;
        HASH_ADD(hh, set->holder->all, tag, sizeof(held->tag), held);
        if (!held->hh.tbl) {
                fd_close(held->fd);
                free(held);
                return NULL;
        }
        TAILQ_FOREACH (before, list_of(set, held), link)
                if (is_stored(before) && !is_stored(held))
                        break;
        if (before)
                TAILQ_INSERT_BEFORE(before, held, link);
        else
                TAILQ_INSERT_TAIL(list_of(set, held), held, link);
        if (is_stored(held)) {
                set->n_stored++;
                (void) tsearch(held, &set->by_file, by_file); /* no memory: it may come to be stored twice */
        }
        return held;
}

static void dropped(KeeperLink *link, int result, void *userdata) {
        Holder *holder = userdata;

        (void) link;
        (void) result;
        if (--holder->n_dropping == 0)
                loop_task_queue(holder->supervisor->loop, &holder->supervisor->spawn);
}

/* let_go() - of the runner for good; a path goes with its socket. */
static void let_go(Held *held) {
        HeldSet *set = held->set;
        Holder *holder = set->holder;

        if (is_stored(held))
                set->n_stored--;
        else if (entry_of(held)->kind == BOARD_SOCKET)
                socket_remove_path(held->fd);
        if (keeper_link_drop(holder->supervisor->link, 0, KEEPER_FD_SOCKET, held->tag, dropped, holder) == 0)
                holder->n_dropping++;
        board_remove(holder->board, held->place);
        free_held(held);
        holder_clean_set(set);
}

bool holder_must_wait(const Holder *holder, const Instance *instance) {
        return (holder->n_dropping > 0 || holder->n_range_drops > 0) && instance->config->n_sockets > 0;
}

/* --------------------------------------------------------------------------------------------------------- the keeper */

/* What the keeper does not take works all the same; it goes with this supervisor. */
static void stored(KeeperLink *link, int result, void *userdata) {
        (void) link;
        (void) userdata;
        if (result < 0)
                log_warning("the keeper cannot hold a descriptor of a runner: %s; it will not outlive this supervisor",
                            strerror(-result));
}

static int put(Holder *holder, uint64_t tag, int fd) {
        return keeper_link_put(holder->supervisor->link, 0, KEEPER_FD_SOCKET, tag, fd, stored, holder);
}

int holder_begun(Holder *holder, int r) {
        return r == BOARD_BEGUN ? put(holder, 0, board_fd(holder->board)) : r;
}

static int add_entry(Holder *holder, const BoardEntry *entry, size_t *ret_place) {
        return holder_begun(holder, board_add(holder->board, entry, ret_place));
}

static int hold(Holder *holder, const BoardEntry *entry, int fd_consume, Held **ret_held) {
        _cleanup_fd_ int fd = fd_consume;
        HeldSet *set = holder_make_set(holder, entry->runner);
        size_t place;
        int r = set ? add_entry(holder, entry, &place) : -ENOMEM;

        if (r < 0) {
                if (set)
                        holder_clean_set(set);
                return r;
        }
        *ret_held = insert(set, place, fd_take(&fd));
        if (!*ret_held) {
                board_remove(holder->board, place);
                holder_clean_set(set);
                return -ENOMEM;
        }
        r = put(holder, (*ret_held)->tag, (*ret_held)->fd);
        if (r < 0)
                stored(holder->supervisor->link, r, NULL);
        return 0;
}

void holder_adopt(Holder *holder, uint64_t tag, int fd_consume) {
        Told *told = malloc(sizeof(*told));

        if (told) {
                *told = (Told){ .tag = tag, .fd = fd_consume };
                HASH_ADD(hh, holder->told, tag, sizeof(told->tag), told);
        }
        if (told && told->hh.tbl)
                return;
        fd_close(fd_consume);
        free(told);
}

int holder_take_told(Holder *holder, uint64_t tag) {
        Told *told;
        int fd;

        HASH_FIND(hh, holder->told, &tag, sizeof(tag), told);
        if (!told)
                return -1;
        fd = told->fd;
        HASH_DELETE(hh, holder->told, told);
        free(told);
        return fd;
}

void holder_disown(Holder *holder, uint64_t tag) {
        fd_close(holder_take_told(holder, tag));
}

static void watch(Held *held);
static void arm(HeldSet *set);

static void recover_entry(Holder *holder, size_t place) {
        const BoardEntry *entry = board_entry(holder->board, place);
        int fd = holder_take_told(holder, entry->tag);
        HeldSet *set = fd >= 0 ? holder_make_set(holder, entry->runner) : NULL;
        Held *held = set ? insert(set, place, fd) : NULL;

        if (!set)
                fd_close(fd);
        if (!held)
                board_remove(holder->board, place);
        else if (entry->kind != BOARD_SOCKET)
                watch(held);
}

/* drop_told() - what has no entry. */
static void drop_told(Holder *holder) {
        Told *told, *next;

        HASH_ITER (hh, holder->told, told, next)
                kept_drop_tags(holder, told->tag, 1);
        forget_told(holder);
}

void holder_recover(Holder *holder) {
        Board *board;
        int fd = holder_take_told(holder, 0), r;

        if (fd >= 0) {
                r = board_adopt(&board, fd);
                if (r < 0)
                        log_warning("the board of the supervisor before cannot be read: %s; sockets are opened again",
                                    strerror(-r));
                else {
                        board_free(holder->board);
                        holder->board = board;
                }
        }
        for (size_t i = board_next(holder->board, 0); i > 0; i = board_next(holder->board, i))
                if (board_entry(holder->board, i)->kind == BOARD_CHECKPOINT)
                        kept_recover(holder, i);
                else if (board_entry(holder->board, i)->kind != BOARD_STATE)
                        recover_entry(holder, i);
        drop_told(holder);
}

/* ---------------------------------------------------------------------------------------------------------- the sockets */

/* identify() - what a socket is known by: it stays open as long as this stays the same. */
static void identify(const ConfigSocket *config, const char *address, unsigned nth,
                     char text[sizeof(((BoardEntry *) 0)->address)]) {
        (void) snprintf(text, sizeof(((BoardEntry *) 0)->address), "%c%c%c%c%u %s", 'a' + (char) config->type,
                        config->reuse_port ? 'r' : '-', config->ipv6_only ? '6' : '-', config->free_bind ? 'f' : '-',
                        nth, address);
}

static Held *find_socket(const HeldSet *set, const char *identity) {
        Held *held;

        TAILQ_FOREACH (held, &set->list, link)
                if (!is_stored(held) && strcmp(entry_of(held)->address, identity) == 0)
                        return held;
        return NULL;
}

/* nth_alike() - of those that have the same address, by reuse_port, this is which. */
static unsigned nth_alike(const RunnerConfig *config, unsigned i) {
        unsigned n = 0;

        for (unsigned j = 0; j < i; j++)
                n += config->sockets[j].type == config->sockets[i].type &&
                     strcmp(config->sockets[j].address, config->sockets[i].address) == 0;
        return n;
}

/* mark_wanted() - of those that are open, which one the @i-th of the configuration is; NULL: none. -ENOMEM. */
static int find_wanted(const Holder *holder, const Runner *runner, unsigned i, char **ret_address, char *identity,
                       Held **ret_held) {
        const RunnerConfig *config = runner->config;
        const HeldSet *set = holder_find_set(holder, runner->name);
        char *address = runner_config_expand(config, config->sockets[i].address, runner->name, runner->number);

        if (!address)
                return -ENOMEM;
        identify(&config->sockets[i], address, nth_alike(config, i), identity);
        *ret_held = set ? find_socket(set, identity) : NULL;
        *ret_address = address;
        return 0;
}

/* drop_recovery() - what only a failover needs. It may free the set. */
static void drop_recovery(HeldSet *set) {
        Holder *holder = set->holder;
        char name[KEEPER_NAME_SIZE];
        Held *held;

        (void) snprintf(name, sizeof(name), "%s", set->name);
        kept_drop(set);
        holder_clean_set(set);
        while ((set = holder_find_set(holder, name)) && (held = TAILQ_FIRST(&set->lanes)))
                let_go(held);
}

void holder_trim(Holder *holder, const Runner *runner) {
        HeldSet *set = holder_find_set(holder, runner->name);
        Held *held, *next, *wanted;

        if (set && runner->config->recover != CONFIG_RECOVER_FAILOVER) {
                drop_recovery(set);
                set = holder_find_set(holder, runner->name);
        }
        if (!set)
                return;
        TAILQ_FOREACH (held, &set->list, link)
                held->wanted = is_stored(held);
        for (unsigned i = 0; i < runner->config->n_sockets; i++) {
                char identity[sizeof(((BoardEntry *) 0)->address)];
                _cleanup_free_ char *address = NULL;

                if (find_wanted(holder, runner, i, &address, identity, &wanted) < 0)
                        return;
                if (wanted)
                        wanted->wanted = true;
        }
        for (held = TAILQ_FIRST(&set->list); held; held = next) {
                next = TAILQ_NEXT(held, link);
                if (!held->wanted)
                        let_go(held); /* the last of them frees the set, and then there is no next */
        }
        set = holder_find_set(holder, runner->name);
        if (set)
                arm(set); /* how long things may be stored may have changed, too */
}

static int open_one(Holder *holder, const Runner *runner, unsigned i, char error[HOLDER_ERROR_SIZE]) {
        const ConfigSocket *config = &runner->config->sockets[i];
        char reason[SOCKET_ERROR_SIZE] = "no memory";
        BoardEntry entry = { .kind = BOARD_SOCKET, .since_us = clock_now(), .since_wall_us = clock_wall() };
        _cleanup_free_ char *address = NULL, *name = NULL;
        Held *held;
        int fd, r = find_wanted(holder, runner, i, &address, entry.address, &held);

        name = runner_config_expand(runner->config, config->name, runner->name, runner->number);
        if (r == 0 && !name)
                r = -ENOMEM;
        if (r == 0 && held) {
                (void) snprintf(entry_of(held)->name, sizeof(entry.name), "%s", name);
                r = socket_adjust(config, address, held->fd, reason);
        } else if (r == 0) {
                r = socket_open(config, address, &fd, reason);
                (void) snprintf(entry.runner, sizeof(entry.runner), "%s", runner->name);
                (void) snprintf(entry.name, sizeof(entry.name), "%s", name);
                if (r == 0) {
                        int duplicate = fd_dup(fd); /* its path is removed by it when this fails */

                        r = hold(holder, &entry, fd, &held);
                        if (r < 0 && duplicate >= 0)
                                socket_remove_path(duplicate);
                        fd_close(duplicate);
                }
        }
        if (r < 0)
                (void) snprintf(error, HOLDER_ERROR_SIZE, "%.100s, %s", name ? name : config->name, reason);
        else { /* in the order of the configuration: those that are not looked at yet stay behind */
                TAILQ_REMOVE(&held->set->list, held, link);
                held->wanted = true;
                TAILQ_INSERT_HEAD(&held->set->list, held, link);
        }
        return r;
}

/* Backwards, each to the front: so they are in order at the end. */
int holder_open(Holder *holder, const Runner *runner, char error[HOLDER_ERROR_SIZE]) {
        int r = 0;

        holder_trim(holder, runner);
        for (unsigned i = runner->config->n_sockets; r == 0 && i > 0; i--)
                r = open_one(holder, runner, i - 1, error);
        return r;
}

/* keeps() - whether @runner, which is at rest, may be started from its checkpoint yet. NULL: there is none of that name. */
static bool keeps(const Runner *runner) {
        return runner && !runner->removed && runner->state == POLICY_FAILED &&
               runner->config->recover == CONFIG_RECOVER_FAILOVER;
}

/* let_all_go() - with the checkpoint, unless @runner has failed: somebody may repair what it failed of. */
static void let_all_go(HeldSet *set, const Runner *runner) {
        Holder *holder = set->holder;
        char name[KEEPER_NAME_SIZE];
        Held *held;

        (void) snprintf(name, sizeof(name), "%s", set->name);
        if (set->kept && !keeps(runner)) {
                kept_drop(set);
                holder_clean_set(set);
        }
        /* The last of what there is frees the set. */
        while ((set = holder_find_set(holder, name)) &&
               ((held = TAILQ_FIRST(&set->lanes)) || (held = TAILQ_FIRST(&set->list))))
                let_go(held);
}

void holder_release(Holder *holder, const Runner *runner) {
        HeldSet *set = holder_find_set(holder, runner->name);

        if (set)
                let_all_go(set, runner);
}

static bool is_over(const Runner *runner) {
        return !runner || runner->removed || runner->state == POLICY_DOWN || runner->state == POLICY_FAILED ||
               runner->state == POLICY_DONE;
}

void holder_settle(Holder *holder) {
        HeldSet *set, *next;

        HASH_ITER (hh, holder->sets, set, next) {
                Runner *runner = runner_find(holder->supervisor, set->name);

                /* One that is about to be started has its event, and is DOWN until that is handled. */
                if (!is_over(runner) || (runner && runner->events && !runner->removed)) {
                        holder_trim(holder, runner);
                        continue;
                }
                let_all_go(set, runner);
        }
        for (size_t i = board_next(holder->board, 0); i > 0; i = board_next(holder->board, i)) {
                const BoardEntry *entry = board_entry(holder->board, i);
                Instance *instance = entry->kind == BOARD_STATE
                                             ? supervisor_find_instance(holder->supervisor, entry->instance)
                                             : NULL;

                if (instance && holder->supervisor->successor)
                        continue; /* its predecessor has told all that, and since when */
                if (instance)
                        instance_recall(instance, entry);
                else if (entry->kind == BOARD_STATE)
                        board_remove(holder->board, i);
        }
        checkpoint_wake_all(holder->supervisor);
}

/* ------------------------------------------------------------------------------------------------------------- passing */

/* print_custom() - NAME=value, by the format, of sockets alone. */
static char *print_custom(const ConfigSocketVariable *variable, unsigned n) {
        char *text = NULL;
        size_t size;
        FILE *out = open_memstream(&text, &size);

        if (!out)
                return NULL;
        (void) fprintf(out, "%s=", variable->name);
        for (unsigned i = 0; i < n; i++) {
                if (i > 0)
                        (void) fputs(variable->separator, out);
                for (const char *c = variable->format; *c; c++)
                        if (c[0] == '%' && c[1] == 'f') {
                                (void) fprintf(out, "%u", 3 + i);
                                c++;
                        } else {
                                (void) fputc(*c, out);
                        }
        }
        if (fclose(out) != 0)
                free(TAKE_PTR(text));
        return text;
}

int holder_pass(const Holder *holder, const Runner *runner, HolderPass *ret_pass) {
        const HeldSet *set = holder_find_set(holder, runner->name);
        HolderPass pass = { 0 };
        unsigned n_sockets = 0;
        FILE *names;
        size_t size, room = 0;
        const Held *held;

        if (set)
                TAILQ_FOREACH (held, &set->list, link)
                        room++;
        if (room == 0) {
                *ret_pass = pass;
                return 0;
        }
        pass.fds = malloc(room * sizeof(*pass.fds));
        names = open_memstream(&pass.names, &size);
        if (!names || !pass.fds) {
                if (names)
                        (void) fclose(names);
                holder_pass_deinit(&pass);
                return -ENOMEM;
        }
        TAILQ_FOREACH (held, &set->list, link) {
                (void) fprintf(names, "%s%s", pass.n > 0 ? ":" : "", entry_of(held)->name);
                n_sockets += !is_stored(held);
                pass.fds[pass.n++] = held->fd;
        }
        if (fclose(names) != 0)
                free(TAKE_PTR(pass.names));
        if (runner->config->socket_variable)
                pass.custom = print_custom(runner->config->socket_variable, n_sockets);
        if (!pass.names || (runner->config->socket_variable && !pass.custom)) {
                holder_pass_deinit(&pass);
                return -ENOMEM;
        }
        *ret_pass = pass;
        return 0;
}

void holder_pass_deinit(HolderPass *pass) {
        free(pass->fds);
        free(pass->names);
        free(pass->custom);
        *pass = (HolderPass){ 0 };
}

/* ----------------------------------------------------------------------------------------------- what a runner stores */

/* hung_up() - each that has is let go, but those behind a limit of one turn, whose turn is the next. */
static void hung_up(LoopIo *io, unsigned events) {
        Holder *holder = CONTAINER_OF(io, Holder, io);
        struct epoll_event ready[16];
        int n = epoll_wait(holder->epoll, ready, ARRAY_SIZE(ready), 0);

        (void) events;
        for (int i = 0; i < n; i++) {
                uint64_t tag = ready[i].data.u64;
                Held *held;

                HASH_FIND(hh, holder->all, &tag, sizeof(tag), held);
                if (!held)
                        continue;
                if (is_stored(held))
                        log_info("runner %s: stored descriptor %s: its peer has hung up", held->set->name,
                                 entry_of(held)->name);
                let_go(held);
        }
}

/* watch() - what cannot be polled, as a file, has no peer that could hang up. */
static void watch(Held *held) {
        Holder *holder = held->set->holder;
        struct epoll_event event = { .data.u64 = held->tag }; /* EPOLLHUP and EPOLLERR are always told */

        if (entry_of(held)->flags & BOARD_NO_POLL)
                return;
        if (holder->epoll < 0) {
                holder->epoll = epoll_create1(EPOLL_CLOEXEC);
                if (holder->epoll < 0)
                        return;
                loop_io_set(holder->supervisor->loop, &holder->io, holder->epoll, LOOP_IN);
        }
        held->watched = epoll_ctl(holder->epoll, EPOLL_CTL_ADD, held->fd, &event) == 0;
}

static uint64_t timeout_of(const HeldSet *set) {
        const Runner *runner = runner_find(set->holder->supervisor, set->name);

        return runner ? runner->config->fd_store_timeout_us : 0;
}

/* arm() - for the oldest that is stored, which is the first. */
static void arm(HeldSet *set) {
        uint64_t timeout_us = timeout_of(set);
        const Held *held;

        TAILQ_FOREACH (held, &set->list, link)
                if (is_stored(held))
                        break;
        if (held && timeout_us > 0)
                loop_timer_set(set->holder->supervisor->loop, &set->timer,
                               clock_after(entry_of(held)->since_us, timeout_us));
        else
                loop_timer_stop(&set->timer);
}

static void timed_out(LoopTimer *timer) {
        HeldSet *set = CONTAINER_OF(timer, HeldSet, timer);
        Holder *holder = set->holder;
        uint64_t now = clock_now(), timeout_us = timeout_of(set);
        char name[KEEPER_NAME_SIZE];
        Held *held, *next;

        (void) snprintf(name, sizeof(name), "%s", set->name);
        for (held = TAILQ_FIRST(&set->list); held; held = next) {
                next = TAILQ_NEXT(held, link);
                if (!is_stored(held) || now < clock_after(entry_of(held)->since_us, timeout_us))
                        continue;
                log_info("runner %s: stored descriptor %s: its time is over", name, entry_of(held)->name);
                let_go(held);
        }
        set = holder_find_set(holder, name);
        if (set)
                arm(set);
}

int holder_store(Holder *holder, const Runner *runner, const char *name, bool poll, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        HeldSet *set = holder_find_set(holder, runner->name);
        BoardEntry entry = { .kind = BOARD_STORED,
                             .flags = poll ? 0 : BOARD_NO_POLL,
                             .since_us = clock_now(),
                             .since_wall_us = clock_wall() };
        Held *held;
        int r;

        if (set && tfind(&(Held){ .fd = fd }, &set->by_file, by_file))
                return 0;
        if ((set ? set->n_stored : 0) >= runner->config->fd_store_max)
                return -EDQUOT;
        (void) snprintf(entry.runner, sizeof(entry.runner), "%s", runner->name);
        (void) snprintf(entry.name, sizeof(entry.name), "%s", name);
        r = hold(holder, &entry, fd_take(&fd), &held);
        if (r < 0)
                return r;
        watch(held);
        arm(held->set);
        return 0;
}

unsigned holder_unstore(Holder *holder, const Runner *runner, const char *name) {
        HeldSet *set = holder_find_set(holder, runner->name);
        Held *held, *next;
        unsigned n = 0;

        for (held = set ? TAILQ_FIRST(&set->list) : NULL; held; held = next) {
                next = TAILQ_NEXT(held, link);
                if (!is_stored(held) || strcmp(entry_of(held)->name, name) != 0)
                        continue;
                let_go(held);
                n++;
        }
        return n;
}

/* ---------------------------------------------------------------------------------------------------- attached clients */

int holder_attach(Holder *holder, const Runner *runner, const struct ucred *client, const char *software, int lane) {
        _cleanup_fd_ int fd = fd_dup(lane);
        BoardEntry entry = { .kind = BOARD_ATTACHED,
                             .since_us = clock_now(),
                             .since_wall_us = clock_wall(),
                             .main_pid = client->pid,
                             .uid = client->uid,
                             .gid = client->gid };
        Held *held;
        int r;

        if (fd < 0)
                return fd;
        (void) snprintf(entry.runner, sizeof(entry.runner), "%s", runner->name);
        (void) snprintf(entry.name, sizeof(entry.name), "%s", software);
        r = hold(holder, &entry, fd_take(&fd), &held);
        if (r == 0)
                watch(held);
        return r;
}

const Held *holder_first_lane(const Holder *holder, const Runner *runner) {
        const HeldSet *set = holder_find_set(holder, runner->name);

        return set ? TAILQ_FIRST(&set->lanes) : NULL;
}

uint64_t holder_tag(const Held *held) {
        return held->tag;
}

uint32_t holder_next_epoch(const Held *lane) {
        return (uint32_t) ++entry_of(lane)->epoch;
}

void holder_detach(Holder *holder, uint64_t tag) {
        Held *held;

        HASH_FIND(hh, holder->all, &tag, sizeof(tag), held);
        if (held && entry_of(held)->kind == BOARD_ATTACHED)
                let_go(held);
}

/* ------------------------------------------------------------------------------------------------------------- looking */

const Held *holder_first(const Holder *holder, const Runner *runner) {
        const HeldSet *set = holder_find_set(holder, runner->name);

        return set ? TAILQ_FIRST(&set->list) : NULL;
}

const Held *holder_next(const Held *held) {
        return TAILQ_NEXT(held, link);
}

const BoardEntry *holder_entry(const Holder *holder, const Held *held) {
        return board_entry(holder->board, held->place);
}

int holder_fd(const Held *held) {
        return held->fd;
}

/* --------------------------------------------------------------------------------------------- what an instance says */

BoardEntry *holder_find_state(const Holder *holder, const Instance *instance) {
        size_t place = board_find_state(holder->board, instance->id);

        return place > 0 ? board_entry(holder->board, place) : NULL;
}

BoardEntry *holder_state(Holder *holder, const Instance *instance) {
        BoardEntry *found = holder_find_state(holder, instance), entry = { .kind = BOARD_STATE };
        size_t place;

        if (found)
                return found;
        entry.instance = instance->id;
        (void) snprintf(entry.runner, sizeof(entry.runner), "%s", instance->runner->name);
        return add_entry(holder, &entry, &place) < 0 ? NULL : board_entry(holder->board, place);
}

void holder_forget_state(Holder *holder, const Instance *instance) {
        size_t place = board_find_state(holder->board, instance->id);

        if (place > 0)
                board_remove(holder->board, place);
}
