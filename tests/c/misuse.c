/* Uses that are wrong in ways that look right: each has a status of its own, and none hangs or writes where it should not. */
#include "check.h"

static int32_t copy_items(void *userdata, const void *items, size_t count, void *results, rp_output *output) {
    (void)userdata;
    if (rp_output_write(output, "x", 1) != RP_INVALID || strstr(last_text(), "their place") == NULL) {
        return 2;
    }
    memcpy(results, items, count * 8);
    return 0;
}

/* Two tasks for arrays of other sizes are not the same task. */
static void registering(void) {
    CHECK_OK(rp_register_array("copy", 8, 8, copy_items, NULL));
    CHECK_OK(rp_register_array("copy", 8, 8, copy_items, NULL));
    CHECK_STATUS(rp_register_array("copy", 4, 16, copy_items, NULL), RP_INVALID);
}

static void overlapping(rp_pool *pool) {
    int64_t numbers[64], others[64];
    int n;
    for (n = 0; n < 64; n++) {
        numbers[n] = n;
    }
    CHECK_STATUS(rp_map_array(pool, "copy", numbers, 64, 8, 0, numbers, 8), RP_INVALID);
    CHECK_STATUS(rp_map_array(pool, "copy", numbers, 32, 8, 0, numbers + 31, 8), RP_INVALID);
    CHECK_OK(rp_map_array(pool, "copy", numbers, 32, 8, 0, numbers + 32, 8));
    CHECK_OK(rp_map_array(pool, "copy", numbers, 64, 8, 0, others, 8));
    CHECK(memcmp(numbers, others, sizeof numbers) == 0 && numbers[63] == 31);
}

static rp_iter *own;
static rp_status nested;

static int32_t asks_itself(void *userdata, rp_bytes *item) {
    int *left = (int *)userdata;
    rp_result *result = NULL;
    if (own != NULL && nested == RP_OK) {
        nested = rp_iter_next(own, RP_FOREVER, &result);
    }
    item->data = left;
    item->size = sizeof *left;
    return (*left)-- > 0;
}

static void iterators(rp_pool *pool) {
    rp_items nothing = {NULL, 5, 0};
    rp_iter *iter = NULL;
    rp_result *result = NULL;
    int left = 100, come = 0;
    CHECK_OK(rp_imap(pool, "echo", rp_items_next, &nothing, 0, &iter));
    CHECK_STATUS(rp_iter_next(iter, RP_FOREVER, &result), RP_INPUT_FAILED);
    rp_iter_free(&iter);
    CHECK_OK(rp_imap(pool, "echo", rp_items_next, NULL, 0, &iter));
    CHECK_STATUS(rp_iter_next(iter, RP_FOREVER, &result), RP_INPUT_FAILED);
    rp_iter_free(&iter);

    CHECK_OK(rp_imap(pool, "echo", asks_itself, &left, 0, &own));
    while (rp_iter_next(own, RP_FOREVER, &result) == RP_OK) {
        rp_result_free(&result);
        come++;
    }
    CHECK(come == 100 && nested == RP_INVALID);
    rp_iter_free(&own);
}

static rp_iter *shared;
static volatile int begun;

static void *waits(void *argument) {
    rp_result *result = NULL;
    (void)argument;
    begun = 1;
    CHECK_OK(rp_iter_next(shared, RP_FOREVER, &result));
    rp_result_free(&result);
    return NULL;
}

/* Who looks does not wait for another thread that waits. */
static void looking(rp_pool *pool) {
    int32_t ms = 1000;
    rp_bytes item = {&ms, sizeof ms};
    rp_items items = {&item, 1, 0};
    rp_result *result = NULL;
    pthread_t thread;
    CHECK_OK(rp_imap(pool, "nap", rp_items_next, &items, 0, &shared));
    CHECK(pthread_create(&thread, NULL, waits, NULL) == 0);
    while (!begun) {
        pause_ms(1);
    }
    CHECK_STATUS(rp_iter_next(shared, 0, &result), RP_TIMEOUT);
    CHECK_STATUS(rp_iter_next(shared, 0.01, &result), RP_TIMEOUT);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_STATUS(rp_iter_next(shared, 0, &result), RP_END);
    rp_iter_free(&shared);
}

static void queues(rp_pool *pool) {
    rp_queue *queue = NULL;
    rp_bytes item = {"x", 1};
    rp_results *results = NULL;
    size_t submitted = 777;
    uint64_t tag = 0;
    CHECK_OK(rp_queue_new(pool, &queue));
    CHECK_STATUS(rp_queue_submit(queue, "", &item, NULL, 1, &submitted), RP_INVALID);
    CHECK(submitted == 0);
    rp_queue_free(&queue);
    CHECK_OK(rp_map(pool, "echo", &item, 1, 0, &results));
    CHECK_STATUS(rp_results_tag(results, 0, &tag), RP_INVALID);
    CHECK(strstr(last_text(), "not from a queue") != NULL);
    CHECK_STATUS(rp_results_tag(results, 1, &tag), RP_INVALID);
    CHECK(strstr(last_text(), "no result 1") != NULL);
    rp_results_free(&results);
}

/* A map of which nothing is left to take back has nothing cancelled, however much of it ends meanwhile. */
static void cancelling(rp_pool *pool) {
    int64_t numbers[200] = {0};
    int n;
    for (n = 0; n < 300; n++) {
        rp_async *later = NULL;
        bool cancelled = false, successful = false;
        CHECK_OK(rp_map_array_async(pool, "copy", numbers, 200, 8, 1, NULL, &later));
        CHECK_OK(rp_async_cancel(later, &cancelled));
        CHECK_OK(rp_async_wait(later, RP_FOREVER));
        CHECK_OK(rp_async_successful(later, &successful));
        CHECK(successful == !cancelled);
        rp_async_free(&later);
    }
}

/* In a fork, what belongs to the parent's pool is refused, at once. */
static void forked(rp_pool *pool) {
    int32_t ms = 300;
    int status = 0;
    bool flag = false;
    size_t count = 0;
    uint32_t pid = 0;
    rp_buffer *buffer = NULL;
    rp_async *later = NULL, *other = NULL;
    pid_t child;
    CHECK_OK(rp_buffer_alloc(pool, 64, &buffer));
    CHECK_OK(rp_apply_async(pool, "nap", &ms, sizeof ms, NULL, &later));
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK_STATUS(rp_map_buffer_async(pool, "copy", buffer, 8, 0, NULL, &other), RP_FORKED);
        CHECK_STATUS(rp_apply_buffer_async(pool, "echo", buffer, 8, NULL, &other), RP_FORKED);
        CHECK_STATUS(rp_async_wait(later, RP_FOREVER), RP_FORKED);
        CHECK_STATUS(rp_async_successful(later, &flag), RP_FORKED);
        CHECK_STATUS(rp_async_cancel(later, &flag), RP_FORKED);
        CHECK_STATUS(rp_pool_close(pool), RP_FORKED);
        CHECK_STATUS(rp_pool_terminate(pool), RP_FORKED);
        CHECK_STATUS(rp_pool_worker_pids(pool, &pid, 1, &count), RP_FORKED);
        rp_buffer_free(&buffer);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_OK(rp_async_wait(later, RP_FOREVER));
    rp_async_free(&later);
    rp_buffer_free(&buffer);
}

int main(void) {
    rp_pool *pool;
    CHECK_OK(rp_register("echo", echo, NULL));
    CHECK_OK(rp_register("nap", nap, NULL));
    registering();
    pool = start(2);
    overlapping(pool);
    iterators(pool);
    looking(pool);
    queues(pool);
    cancelling(pool);
    forked(pool);
    rp_pool_free(&pool);
    return 0;
}
