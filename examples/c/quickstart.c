/* A call, and an array of numbers:
 *
 *     cc examples/c/quickstart.c $(pkg-config --cflags --libs ringpool) -lm
 */
#include <inttypes.h>
#include <math.h>
#include <ringpool.h>
#include <stdio.h>
#include <stdlib.h>

/* A task: bytes in, bytes out. */
static int32_t add(void *userdata, const void *input, size_t size, rp_output *output) {
    const int64_t *numbers = (const int64_t *)input;
    int64_t sum;
    (void)userdata;
    if (size != 2 * sizeof *numbers) {
        return rp_output_fail(output, 1, "two numbers, please");
    }
    sum = numbers[0] + numbers[1];
    return rp_output_write(output, &sum, sizeof sum);
}

/* A task for arrays: called once for each chunk. */
static int32_t roots(void *userdata, const void *items, size_t count, void *results, rp_output *output) {
    size_t n;
    (void)userdata;
    (void)output;
    for (n = 0; n < count; n++) {
        ((double *)results)[n] = sqrt(((const double *)items)[n]);
    }
    return 0;
}

static void check(rp_status status) {
    if (status != RP_OK) {
        fprintf(stderr, "%s\n", rp_last_error()->text);
        exit(1);
    }
}

int main(void) {
    static double numbers[1000001], results[1000001];
    int64_t pair[2] = {10, 20};
    rp_pool *pool = NULL;
    rp_result *sum = NULL;
    size_t n;

    /* Workers are forks: they know what is registered before the pool starts. */
    check(rp_register("add", add, NULL));
    check(rp_register_array("roots", sizeof(double), sizeof(double), roots, NULL));
    check(rp_pool_new(NULL, &pool));

    check(rp_apply(pool, "add", pair, sizeof pair, &sum));
    printf("%" PRId64 " + %" PRId64 " = %" PRId64 "\n", pair[0], pair[1], *(const int64_t *)sum->data);
    rp_result_free(&sum);

    for (n = 0; n <= 1000000; n++) {
        numbers[n] = (double)n;
    }
    check(rp_map_array(pool, "roots", numbers, 1000001, sizeof(double), 0, results, sizeof(double)));
    printf("the root of %.0f is %.0f\n", numbers[1000000], results[1000000]);

    check(rp_pool_close(pool));
    check(rp_pool_join(pool));
    rp_pool_free(&pool);
    return 0;
}
