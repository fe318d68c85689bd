/* Four threads at once on one pool, one queue and one iterator. */
#include "check.h"

enum { THREADS = 4, ROUNDS = 300 };

static int64_t one = 1;
static rp_pool *pool;
static rp_queue *queue;
static rp_iter *iter;
static int64_t taken[THREADS], seen[THREADS];

static int32_t next_number(void *userdata, rp_bytes *item) {
    int64_t *number = (int64_t *)userdata;
    if (*number == 2000) {
        return 0;
    }
    ++*number;
    item->data = number;
    item->size = sizeof *number;
    return 1;
}

static void *work(void *argument) {
    int64_t me = (int64_t)(intptr_t)argument, n;
    static char big[THREADS][20000];
    memset(big[me], (int)me, sizeof big[me]);
    for (n = 0; n < ROUNDS; n++) {
        int64_t number = me * 1000000 + n, sum = 0;
        size_t size = 0;
        rp_async *later = NULL;
        rp_result *result = NULL;
        rp_bytes item = {&number, sizeof number};
        CHECK_OK(rp_queue_submit(queue, "add", &item, NULL, 1, NULL));
        CHECK_OK(rp_apply_into(pool, "add", &number, sizeof number, &sum, sizeof sum, &size));
        CHECK(sum == number + 1);
        CHECK_OK(rp_apply_async(pool, "echo", big[me], sizeof big[me], NULL, &later));
        CHECK_STATUS(rp_apply(pool, "nobody", "x", 1, &result), RP_UNKNOWN_TASK);
        CHECK(strstr(last_text(), "nobody") != NULL);
        CHECK_OK(rp_async_get(later, RP_FOREVER, &result));
        rp_async_free(&later);
        CHECK(result->size == sizeof big[me] && memcmp(result->data, big[me], result->size) == 0);
        rp_result_free(&result);
    }
    for (;;) {
        rp_results *results = NULL;
        rp_status status = rp_queue_take(queue, 3, RP_FOREVER, &results);
        if (status == RP_END) {
            break;
        }
        CHECK_STATUS(status, RP_OK);
        taken[me] += (int64_t)rp_results_count(results);
        rp_results_free(&results);
    }
    for (;;) {
        rp_result *result = NULL;
        rp_status status = rp_iter_next(iter, RP_FOREVER, &result);
        if (status == RP_END) {
            break;
        }
        CHECK_STATUS(status, RP_OK);
        seen[me] += *(const int64_t *)result->data;
        rp_result_free(&result);
    }
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    int64_t source = 0, all = 0, sum = 0;
    int n;
    CHECK_OK(rp_register("add", add_to_each, &one));
    CHECK_OK(rp_register("echo", echo, NULL));
    pool = start(2);
    CHECK_OK(rp_queue_new(pool, &queue));
    CHECK_OK(rp_imap_unordered(pool, "add", next_number, &source, 1, &iter));
    for (n = 0; n < THREADS; n++) {
        CHECK(pthread_create(&threads[n], NULL, work, (void *)(intptr_t)n) == 0);
    }
    for (n = 0; n < THREADS; n++) {
        CHECK(pthread_join(threads[n], NULL) == 0);
        all += taken[n];
        sum += seen[n];
    }
    CHECK(all == THREADS * ROUNDS);
    CHECK(sum == 2000LL * 2001 / 2 + 2000);
    rp_queue_free(&queue);
    rp_iter_free(&iter);
    rp_pool_free(&pool);
    return 0;
}
