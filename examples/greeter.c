/* SPDX-License-Identifier: Apache-2.0 */

/* A whole runner: baton call --exec ./greeter -- greet.Greeter/Greet */
#include <baton/runner.h>
#include <stdio.h>

static void greet(struct baton_call *call, void *userdata) {
        char text[100];
        int size = snprintf(text, sizeof(text), "Hello from instance %llu!",
                            (unsigned long long) baton_runner_instance(baton_call_runner(call)));

        (void) userdata;
        baton_call_answer(call, "", text, (size_t) size);
}

int main(void) {
        struct baton_runner *runner;
        int r = baton_runner_new(&runner, NULL);

        if (r == 0)
                r = baton_runner_add_method(runner, "greet.Greeter/Greet", greet, NULL);
        if (r == 0)
                r = baton_runner_run(runner);
        baton_runner_free(runner);
        return r < 0 ? 1 : 0;
}
