/* Five sums at once: the results come in the order in which they are asked for. */
#include "check.h"

typedef struct sum_args {
    char task[16];
    int64_t a, b;
} sum_args;

static int32_t sum(void *userdata, const void *input, size_t size, rp_output *output) {
    const sum_args *args = (const sum_args *)input;
    int64_t result;
    long tenths = 1 + (long)(getpid() % 4);
    (void)userdata;
    if (size != sizeof *args) {
        return rp_output_fail(output, 1, "these are no arguments of sum");
    }
    printf("%s requires %ld tenths of a second to finish\n", args->task, tenths);
    fflush(stdout);
    pause_ms(100 * tenths);
    result = args->a + args->b;
    return rp_output_write(output, &result, sizeof result);
}

int main(void) {
    rp_pool *pool;
    rp_async *results[5] = {NULL, NULL, NULL, NULL, NULL};
    int64_t expected[5] = {30, 50, 70, 90, 110};
    int n;

    CHECK_OK(rp_register("sum", sum, NULL));
    pool = start(5);
    for (n = 0; n < 5; n++) {
        sum_args args;
        memset(&args, 0, sizeof args);
        snprintf(args.task, sizeof args.task, "task%d", n + 1);
        args.a = 10 * (n + 1);
        args.b = 10 * (n + 2);
        CHECK_OK(rp_apply_async(pool, "sum", &args, sizeof args, NULL, &results[n]));
    }
    printf("Submitted tasks to pool\n");
    for (n = 0; n < 5; n++) {
        rp_result *result = NULL;
        CHECK_OK(rp_async_get(results[n], RP_FOREVER, &result));
        CHECK(result->size == sizeof(int64_t));
        printf("%" PRId64 "\n", *(const int64_t *)result->data);
        CHECK(*(const int64_t *)result->data == expected[n]);
        rp_result_free(&result);
        rp_async_free(&results[n]);
    }
    finish(&pool);
    return 0;
}
