/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, who a runner is: names become numbers here, once, since the child of a start may not ask for them and a start
 * should not take the time. Most runners are the same few users, often one behind the other: the last answer is kept.
 *
 * A supervisor that follows another must be able to go on, whoever was deleted meanwhile: then what does not exist is part
 * of the structure, and the start of that runner alone fails with it.
 */

#include "supervisor/config-internal.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "common/parse.h"

enum { GROUPS_MAX = 1024 };

static bool is_number(const char *text, uint32_t *ret_number) {
        uint64_t number;

        if (parse_u64(text, UINT32_MAX - 1, &number) < 0)
                return false;
        *ret_number = (uint32_t) number;
        return true;
}

bool config_user_number(const char *text, uid_t *ret_uid) {
        const struct passwd *passwd;

        if (is_number(text, ret_uid))
                return true;
        passwd = getpwnam(text);
        if (passwd)
                *ret_uid = passwd->pw_uid;
        return passwd;
}

bool config_user_group(const char *text, gid_t *ret_gid) {
        const struct group *group;

        if (is_number(text, ret_gid))
                return true;
        group = getgrnam(text);
        if (group)
                *ret_gid = group->gr_gid;
        return group;
}

static void problem(ConfigLoader *loader, const char *key, const char *what, const char *name) {
        loader->user_problem = config_arena_print(&loader->users, "there is no %s %s", what, name);
        loader->user_problem_key = key;
        loader->no_memory |= !loader->user_problem;
}

static const char *keep(ConfigLoader *loader, const char *text) {
        const char *copy = config_arena_print(&loader->users, "%s", text);

        loader->no_memory |= !copy;
        return copy;
}

/* find_user() - `user' into @user. False: there is no such one. */
static bool find_user(ConfigLoader *loader, const char *text, ConfigUser *user) {
        const struct passwd *passwd;
        uint32_t number = 0;
        bool by_number = is_number(text, &number);

        passwd = by_number ? getpwuid(number) : getpwnam(text);
        if (!passwd && by_number) {
                user->spawn.uid = number;
                return true;
        }
        if (!passwd) {
                problem(loader, "user", "user", text);
                return false;
        }
        user->spawn.uid = passwd->pw_uid;
        user->spawn.gid = passwd->pw_gid;
        user->name = keep(loader, passwd->pw_name);
        user->home = keep(loader, passwd->pw_dir);
        user->shell = *passwd->pw_shell ? keep(loader, passwd->pw_shell) : NULL;
        return true;
}

/* find_groups() - those configured, or all that the user is a member of. False: there is no such one. */
static bool find_groups(ConfigLoader *loader, const ConfigDraft *draft, ConfigUser *user) {
        gid_t groups[GROUPS_MAX], *kept;
        int n = GROUPS_MAX;

        if (draft->groups) {
                for (n = 0; n < (int) MIN(draft->groups->n, (unsigned) GROUPS_MAX); n++)
                        if (!config_user_group(draft->groups->items[n], &groups[n])) {
                                problem(loader, "groups", "group", draft->groups->items[n]);
                                return false;
                        }
        } else if (!user->name || getgrouplist(user->name, user->spawn.gid, groups, &n) < 0) {
                groups[0] = user->spawn.gid;
                n = 1;
        }
        kept = config_arena_new(&loader->users, (size_t) n * sizeof(*kept));
        if (!kept) {
                loader->no_memory = true;
                return true;
        }
        memcpy(kept, groups, (size_t) n * sizeof(*kept));
        user->spawn.groups = kept;
        user->spawn.n_groups = (size_t) n;
        return true;
}

static bool find(ConfigLoader *loader, const ConfigDraft *draft, ConfigUser *user) {
        if (draft->user && !find_user(loader, draft->user, user))
                return false;
        if (draft->user && !user->name && !draft->group) {
                loader->user_problem = "a user that has only a number needs 'group', too";
                loader->user_problem_key = "user";
                return false;
        }
        if (draft->group && !config_user_group(draft->group, &user->spawn.gid)) {
                problem(loader, "group", "group", draft->group);
                return false;
        }
        return find_groups(loader, draft, user);
}

static char *key_of(ConfigLoader *loader, const ConfigDraft *draft) {
        char *key = config_arena_print(&loader->arena, "%s:%s:", draft->user ? draft->user : "",
                                       draft->group ? draft->group : "");

        for (unsigned i = 0; key && draft->groups && i < draft->groups->n; i++)
                key = config_arena_print(&loader->arena, "%s%s:", key, draft->groups->items[i]);
        loader->no_memory |= !key;
        return key;
}

/* look_up() - fills what the loader keeps of the last user. */
static void look_up(ConfigLoader *loader, const ConfigDraft *draft, char *key) {
        ConfigUser *user;

        config_arena_deinit(&loader->users);
        loader->user_problem = NULL;
        loader->user_key = key;
        loader->user = user = config_arena_new(&loader->users, sizeof(*user));
        if (!user) {
                loader->no_memory = true;
                return;
        }
        user->spawn = (SpawnUser){ .uid = geteuid(), .gid = getegid() };
        if (!find(loader, draft, user))
                user->unresolved = loader->user_problem;
        else if (user->spawn.uid == geteuid() && user->spawn.gid == getegid() && !draft->groups && geteuid() != 0)
                loader->user = NULL; /* nothing would change, and to ask for it needs a privilege */
}

/* report() - where it was said: by the runner, or, then only once, by the defaults. */
static void report(ConfigLoader *loader, const RawRunner *raw) {
        const ConfigDocument *document = loader->document;
        char path[CONFIG_PATH_SIZE];

        if (raw->user || raw->group || raw->groups.n > 0) {
                config_fail(loader, loader->user_problem_key, "%s", loader->user_problem);
                return;
        }
        if (loader->defaults_reported)
                return;
        loader->defaults_reported = true;
        memcpy(path, loader->path, sizeof(path));
        loader->document = loader->defaults;
        memcpy(loader->path, "defaults", sizeof("defaults"));
        config_fail(loader, loader->user_problem_key, "%s", loader->user_problem);
        loader->document = document;
        memcpy(loader->path, path, sizeof(path));
}

void config_user_resolve(ConfigLoader *loader, ConfigDraft *draft, const RawRunner *raw) {
        char *key;

        if (!draft->user && !draft->group && !draft->groups)
                return;
        key = key_of(loader, draft);
        if (!key)
                return;
        if (!loader->user_key || strcmp(loader->user_key, key) != 0)
                look_up(loader, draft, key);
        if (loader->user_problem && !(loader->flags & CONFIG_LOAD_AGAIN))
                report(loader, raw);
        draft->config.user = loader->user;
}
