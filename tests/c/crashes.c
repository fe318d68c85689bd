/* Tasks that kill their worker: that call fails and says how, everything else goes on. */
#include "check.h"

static int32_t dies(void *userdata, const void *input, size_t size, rp_output *output) {
    volatile int *nowhere = NULL;
    (void)userdata;
    switch (size > 0 ? *(const char *)input : 0) {
    case 'a':
        abort();
    case 'n':
        *nowhere = 1;
        break;
    case 'e':
        _exit(7);
    case 'k':
        raise(SIGKILL);
        break;
    default:
        break;
    }
    return rp_output_write(output, input, size);
}

static int32_t array_dies(void *userdata, const void *items, size_t count, void *results, rp_output *output) {
    size_t at;
    (void)userdata;
    (void)output;
    for (at = 0; at < count; at++) {
        if (((const int64_t *)items)[at] == 13) {
            abort();
        }
        ((int64_t *)results)[at] = -((const int64_t *)items)[at];
    }
    return 0;
}

static void singles(rp_pool *pool) {
    const char *how[] = {"abort", "null", "exit", "kill"};
    int signals[] = {SIGABRT, SIGSEGV, 0, SIGKILL};
    const char *names[] = {"SIGABRT", "SIGSEGV", "exit code 7", "SIGKILL"};
    rp_result *result = NULL;
    int n, round;
    for (round = 0; round < 2; round++) {
        for (n = 0; n < 4; n++) {
            const rp_error *error;
            CHECK_STATUS(rp_apply(pool, "dies", how[n], strlen(how[n]), &result), RP_WORKER_DIED);
            CHECK(result == NULL);
            error = rp_last_error();
            CHECK(error->signal == signals[n]);
            CHECK(error->exit_code == (n == 2 ? 7 : -1));
            CHECK(error->pid > 1 && error->pid != (uint32_t)getpid());
            CHECK(strstr(error->text, names[n]) != NULL && strstr(error->text, "dies") != NULL);
            CHECK_OK(rp_apply(pool, "dies", "live", 4, &result));
            rp_result_free(&result);
        }
    }
}

static void maps(rp_pool *pool) {
    rp_bytes items[9];
    const char *words[] = {"x", "y", "abort", "z", "null", "", "x", "kill", "x"};
    int64_t numbers[1000], negatives[1000];
    rp_async *later = NULL;
    rp_results *results = NULL;
    int n;
    for (n = 0; n < 9; n++) {
        items[n].data = words[n];
        items[n].size = strlen(words[n]);
    }
    CHECK_OK(rp_map_async(pool, "dies", items, 9, 9, NULL, &later));
    CHECK_OK(rp_async_results(later, RP_FOREVER, &results));
    for (n = 0; n < 9; n++) {
        bool dead = n == 2 || n == 4 || n == 7;
        CHECK_STATUS(rp_results_get(results, (size_t)n, NULL, NULL), dead ? RP_WORKER_DIED : RP_OK);
        CHECK(!dead || rp_last_error()->signal == (n == 2 ? SIGABRT : n == 4 ? SIGSEGV : SIGKILL));
    }
    rp_results_free(&results);
    rp_async_free(&later);
    for (n = 0; n < 1000; n++) {
        numbers[n] = n;
    }
    CHECK_OK(rp_map_array_async(pool, "array dies", numbers, 1000, sizeof *numbers, 100, NULL, &later));
    CHECK_OK(rp_async_results(later, RP_FOREVER, &results));
    for (n = 0; n < 1000; n++) {
        CHECK_STATUS(rp_results_get(results, (size_t)n, NULL, NULL), n < 100 ? RP_WORKER_DIED : RP_OK);
    }
    rp_results_free(&results);
    rp_async_free(&later);
    CHECK_STATUS(rp_map_array(pool, "array dies", numbers, 1000, 8, 100, negatives, 8), RP_WORKER_DIED);
    CHECK(rp_last_error()->signal == SIGABRT);
}

/* Dies in its first run. The file says whether it has run. */
static int32_t dies_once(void *userdata, const void *input, size_t size, rp_output *output) {
    const char *path = (const char *)input;
    FILE *file = fopen(path, "r");
    (void)userdata;
    if (file == NULL) {
        file = fopen(path, "w");
        if (file != NULL) {
            fclose(file);
        }
        raise(SIGKILL);
    }
    fclose(file);
    return rp_output_write(output, input, size);
}

static void retries(void) {
    rp_options options;
    rp_pool *pool = NULL;
    rp_result *result = NULL;
    char path[100];
    snprintf(path, sizeof path, "/tmp/ringpool-c-%ld", (long)getpid());
    default_options(&options);
    options.processes = 1;
    options.retries = 1;
    CHECK_OK(rp_pool_new(&options, &pool));
    CHECK_OK(rp_apply(pool, "dies once", path, strlen(path) + 1, &result));
    rp_result_free(&result);
    unlink(path);
    CHECK_STATUS(rp_apply(pool, "dies", "k", 1, &result), RP_WORKER_DIED);
    CHECK(strstr(last_text(), "attempt 2") != NULL);
    rp_pool_free(&pool);
}

int main(void) {
    rp_pool *pool;
    CHECK_OK(rp_register("dies", dies, NULL));
    CHECK_OK(rp_register("dies once", dies_once, NULL));
    CHECK_OK(rp_register_array("array dies", 8, 8, array_dies, NULL));
    pool = start(2);
    singles(pool);
    maps(pool);
    rp_pool_free(&pool);
    retries();
    return 0;
}
