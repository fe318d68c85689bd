/* The life of a pool: closing, terminating, joining; results that outlive it; forks of its process. */
#include "check.h"

static int32_t my_pid(void *userdata, const void *input, size_t size, rp_output *output) {
    int64_t pid = getpid();
    (void)userdata;
    (void)input;
    (void)size;
    return rp_output_write(output, &pid, sizeof pid);
}

static void order(void) {
    rp_pool *pool = start(1);
    rp_async *later[10];
    rp_result *result = NULL;
    int32_t ms = 20;
    int n;
    for (n = 0; n < 10; n++) {
        later[n] = NULL;
        CHECK_OK(rp_apply_async(pool, "nap", &ms, sizeof ms, NULL, &later[n]));
    }
    CHECK_STATUS(rp_pool_join(pool), RP_STILL_RUNNING);
    CHECK_OK(rp_pool_close(pool));
    CHECK_OK(rp_pool_close(pool));
    CHECK_STATUS(rp_apply(pool, "nap", &ms, sizeof ms, &result), RP_CLOSED);
    CHECK_OK(rp_pool_join(pool));
    CHECK_OK(rp_pool_join(pool));
    rp_pool_free(&pool);
    for (n = 0; n < 10; n++) { /* all that was submitted has been done */
        CHECK_OK(rp_async_get(later[n], 0, &result));
        rp_result_free(&result);
        rp_async_free(&later[n]);
    }
    pool = start(1);
    ms = 10000;
    for (n = 0; n < 10; n++) {
        CHECK_OK(rp_apply_async(pool, "nap", &ms, sizeof ms, NULL, &later[n]));
    }
    CHECK_OK(rp_pool_terminate(pool));
    CHECK_STATUS(rp_apply(pool, "nap", &ms, sizeof ms, &result), RP_TERMINATED);
    CHECK_OK(rp_pool_join(pool));
    for (n = 0; n < 10; n++) {
        CHECK_STATUS(rp_async_get(later[n], 0, &result), RP_TERMINATED);
        rp_async_free(&later[n]);
    }
    rp_pool_free(&pool);
}

static void outlive(void) {
    enum { SIZE = 300000 };
    static char bytes[SIZE];
    rp_bytes item = {bytes, SIZE};
    rp_pool *pool = start(2);
    rp_result *result = NULL, *late = NULL;
    rp_results *results = NULL;
    rp_async *later = NULL;
    rp_buffer *buffer = NULL;
    rp_iter *iter = NULL;
    rp_queue *queue = NULL;
    rp_items items = {&item, 1, 0};
    const void *data = NULL;
    size_t size = 0;
    memset(bytes, 'o', SIZE);
    CHECK_OK(rp_apply(pool, "echo", bytes, SIZE, &result));
    CHECK_OK(rp_apply_async(pool, "echo", bytes, SIZE, NULL, &later));
    CHECK_OK(rp_async_wait(later, RP_FOREVER));
    CHECK_OK(rp_map(pool, "echo", &item, 1, 0, &results));
    CHECK_OK(rp_buffer_alloc(pool, SIZE, &buffer));
    CHECK_OK(rp_imap(pool, "echo", rp_items_next, &items, 1, &iter));
    CHECK_OK(rp_queue_new(pool, &queue));
    CHECK_OK(rp_queue_submit(queue, "echo", &item, NULL, 1, NULL));
    rp_pool_free(&pool);
    CHECK(memcmp(result->data, bytes, SIZE) == 0);
    CHECK_OK(rp_async_get(later, RP_FOREVER, &late));
    CHECK(memcmp(late->data, bytes, SIZE) == 0);
    CHECK_OK(rp_results_get(results, 0, &data, &size));
    CHECK(size == SIZE && memcmp(data, bytes, SIZE) == 0);
    memset(buffer->data, 1, SIZE);
    rp_async_free(&later);
    rp_result_free(&late);
    rp_iter_free(&iter);
    rp_queue_free(&queue);
    rp_buffer_free(&buffer);
    rp_results_free(&results);
    rp_result_free(&result);
}

static void replaced(void) {
    rp_options options;
    rp_pool *pool = NULL;
    int64_t pids[7];
    uint32_t living[4];
    size_t size = 0;
    int n, changes = 0;
    default_options(&options);
    options.processes = 1;
    options.max_tasks_per_child = 2;
    CHECK_OK(rp_pool_new(&options, &pool));
    for (n = 0; n < 7; n++) {
        CHECK_OK(rp_apply_into(pool, "my pid", NULL, 0, &pids[n], sizeof pids[n], &size));
        CHECK(pids[n] != getpid());
        changes += n > 0 && pids[n] != pids[n - 1];
    }
    CHECK(changes == 3);
    rp_pool_free(&pool);
    pool = start(3);
    CHECK_OK(rp_pool_worker_pids(pool, living, 2, &size));
    CHECK(size == 3 && living[0] != living[1]);
    CHECK_OK(rp_pool_worker_pids(pool, NULL, 0, &size));
    CHECK(size == 3);
    CHECK(kill((pid_t)living[0], SIGKILL) == 0);
    CHECK_OK(rp_apply_into(pool, "my pid", NULL, 0, &pids[0], sizeof pids[0], &size));
    rp_pool_free(&pool);
}

/* A fork of the pool's process: an error, and no crash. */
static void forked(void) {
    rp_pool *pool = start(1);
    rp_result *result = NULL;
    rp_async *later = NULL;
    int32_t ms = 100;
    int status = 0;
    pid_t child;
    CHECK_OK(rp_apply_async(pool, "nap", &ms, sizeof ms, NULL, &later));
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK_STATUS(rp_apply(pool, "nap", &ms, sizeof ms, &result), RP_FORKED);
        CHECK_STATUS(rp_async_get(later, RP_FOREVER, &result), RP_FORKED);
        CHECK_STATUS(rp_pool_join(pool), RP_FORKED);
        rp_async_free(&later);
        rp_pool_free(&pool);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_OK(rp_async_get(later, RP_FOREVER, &result));
    rp_result_free(&result);
    rp_async_free(&later);
    rp_pool_free(&pool);
}

static void hardened(void) {
    rp_options options;
    rp_pool *pool = NULL;
    rp_result *result = NULL;
    static char bytes[5000];
    size_t size;
    default_options(&options);
    options.processes = 2;
    options.hardened = 1;
    options.slots = 16;
    options.patience = 5;
    options.memory_quota = 64 << 20;
    options.memory_reserve = 256 << 20;
    CHECK_OK(rp_pool_new(&options, &pool));
    for (size = 0; size < sizeof bytes; size = 2 * size + 1) {
        memset(bytes, (int)size, size);
        CHECK_OK(rp_apply(pool, "echo", bytes, size, &result));
        CHECK(result->size == size && memcmp(result->data, bytes, size) == 0);
        rp_result_free(&result);
    }
    rp_pool_free(&pool);
}

int main(void) {
    CHECK_OK(rp_register("echo", echo, NULL));
    CHECK_OK(rp_register("nap", nap, NULL));
    CHECK_OK(rp_register("my pid", my_pid, NULL));
    order();
    outlive();
    replaced();
    forked();
    hardened();
    return 0;
}
