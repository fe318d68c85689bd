/* What fails, and how: NULL everywhere, double frees, sizes that cannot be, tasks that fail. */
#include "check.h"

static int32_t fails(void *userdata, const void *input, size_t size, rp_output *output) {
    int32_t code = 0;
    (void)userdata;
    memcpy(&code, input, size < sizeof code ? size : sizeof code);
    if (code == 1) {
        return 1; /* without a word */
    }
    return rp_output_fail(output, code, code == 2 ? NULL : "so it is\xff");
}

static int32_t writes(void *userdata, const void *input, size_t size, rp_output *output) {
    char *room;
    (void)userdata;
    (void)input;
    (void)size;
    if (rp_output_reserve(output, SIZE_MAX) != NULL || rp_output_reserve(output, (size_t)1 << 50) != NULL) {
        return 1;
    }
    if (rp_output_commit(output, 1) == RP_OK) {
        return 2; /* there is nothing to commit */
    }
    room = (char *)rp_output_reserve(output, 100); /* less is to be had */
    if (room == NULL) {
        return 3;
    }
    memset(room, 'x', 100);
    if (rp_output_commit(output, 101) != RP_INVALID || rp_output_commit(output, 50) != RP_OK) {
        return 4;
    }
    if (rp_output_commit(output, 50) != RP_OK || rp_output_commit(output, 1) != RP_INVALID) {
        return 5;
    }
    if (rp_output_reserve(NULL, 1) != NULL || rp_output_commit(NULL, 0) != RP_NULL_POINTER ||
        rp_output_write(NULL, "x", 1) != RP_NULL_POINTER || rp_output_write(output, NULL, 1) != RP_NULL_POINTER ||
        rp_output_fail(NULL, 7, "x") != 7) {
        return 6;
    }
    return 0;
}

static int32_t too_much(void *userdata, const void *input, size_t size, rp_output *output) {
    (void)userdata;
    (void)input;
    (void)size;
    rp_output_reserve(output, (size_t)1 << 50);
    return 0;
}

static void nulls(rp_pool *pool) {
    rp_pool *no_pool = NULL;
    rp_result *result = NULL;
    rp_results *results = NULL;
    rp_async *later = NULL;
    rp_iter *iter = NULL;
    rp_queue *queue = NULL;
    rp_buffer *buffer = NULL;
    rp_bytes item = {NULL, 5};
    rp_items items = {NULL, 5, 0};
    const void *data = NULL;
    size_t size = 0;
    uint64_t tag = 0;
    uint32_t pid = 0;
    bool flag = false;
    double x = 1;

#define NULLS(call) CHECK_STATUS(call, RP_NULL_POINTER)
    NULLS(rp_register(NULL, echo, NULL));
    NULLS(rp_register("x", NULL, NULL));
    NULLS(rp_register_array(NULL, 8, 8, square_roots, NULL));
    NULLS(rp_register_array("x", 8, 8, NULL, NULL));
    NULLS(rp_pool_new(NULL, NULL));
    NULLS(rp_pool_close(NULL));
    NULLS(rp_pool_terminate(NULL));
    NULLS(rp_pool_join(NULL));
    NULLS(rp_pool_worker_pids(NULL, &pid, 1, &size));
    NULLS(rp_pool_worker_pids(pool, NULL, 1, &size));
    NULLS(rp_pool_worker_pids(pool, &pid, 1, NULL));
    NULLS(rp_apply(NULL, "echo", "x", 1, &result));
    NULLS(rp_apply(pool, NULL, "x", 1, &result));
    NULLS(rp_apply(pool, "echo", NULL, 1, &result));
    NULLS(rp_apply(pool, "echo", "x", 1, NULL));
    NULLS(rp_apply_into(pool, "echo", "x", 1, NULL, 1, &size));
    NULLS(rp_apply_into(pool, "echo", "x", 1, &x, 1, NULL));
    NULLS(rp_apply_async(NULL, "echo", "x", 1, NULL, &later));
    NULLS(rp_apply_async(pool, NULL, "x", 1, NULL, &later));
    NULLS(rp_apply_async(pool, "echo", NULL, 1, NULL, &later));
    NULLS(rp_apply_buffer_async(pool, "echo", NULL, 0, NULL, &later));
    NULLS(rp_async_wait(NULL, 0));
    NULLS(rp_async_get(NULL, 0, &result));
    NULLS(rp_async_results(NULL, 0, &results));
    NULLS(rp_async_successful(NULL, &flag));
    NULLS(rp_async_cancel(NULL, &flag));
    NULLS(rp_buffer_alloc(NULL, 10, &buffer));
    NULLS(rp_buffer_alloc(pool, 10, NULL));
    NULLS(rp_map(pool, "echo", NULL, 1, 0, &results));
    NULLS(rp_map(pool, "echo", &item, 1, 0, &results));
    NULLS(rp_map(pool, "echo", NULL, 0, 0, NULL));
    NULLS(rp_map_async(NULL, "echo", NULL, 0, 0, NULL, &later));
    NULLS(rp_map_array(pool, "echo", NULL, 1, 8, 0, &x, 8));
    NULLS(rp_map_array(pool, "echo", &x, 1, 8, 0, NULL, 8));
    NULLS(rp_map_array_async(pool, NULL, &x, 1, 8, 0, NULL, &later));
    NULLS(rp_map_buffer_async(pool, "echo", NULL, 8, 0, NULL, &later));
    NULLS(rp_results_get(NULL, 0, &data, &size));
    NULLS(rp_results_run(NULL, 0, &data, &size, &size));
    NULLS(rp_results_tag(NULL, 0, &tag));
    NULLS(rp_imap(pool, "echo", NULL, NULL, 1, &iter));
    NULLS(rp_imap(pool, "echo", rp_items_next, &items, 1, NULL));
    NULLS(rp_imap_unordered(NULL, "echo", rp_items_next, &items, 1, &iter));
    NULLS(rp_iter_next(NULL, 0, &result));
    NULLS(rp_queue_new(NULL, &queue));
    NULLS(rp_queue_new(pool, NULL));
    NULLS(rp_queue_submit(NULL, "echo", NULL, NULL, 0, NULL));
    NULLS(rp_queue_take(NULL, 1, 0, &results));
    NULLS(rp_worker_attach(NULL));
#undef NULLS
    CHECK(rp_results_count(NULL) == 0);
    CHECK(rp_pool_processes(NULL) == 0);
    CHECK(!rp_async_ready(NULL));
    CHECK(rp_items_next(NULL, &item) == -1);
    CHECK(rp_items_next(&items, &item) == -1);
    CHECK(!rp_is_worker());
    rp_options_init(NULL, sizeof(rp_options));
    CHECK(no_pool == NULL && !result && !results && !later && !iter && !queue && !buffer && !data);

    /* Freeing nothing, in both ways. */
    rp_pool_free(NULL);
    rp_pool_free(&no_pool);
    rp_result_free(NULL);
    rp_result_free(&result);
    rp_results_free(NULL);
    rp_results_free(&results);
    rp_async_free(NULL);
    rp_async_free(&later);
    rp_iter_free(NULL);
    rp_iter_free(&iter);
    rp_queue_free(NULL);
    rp_queue_free(&queue);
    rp_buffer_free(NULL);
    rp_buffer_free(&buffer);

    /* And everything twice. */
    CHECK_OK(rp_apply(pool, "echo", "x", 1, &result));
    rp_result_free(&result);
    rp_result_free(&result);
    CHECK_OK(rp_apply_async(pool, "echo", "x", 1, NULL, &later));
    rp_async_free(&later);
    rp_async_free(&later);
    CHECK_OK(rp_map(pool, "echo", NULL, 0, 0, &results));
    rp_results_free(&results);
    rp_results_free(&results);
    items.count = 0;
    CHECK_OK(rp_imap(pool, "echo", rp_items_next, &items, 1, &iter));
    rp_iter_free(&iter);
    rp_iter_free(&iter);
    CHECK_OK(rp_queue_new(pool, &queue));
    rp_queue_free(&queue);
    rp_queue_free(&queue);
    CHECK_OK(rp_buffer_alloc(pool, 10, &buffer));
    rp_buffer_free(&buffer);
    rp_buffer_free(&buffer);
}

static void nonsense(rp_pool *pool) {
    rp_options options;
    rp_pool *other = NULL;
    rp_result *result = NULL;
    rp_results *results = NULL;
    rp_async *later = NULL;
    rp_buffer *buffer = NULL, *foreign = NULL;
    rp_callbacks callbacks;
    rp_bytes huge = {"x", SIZE_MAX};
    const char *no_command[] = {NULL};
    char long_name[100];
    double x = 1;
    size_t size = 0;

#define INVALID(call) CHECK_STATUS(call, RP_INVALID)
    memset(long_name, 'n', sizeof long_name);
    long_name[99] = 0;
    INVALID(rp_register("", echo, NULL));
    INVALID(rp_register(long_name, echo, NULL));
    INVALID(rp_register("\xff\xfe", echo, NULL));
    INVALID(rp_register("echo", fails, NULL));
    INVALID(rp_register("echo", echo, &x));
    INVALID(rp_register_array("zero", 0, 8, square_roots, NULL));
    INVALID(rp_apply(pool, "", "x", 1, &result));
    INVALID(rp_apply(pool, "\xc3", "x", 1, &result));
    INVALID(rp_apply(pool, "echo", "x", SIZE_MAX, &result));
    INVALID(rp_map(pool, "echo", &huge, 1, 0, &results));
    INVALID(rp_map(pool, "echo", &huge, SIZE_MAX / 8, 0, &results));
    INVALID(rp_map_array(pool, "echo", &x, SIZE_MAX / 4, 8, 0, &x, 8));
    INVALID(rp_map_array(pool, "echo", &x, 1, 8, 0, &x, SIZE_MAX));
    INVALID(rp_map_array(pool, "echo", &x, 1, 0, 0, &x, 8));
    INVALID(rp_buffer_alloc(pool, SIZE_MAX, &buffer));
    CHECK_STATUS(rp_buffer_alloc(pool, (size_t)1 << 45, &buffer), RP_NO_MEMORY);
    CHECK_OK(rp_buffer_alloc(pool, 100, &buffer));
    INVALID(rp_map_buffer_async(pool, "echo", buffer, 0, 0, NULL, &later));
    INVALID(rp_map_buffer_async(pool, "echo", buffer, 3, 0, NULL, &later));
    memset(&callbacks, 0, sizeof callbacks);
    INVALID(rp_apply_async(pool, "echo", "x", 1, &callbacks, &later));
    rp_options_init(&options, sizeof options);
    options.processes = 100000;
    INVALID(rp_pool_new(&options, &other));
    rp_options_init(&options, sizeof options);
    options.start_method = 3;
    INVALID(rp_pool_new(&options, &other));
    options.start_method = RP_START_SPAWN;
    CHECK_STATUS(rp_pool_new(&options, &other), RP_START_FAILED); /* main does not begin as it must */
    options.command = no_command;
    INVALID(rp_pool_new(&options, &other));
    rp_options_init(&options, sizeof options);
    options.retries = 15;
    INVALID(rp_pool_new(&options, &other));
    rp_options_init(&options, sizeof options);
    options.patience = -1;
    INVALID(rp_pool_new(&options, &other));
    rp_options_init(&options, sizeof options);
    options.guests_only = 1;
    INVALID(rp_pool_new(&options, &other));
    rp_options_init(&options, sizeof options);
    options.name = "no/name";
    CHECK(rp_pool_new(&options, &other) != RP_OK);
    rp_options_init(&options, sizeof options);
    options.size = 8;
    INVALID(rp_pool_new(&options, &other));
    options.size = SIZE_MAX;
    INVALID(rp_pool_new(&options, &other));
    CHECK(other == NULL && result == NULL && results == NULL && later == NULL);

    /* A program that was compiled with later options. */
    {
        struct {
            rp_options known;
            uint64_t later;
        } newer;
        rp_options_init(&newer.known, sizeof newer);
        newer.known.processes = 1;
        CHECK(newer.known.size == sizeof newer && newer.later == 0);
        CHECK_OK(rp_pool_new(&newer.known, &other));
        CHECK_OK(rp_buffer_alloc(other, 100, &foreign));
        INVALID(rp_apply_buffer_async(pool, "echo", foreign, 8, NULL, &later));
        rp_pool_free(&other);
        rp_pool_free(&other);
        rp_buffer_free(&foreign);
        newer.later = 1;
        INVALID(rp_pool_new(&newer.known, &other));
    }
    CHECK_OK(rp_apply_async(pool, "echo", "x", 1, NULL, &later));
    INVALID(rp_async_results(later, 0, &results));
    rp_async_free(&later);
    CHECK_OK(rp_map_async(pool, "echo", NULL, 0, 0, NULL, &later));
    INVALID(rp_async_get(later, 0, &result));
    CHECK_OK(rp_async_results(later, 0, &results));
    INVALID(rp_results_tag(results, 0, (uint64_t *)&size));
    rp_results_free(&results);
    rp_async_free(&later);
    rp_buffer_free(&buffer);
    CHECK_STATUS(rp_worker_attach("no-such-pool"), RP_ATTACH_REFUSED);
    INVALID(rp_worker_attach("no such name"));
#undef INVALID
}

static void failures(rp_pool *pool) {
    int32_t codes[] = {0, 1, 2, 42, -9};
    rp_result *result = NULL;
    size_t at;
    for (at = 0; at < sizeof codes / sizeof *codes; at++) {
        CHECK_STATUS(rp_apply(pool, "fails", &codes[at], sizeof *codes, &result), RP_TASK_FAILED);
        CHECK(rp_last_error()->status == RP_TASK_FAILED);
        CHECK(rp_last_error()->task_code == (codes[at] == 0 ? -1 : codes[at]));
        CHECK(rp_last_error()->signal == 0 && rp_last_error()->exit_code == -1);
        CHECK(at < 3 || strstr(last_text(), "so it is\xef\xbf\xbd") != NULL);
    }
    CHECK_STATUS(rp_apply(pool, "nobody knows this", "x", 1, &result), RP_UNKNOWN_TASK);
    CHECK(strstr(last_text(), "nobody knows this") != NULL);
    /* Workers are forks of what this process was. */
    CHECK_OK(rp_register("late", echo, NULL));
    CHECK_STATUS(rp_apply(pool, "late", "x", 1, &result), RP_UNKNOWN_TASK);
    CHECK_STATUS(rp_apply(pool, "too much", "x", 1, &result), RP_NO_MEMORY);
    CHECK(result == NULL);
    CHECK_OK(rp_apply(pool, "writes", "x", 1, &result));
    CHECK(result->size == 100);
    rp_result_free(&result);
}

static void texts(void) {
    int32_t status = 0;
    CHECK(strcmp(rp_status_string(RP_OK), "done") == 0);
    for (; status < 4000; status++) {
        CHECK(rp_status_string(status) != NULL);
    }
    CHECK(strcmp(rp_status_string(12345), rp_status_string(-1)) == 0);
}

int main(void) {
    rp_pool *pool;
    CHECK(rp_last_error() == NULL);
    CHECK_OK(rp_register("echo", echo, NULL));
    CHECK_OK(rp_register("fails", fails, NULL));
    CHECK_OK(rp_register("writes", writes, NULL));
    CHECK_OK(rp_register("too much", too_much, NULL));
    pool = start(2);
    texts();
    nulls(pool);
    nonsense(pool);
    failures(pool);
    rp_pool_free(&pool);
    CHECK(pool == NULL);
    rp_pool_free(&pool);
    return 0;
}
