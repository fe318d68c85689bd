/* Every way to call a task. */
#include "check.h"

static int64_t ten = 10;

static void applies(rp_pool *pool) {
    static unsigned char bytes[3000000];
    size_t sizes[] = {0, 1, 8, 9, 24, 32, 33, 40, 41, 512, 5000, 1048576, sizeof bytes};
    size_t at, written = 77;
    unsigned char small[8];
    int64_t number = 32;
    for (at = 0; at < sizeof bytes; at++) {
        bytes[at] = (unsigned char)(at * 7 % 251);
    }
    for (at = 0; at < sizeof sizes / sizeof *sizes; at++) {
        rp_result *result = NULL;
        rp_async *later = NULL;
        CHECK_OK(rp_apply(pool, "echo", bytes, sizes[at], &result));
        CHECK(result->data != NULL && result->size == sizes[at]);
        CHECK(memcmp(result->data, bytes, sizes[at]) == 0);
        CHECK((uintptr_t)result->data % (sizes[at] > 8 ? 16 : 8) == 0);
        rp_result_free(&result);
        CHECK(result == NULL);
        CHECK_OK(rp_apply_async(pool, "echo", bytes, sizes[at], NULL, &later));
        CHECK_OK(rp_async_wait(later, RP_FOREVER));
        CHECK(rp_async_ready(later));
        CHECK_OK(rp_async_get(later, 0, &result));
        rp_async_free(&later);
        CHECK(result->size == sizes[at] && memcmp(result->data, bytes, sizes[at]) == 0);
        rp_result_free(&result);
    }
    CHECK_OK(rp_apply_into(pool, "add", &number, sizeof number, &number, sizeof number, &written));
    CHECK(number == 42 && written == sizeof number);
    written = 77;
    CHECK_STATUS(rp_apply_into(pool, "echo", bytes, 9, small, 8, &written), RP_TOO_SMALL);
    CHECK(written == 77);
    CHECK_OK(rp_apply_into(pool, "echo", NULL, 0, NULL, 0, &written));
    CHECK(written == 0);
}

static void asyncs(rp_pool *pool) {
    rp_async *later = NULL, *more[40];
    rp_result *result = NULL, *again = NULL;
    int32_t ms = 200;
    bool good = false, cancelled = false;
    int n;
    CHECK_OK(rp_apply_async(pool, "nap", &ms, sizeof ms, NULL, &later));
    CHECK(!rp_async_ready(later));
    CHECK_STATUS(rp_async_get(later, 0, &result), RP_TIMEOUT);
    CHECK_STATUS(rp_async_get(later, 0.01, &result), RP_TIMEOUT);
    CHECK_STATUS(rp_async_wait(later, 0.01), RP_TIMEOUT);
    CHECK_STATUS(rp_async_successful(later, &good), RP_NOT_READY);
    CHECK(result == NULL && !good);
    CHECK_OK(rp_async_get(later, RP_FOREVER, &result));
    CHECK_OK(rp_async_get(later, RP_FOREVER, &again));
    CHECK(memcmp(result->data, &ms, sizeof ms) == 0 && memcmp(again->data, &ms, sizeof ms) == 0);
    CHECK_OK(rp_async_successful(later, &good));
    CHECK(good);
    CHECK_OK(rp_async_cancel(later, &cancelled));
    CHECK(!cancelled);
    rp_async_free(&later);
    rp_result_free(&result);
    rp_result_free(&again);
    /* Two workers cannot have begun all of these. */
    for (n = 0; n < 40; n++) {
        more[n] = NULL;
        CHECK_OK(rp_apply_async(pool, "nap", &ms, sizeof ms, NULL, &more[n]));
    }
    CHECK_OK(rp_async_cancel(more[39], &cancelled));
    CHECK(cancelled);
    CHECK_STATUS(rp_async_get(more[39], RP_FOREVER, &result), RP_CANCELLED);
    for (n = 0; n < 40; n++) {
        CHECK_OK(rp_async_cancel(more[n], NULL));
        rp_async_free(&more[n]);
    }
    /* Nobody waits for this one. */
    CHECK_OK(rp_apply_async(pool, "echo", "x", 1, NULL, NULL));
}

typedef struct called {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int results, errors, maps;
    pthread_t thread;
    rp_status status;
    char text[200];
    double sum;
} called;

static void note(called *calls, int *count) {
    calls->thread = pthread_self();
    ++*count;
    pthread_cond_broadcast(&calls->changed);
    pthread_mutex_unlock(&calls->lock);
}

static void on_result(void *userdata, const void *data, size_t size) {
    called *calls = (called *)userdata;
    pthread_mutex_lock(&calls->lock);
    snprintf(calls->text, sizeof calls->text, "%.*s", (int)size, (const char *)data);
    note(calls, &calls->results);
}

static void on_results(void *userdata, const rp_results *results) {
    called *calls = (called *)userdata;
    size_t at;
    pthread_mutex_lock(&calls->lock);
    calls->sum = 0;
    for (at = 0; at < rp_results_count(results); at++) {
        const void *data = NULL;
        size_t size = 0;
        CHECK_OK(rp_results_get(results, at, &data, &size));
        CHECK(size == sizeof(double));
        calls->sum += *(const double *)data;
    }
    note(calls, &calls->maps);
}

static void on_error(void *userdata, const rp_error *error) {
    called *calls = (called *)userdata;
    pthread_mutex_lock(&calls->lock);
    calls->status = error->status;
    snprintf(calls->text, sizeof calls->text, "%s", error->text);
    note(calls, &calls->errors);
}

static void await(called *calls, const int *count, int expected) {
    pthread_mutex_lock(&calls->lock);
    while (*count < expected) {
        pthread_cond_wait(&calls->changed, &calls->lock);
    }
    pthread_mutex_unlock(&calls->lock);
}

static void callbacks(rp_pool *pool) {
    called calls;
    rp_callbacks callbacks;
    rp_async *later = NULL;
    pthread_t thread;
    double numbers[] = {1, 4, 9, 16}, negative = -1;
    memset(&calls, 0, sizeof calls);
    pthread_mutex_init(&calls.lock, NULL);
    pthread_cond_init(&calls.changed, NULL);
    memset(&callbacks, 0, sizeof callbacks);
    callbacks.size = sizeof callbacks;
    callbacks.userdata = &calls;
    callbacks.result = on_result;
    callbacks.results = on_results;
    callbacks.error = on_error;
    CHECK_OK(rp_apply_async(pool, "echo", "hello", 5, &callbacks, NULL));
    await(&calls, &calls.results, 1);
    CHECK(strcmp(calls.text, "hello") == 0);
    thread = calls.thread;
    CHECK(!pthread_equal(thread, pthread_self()));
    CHECK_OK(rp_apply_async(pool, "no such task", "hello", 5, &callbacks, &later));
    await(&calls, &calls.errors, 1);
    CHECK(calls.status == RP_UNKNOWN_TASK && strstr(calls.text, "no such task") != NULL);
    rp_async_free(&later);
    CHECK_OK(rp_map_array_async(pool, "roots", numbers, 4, sizeof *numbers, 2, &callbacks, NULL));
    await(&calls, &calls.maps, 1);
    CHECK(calls.sum == 10);
    CHECK(pthread_equal(thread, calls.thread));
    CHECK_OK(rp_map_array_async(pool, "roots", &negative, 1, sizeof negative, 0, &callbacks, NULL));
    await(&calls, &calls.errors, 2);
    CHECK(calls.status == RP_TASK_FAILED);
    pthread_mutex_destroy(&calls.lock);
    pthread_cond_destroy(&calls.changed);
}

static void maps(rp_pool *pool) {
    enum { ITEMS = 300 };
    static char text[ITEMS][40];
    rp_bytes items[ITEMS];
    rp_results *results = NULL;
    rp_async *later = NULL;
    const void *data = NULL;
    size_t at, size = 0, chunk, chunks[] = {0, 1, 7, 1000};
    bool good = false;
    for (at = 0; at < ITEMS; at++) {
        snprintf(text[at], sizeof text[at], "%0*d", (int)(at % 35) + 1, (int)at);
        items[at].data = text[at];
        items[at].size = strlen(text[at]);
    }
    for (chunk = 0; chunk < sizeof chunks / sizeof *chunks; chunk++) {
        CHECK_OK(rp_map(pool, "echo", items, ITEMS, chunks[chunk], &results));
        CHECK(rp_results_count(results) == ITEMS);
        for (at = 0; at < ITEMS; at++) {
            CHECK_OK(rp_results_get(results, at, &data, &size));
            CHECK(size == items[at].size && memcmp(data, text[at], size) == 0);
        }
        CHECK_STATUS(rp_results_get(results, ITEMS, &data, &size), RP_INVALID);
        rp_results_free(&results);
    }
    CHECK_OK(rp_map(pool, "echo", NULL, 0, 0, &results));
    CHECK(rp_results_count(results) == 0);
    rp_results_free(&results);
    /* One that fails. */
    items[5].size = 0;
    CHECK_STATUS(rp_map(pool, "no empty", items, 10, 4, &results), RP_TASK_FAILED);
    CHECK(results == NULL && rp_last_error()->task_code == 12);
    CHECK_OK(rp_map_async(pool, "no empty", items, 10, 4, NULL, &later));
    CHECK_OK(rp_async_results(later, RP_FOREVER, &results));
    CHECK_OK(rp_async_successful(later, &good));
    CHECK(!good && rp_async_ready(later));
    for (at = 0; at < 10; at++) {
        CHECK_STATUS(rp_results_get(results, at, &data, &size), at == 5 ? RP_TASK_FAILED : RP_OK);
    }
    rp_results_free(&results);
    rp_async_free(&later);
}

static void arrays(rp_pool *pool) {
    enum { COUNT = 1000000 };
    static double numbers[COUNT], roots[COUNT];
    rp_async *later = NULL;
    rp_results *results = NULL;
    rp_buffer *buffer = NULL;
    size_t at, run, size;
    const void *data;
    int round;
    for (at = 0; at < COUNT; at++) {
        numbers[at] = (double)at * (double)at;
    }
    CHECK_OK(rp_map_array(pool, "roots", numbers, COUNT, sizeof *numbers, 0, roots, sizeof *roots));
    for (at = 0; at < COUNT; at++) {
        CHECK(roots[at] == (double)at);
    }
    /* The same block, item by item. */
    memset(roots, 0, sizeof roots);
    CHECK_OK(rp_map_array(pool, "echo", numbers, 1000, sizeof *numbers, 0, roots, sizeof *roots));
    CHECK(memcmp(roots, numbers, 1000 * sizeof *roots) == 0);
    /* Without a copy, there and back. */
    CHECK_OK(rp_buffer_alloc(pool, sizeof numbers, &buffer));
    CHECK(buffer->size == sizeof numbers && (uintptr_t)buffer->data % 128 == 0);
    memcpy(buffer->data, numbers, sizeof numbers);
    for (round = 0; round < 2; round++) {
        if (round == 0) {
            CHECK_OK(rp_map_buffer_async(pool, "roots", buffer, sizeof *numbers, 0, NULL, &later));
        } else {
            rp_buffer_free(&buffer); /* not before the tasks are done with it */
            CHECK_OK(rp_map_array_async(pool, "roots", numbers, COUNT, sizeof *numbers, 999, NULL, &later));
        }
        CHECK_OK(rp_async_results(later, RP_FOREVER, &results));
        CHECK(rp_results_count(results) == COUNT);
        for (at = 0; at < COUNT; at += run) {
            size_t n;
            CHECK_OK(rp_results_run(results, at, &data, &run, &size));
            CHECK(run > 0 && size == sizeof(double));
            for (n = 0; n < run; n++) {
                CHECK(((const double *)data)[n] == (double)(at + n));
            }
        }
        rp_results_free(&results);
        rp_async_free(&later);
    }
    /* A chunk with a bad item fails, the others do not. */
    numbers[3] = -1;
    CHECK_STATUS(rp_map_array(pool, "roots", numbers, 10, sizeof *numbers, 2, roots, sizeof *roots), RP_TASK_FAILED);
    CHECK(rp_last_error()->task_code == 33);
    CHECK_OK(rp_map_array_async(pool, "roots", numbers, 10, sizeof *numbers, 2, NULL, &later));
    CHECK_OK(rp_async_results(later, RP_FOREVER, &results));
    for (at = 0; at < 10; at++) {
        rp_status expected = at == 2 || at == 3 ? RP_TASK_FAILED : RP_OK;
        CHECK_STATUS(rp_results_get(results, at, NULL, NULL), expected);
    }
    rp_results_free(&results);
    rp_async_free(&later);
    /* Sizes that do not fit together. */
    CHECK_STATUS(rp_map_array(pool, "roots", numbers, 10, 4, 0, roots, 4), RP_BAD_PAYLOAD);
    CHECK_STATUS(rp_map_array(pool, "echo", numbers, 10, 8, 0, roots, 4), RP_BAD_PAYLOAD);
    CHECK_STATUS(rp_apply_into(pool, "roots", numbers, 9, roots, 16, &size), RP_TASK_FAILED);
    CHECK_OK(rp_apply_into(pool, "roots", numbers, 16, roots, 16, &size));
    CHECK(size == 16 && roots[1] == 1);
}

static void buffers(rp_pool *pool) {
    rp_buffer *buffer = NULL;
    rp_async *later = NULL, *part = NULL;
    rp_result *result = NULL;
    CHECK_OK(rp_buffer_alloc(pool, 100000, &buffer));
    memset(buffer->data, 'b', buffer->size);
    CHECK_OK(rp_apply_buffer_async(pool, "echo", buffer, buffer->size, NULL, &later));
    CHECK_OK(rp_apply_buffer_async(pool, "echo", buffer, 10, NULL, &part));
    CHECK_STATUS(rp_apply_buffer_async(pool, "echo", buffer, 100001, NULL, &part), RP_INVALID);
    rp_buffer_free(&buffer);
    CHECK_OK(rp_async_get(later, RP_FOREVER, &result));
    CHECK(result->size == 100000 && ((const char *)result->data)[99999] == 'b');
    rp_result_free(&result);
    CHECK_OK(rp_async_get(part, RP_FOREVER, &result));
    CHECK(result->size == 10);
    rp_result_free(&result);
    rp_async_free(&later);
    rp_async_free(&part);
    CHECK_OK(rp_buffer_alloc(pool, 0, &buffer));
    rp_buffer_free(&buffer);
}

/* Counts down, and fails at -1 if it is to. */
typedef struct countdown {
    int64_t next;
    int fails;
    int64_t item;
} countdown;

static int32_t count_down(void *userdata, rp_bytes *item) {
    countdown *count = (countdown *)userdata;
    if (count->next == 0) {
        return count->fails ? -5 : 0;
    }
    count->item = --count->next;
    item->data = &count->item;
    item->size = sizeof count->item;
    return 1;
}

static void iterators(rp_pool *pool) {
    size_t chunk;
    rp_iter *iter = NULL;
    rp_result *result = NULL;
    rp_bytes words[3] = {{"one", 3}, {"three", 5}, {"", 0}};
    rp_items items = {words, 3, 0};
    countdown count;
    int32_t ms = 100;
    for (chunk = 0; chunk < 4; chunk++) {
        int64_t expected = 1000, sum = 0;
        countdown source = {1000, 0, 0};
        CHECK_OK(rp_imap(pool, "add", count_down, &source, chunk, &iter));
        while (expected-- > 0) {
            CHECK_OK(rp_iter_next(iter, RP_FOREVER, &result));
            CHECK(*(const int64_t *)result->data == expected + 10);
            rp_result_free(&result);
        }
        CHECK_STATUS(rp_iter_next(iter, RP_FOREVER, &result), RP_END);
        CHECK_STATUS(rp_iter_next(iter, 0, &result), RP_END);
        rp_iter_free(&iter);
        source.next = 1000;
        CHECK_OK(rp_imap_unordered(pool, "add", count_down, &source, chunk, &iter));
        while (rp_iter_next(iter, RP_FOREVER, &result) == RP_OK) {
            sum += *(const int64_t *)result->data;
            rp_result_free(&result);
        }
        CHECK(sum == 999 * 1000 / 2 + 10 * 1000);
        rp_iter_free(&iter);
    }
    CHECK_OK(rp_imap(pool, "echo", rp_items_next, &items, 1, &iter));
    CHECK_OK(rp_iter_next(iter, RP_FOREVER, &result));
    rp_result_free(&result);
    CHECK_OK(rp_iter_next(iter, RP_FOREVER, &result));
    CHECK(result->size == 5 && memcmp(result->data, "three", 5) == 0);
    rp_result_free(&result);
    rp_iter_free(&iter); /* half-way */
    /* A source that fails: what was before it comes all the same. */
    count.next = 3;
    count.fails = 1;
    CHECK_OK(rp_imap(pool, "add", count_down, &count, 2, &iter));
    CHECK_OK(rp_iter_next(iter, RP_FOREVER, &result));
    rp_result_free(&result);
    CHECK_OK(rp_iter_next(iter, RP_FOREVER, &result));
    rp_result_free(&result);
    CHECK_OK(rp_iter_next(iter, RP_FOREVER, &result));
    rp_result_free(&result);
    CHECK_STATUS(rp_iter_next(iter, RP_FOREVER, &result), RP_INPUT_FAILED);
    CHECK_STATUS(rp_iter_next(iter, RP_FOREVER, &result), RP_END);
    rp_iter_free(&iter);
    words[0].data = &ms;
    words[0].size = sizeof ms;
    items.count = 1;
    items.next = 0;
    CHECK_OK(rp_imap(pool, "nap", rp_items_next, &items, 1, &iter));
    CHECK_STATUS(rp_iter_next(iter, 0.001, &result), RP_TIMEOUT);
    CHECK_OK(rp_iter_next(iter, RP_FOREVER, &result));
    rp_result_free(&result);
    rp_iter_free(&iter);
}

static void queues(rp_pool *pool) {
    enum { CALLS = 5000 };
    static int64_t numbers[CALLS];
    static rp_bytes items[CALLS];
    static uint64_t tags[CALLS];
    rp_queue *queue = NULL;
    rp_results *results = NULL;
    size_t at, submitted = 0, taken = 0;
    int64_t sum = 0;
    uint64_t tag;
    for (at = 0; at < CALLS; at++) {
        numbers[at] = (int64_t)at;
        items[at].data = &numbers[at];
        items[at].size = sizeof numbers[at];
        tags[at] = 2 * at;
    }
    CHECK_OK(rp_queue_new(pool, &queue));
    CHECK_STATUS(rp_queue_take(queue, 10, RP_FOREVER, &results), RP_END);
    CHECK_OK(rp_queue_submit(queue, "add", items, tags, CALLS, &submitted));
    CHECK(submitted == CALLS);
    while (taken < CALLS) {
        size_t count;
        CHECK_OK(rp_queue_take(queue, 100, RP_FOREVER, &results));
        count = rp_results_count(results);
        CHECK(count >= 1 && count <= 100);
        for (at = 0; at < count; at++) {
            const void *data = NULL;
            size_t size = 0;
            CHECK_OK(rp_results_get(results, at, &data, &size));
            CHECK_OK(rp_results_tag(results, at, &tag));
            CHECK(*(const int64_t *)data == (int64_t)tag / 2 + 10);
            sum += (int64_t)tag / 2;
        }
        taken += count;
        rp_results_free(&results);
    }
    CHECK(sum == (int64_t)CALLS * (CALLS - 1) / 2);
    CHECK_OK(rp_queue_submit(queue, "echo", items, NULL, 2, NULL));
    CHECK_OK(rp_queue_take(queue, 1, RP_FOREVER, &results));
    CHECK_OK(rp_results_tag(results, 0, &tag));
    CHECK(tag < 2);
    rp_results_free(&results);
    rp_queue_free(&queue); /* one is not taken */
}

static int32_t no_empty(void *userdata, const void *input, size_t size, rp_output *output) {
    (void)userdata;
    return size == 0 ? 12 : rp_output_write(output, input, size);
}

int main(void) {
    rp_pool *pool;
    CHECK(rp_abi_version() == RP_ABI_VERSION);
    CHECK_OK(rp_register("echo", echo, NULL));
    CHECK_OK(rp_register("echo", echo, NULL)); /* the same again */
    CHECK_OK(rp_register("add", add_to_each, &ten));
    CHECK_OK(rp_register("nap", nap, NULL));
    CHECK_OK(rp_register("no empty", no_empty, NULL));
    CHECK_OK(rp_register_array("roots", sizeof(double), sizeof(double), square_roots, NULL));
    pool = start(2);
    CHECK(rp_pool_processes(pool) == 2);
    applies(pool);
    asyncs(pool);
    callbacks(pool);
    maps(pool);
    arrays(pool);
    buffers(pool);
    iterators(pool);
    queues(pool);
    finish(&pool);
    return 0;
}
