/* The same with an initializer: each worker runs it before its first task. */
#include "check.h"

static int32_t initialized_with = -1;

static int32_t init_pool(void *userdata, const void *input, size_t size, rp_output *output) {
    (void)userdata;
    (void)output;
    if (size != sizeof initialized_with) {
        return 1;
    }
    memcpy(&initialized_with, input, size);
    printf("Initializing pool with %d processes\n", (int)initialized_with);
    fflush(stdout);
    return 0;
}

static int32_t sum(void *userdata, const void *input, size_t size, rp_output *output) {
    const int64_t *numbers = (const int64_t *)input;
    int64_t result;
    (void)userdata;
    (void)size;
    if (initialized_with != 5) {
        return rp_output_fail(output, 2, "the initializer has not run in this worker");
    }
    pause_ms(50);
    result = numbers[0] + numbers[1];
    return rp_output_write(output, &result, sizeof result);
}

static int32_t no_init(void *userdata, const void *input, size_t size, rp_output *output) {
    (void)userdata;
    (void)input;
    (void)size;
    return rp_output_fail(output, 9, "this initializer always fails");
}

int main(void) {
    rp_options options;
    rp_pool *pool = NULL;
    rp_async *results[5] = {NULL, NULL, NULL, NULL, NULL};
    rp_result *result = NULL;
    int32_t processes = 5;
    int n;

    CHECK_OK(rp_register("init_pool", init_pool, NULL));
    CHECK_OK(rp_register("no_init", no_init, NULL));
    CHECK_OK(rp_register("sum", sum, NULL));
    default_options(&options);
    options.processes = 5;
    options.initializer = "init_pool";
    options.initializer_input = &processes;
    options.initializer_size = sizeof processes;
    CHECK_OK(rp_pool_new(&options, &pool));
    for (n = 0; n < 5; n++) {
        int64_t numbers[2] = {10 * (n + 1), 10 * (n + 2)};
        CHECK_OK(rp_apply_async(pool, "sum", numbers, sizeof numbers, NULL, &results[n]));
    }
    printf("Submitted tasks to pool\n");
    for (n = 0; n < 5; n++) {
        CHECK_OK(rp_async_get(results[n], RP_FOREVER, &result));
        printf("%" PRId64 "\n", *(const int64_t *)result->data);
        CHECK(*(const int64_t *)result->data == 30 + 20 * n);
        rp_result_free(&result);
        rp_async_free(&results[n]);
    }
    rp_pool_free(&pool);

    /* One that fails ends the pool, and every call says so. */
    options.processes = 1;
    options.initializer = "no_init";
    CHECK_OK(rp_pool_new(&options, &pool));
    CHECK_STATUS(rp_apply(pool, "sum", NULL, 0, &result), RP_INITIALIZER_FAILED);
    CHECK(strstr(last_text(), "always fails") != NULL);
    CHECK(result == NULL);
    rp_pool_free(&pool);
    return 0;
}
