/* Workers that are run anew: this program's own file, and a command line of it. */
#include "check.h"

static char mode[32] = "none";

static int32_t say_mode(void *userdata, const void *input, size_t size, rp_output *output) {
    (void)userdata;
    (void)input;
    (void)size;
    return rp_output_write(output, mode, strlen(mode));
}

static int32_t set_mode(void *userdata, const void *input, size_t size, rp_output *output) {
    (void)userdata;
    (void)output;
    if (size >= sizeof mode) {
        return 1;
    }
    memcpy(mode, input, size);
    mode[size] = 0;
    return 0;
}

static void run(uint32_t method, const char *const *command, const char *initializer, const char *expected) {
    rp_options options;
    rp_pool *pool = NULL;
    rp_result *result = NULL;
    double numbers[] = {4, 9}, roots[2];
    default_options(&options);
    options.processes = 2;
    options.start_method = method;
    options.command = command;
    options.initializer = initializer;
    options.initializer_input = "initialized";
    options.initializer_size = 11;
    CHECK_OK(rp_pool_new(&options, &pool));
    CHECK_OK(rp_apply(pool, "say mode", NULL, 0, &result));
    if (result->size != strlen(expected) || memcmp(result->data, expected, result->size) != 0) {
        fprintf(stderr, "method %u: %.*s, not %s\n", method, (int)result->size, (const char *)result->data, expected);
        exit(1);
    }
    rp_result_free(&result);
    CHECK_OK(rp_map_array(pool, "roots", numbers, 2, 8, 1, roots, 8));
    CHECK(roots[0] == 2 && roots[1] == 3);
    CHECK_STATUS(rp_apply(pool, "parent only", NULL, 0, &result), method == RP_START_FORK ? RP_OK : RP_UNKNOWN_TASK);
    rp_result_free(&result);
    finish(&pool);
}

int main(int argc, char **argv) {
    char path[4096];
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - 1);
    const char *command[] = {path, "by command", NULL};
    uint32_t method;
    CHECK(len > 0);
    path[len] = 0;
    if (argc > 1) {
        snprintf(mode, sizeof mode, "%s", argv[1]);
    }
    CHECK_OK(rp_register("say mode", say_mode, NULL));
    CHECK_OK(rp_register("set mode", set_mode, NULL));
    CHECK_OK(rp_register_array("roots", 8, 8, square_roots, NULL));
    rp_worker_main_if_worker();
    CHECK(argc == 1);
    CHECK_OK(rp_register("parent only", say_mode, NULL));
    snprintf(mode, sizeof mode, "forked");
    for (method = RP_START_FORK; method <= RP_START_FORKSERVER; method++) {
        run(method, NULL, NULL, method == RP_START_FORK ? "forked" : "none");
        run(method, NULL, "set mode", "initialized");
        if (method != RP_START_FORK) {
            run(method, command, NULL, "by command");
        }
    }
    return 0;
}
