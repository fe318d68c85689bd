/* The conformance suite's client in C, which is a worker in C, too.
 *
 *     client TABLE LANGUAGE [WORKER]
 *
 * Runs the cases of the table whose tasks are in that language, in runs of the program WORKER or else in forks of this one,
 * and prints the outcome of each: its name, a tab, and the outcomes, separated by semicolons. It does not know what is
 * expected. */
#include "tasks.h"

enum { MOST = 4096, TEXT = 256 };

/* Items of a case, and whatever else is a list of bytes. */
typedef struct {
    rp_bytes *items;
    size_t count;
} list;

static const char *worker;
static rp_pool *shared;

static char *copied(const char *text) {
    char *copy = (char *)malloc(strlen(text) + 1);
    CHECK(copy != NULL);
    return strcpy(copy, text);
}

static void append(list *to, const void *data, size_t size) {
    void *copy = malloc(size + 1);
    CHECK(copy != NULL && to->count < MOST);
    memcpy(copy, data, size);
    to->items[to->count].data = copy;
    to->items[to->count++].size = size;
}

static void parse_item(list *to, const char *text) {
    static unsigned char bytes[1 << 20];
    uint64_t value, factor;
    double real;
    size_t size = 0, count, at;
    char *end = NULL;
    switch (*text++) {
    case 'x':
        for (; text[0] != 0; text += 2) {
            unsigned byte = 0;
            CHECK(sscanf(text, "%2x", &byte) == 1);
            bytes[size++] = (unsigned char)byte;
        }
        break;
    case 'p':
        size = strtoul(text, NULL, 10);
        CHECK(size <= sizeof bytes);
        for (at = 0; at < size; at++) {
            bytes[at] = pattern(at);
        }
        break;
    case 'u':
    case 'f':
        for (end = (char *)(uintptr_t)text; end[0] != 0; end += *end == ',') {
            if (text[-1] == 'u') {
                value = strtoull(end, &end, 10);
                memcpy(bytes + size, &value, 8);
            } else {
                real = strtod(end, &end);
                memcpy(bytes + size, &real, 8);
            }
            size += 8;
        }
        break;
    case 'n':
        count = strtoul(text, &end, 10);
        CHECK(*end == '*');
        factor = strtoull(end + 1, NULL, 10);
        for (at = 0; at < count; at++) {
            value = at * factor;
            append(to, &value, sizeof value);
        }
        return;
    default:
        fprintf(stderr, "no item: %s\n", text - 1);
        exit(2);
    }
    append(to, bytes, size);
}

static list parse_items(char *text) {
    list items = {(rp_bytes *)calloc(MOST, sizeof(rp_bytes)), 0};
    char *state = NULL, *word;
    CHECK(items.items != NULL);
    if (strcmp(text, "none") != 0) {
        for (word = strtok_r(text, ";", &state); word != NULL; word = strtok_r(NULL, ";", &state)) {
            parse_item(&items, word);
        }
    }
    return items;
}

static void free_items(list *items) {
    while (items->count > 0) {
        free((void *)(uintptr_t)items->items[--items->count].data);
    }
    free(items->items);
}

/* Outcomes, as text. */

static char *outcomes[MOST];
static size_t outcome_count;

static void outcome(const char *text) {
    CHECK(outcome_count < MOST);
    outcomes[outcome_count++] = copied(text);
}

static void good(const void *data, size_t size) {
    const unsigned char *bytes = (const unsigned char *)data;
    uint64_t hash = 0xcbf29ce484222325u;
    char text[TEXT];
    size_t at;
    if (size <= 40) {
        for (at = 0; at < size; at++) {
            sprintf(text + 2 * at, "%02x", bytes[at]);
        }
        text[2 * size] = 0;
    } else {
        for (at = 0; at < size; at++) {
            hash = (hash ^ bytes[at]) * 0x100000001b3u;
        }
        sprintf(text, "%zu bytes, %016" PRIx64, size, hash);
    }
    outcome(text);
}

static void bad(rp_status status) {
    static const struct {
        rp_status status;
        const char *name;
    } NAMES[] = {
        {RP_TASK_PANICKED, "!task_panicked"}, {RP_TIMEOUT, "!timeout"},           {RP_CLOSED, "!closed"},
        {RP_TERMINATED, "!terminated"},       {RP_CANCELLED, "!cancelled"},       {RP_BAD_PAYLOAD, "!bad_payload"},
        {RP_UNKNOWN_TASK, "!unknown_task"},   {RP_INITIALIZER_FAILED, "!initializer_failed"},
    };
    const rp_error *error = rp_last_error();
    char text[TEXT];
    size_t at;
    CHECK(error != NULL && error->status == status);
    snprintf(text, sizeof text, "!other %d: %s", (int)status, error->text);
    if (status == RP_TASK_FAILED) {
        char code[32];
        snprintf(code, sizeof code, " code %d: ", (int)error->task_code);
        CHECK(strstr(error->text, code) != NULL);
        snprintf(text, sizeof text, "!task_failed %s", error->text);
    } else if (status == RP_WORKER_DIED && error->signal != 0) {
        snprintf(text, sizeof text, "!worker_died signal %d", (int)error->signal);
    } else if (status == RP_WORKER_DIED) {
        snprintf(text, sizeof text, "!worker_died exit %d", (int)error->exit_code);
    }
    for (at = 0; at < sizeof NAMES / sizeof *NAMES; at++) {
        if (NAMES[at].status == status) {
            strcpy(text, NAMES[at].name);
        }
    }
    outcome(text);
}

static void one(rp_status status, rp_result **result) {
    if (status == RP_OK) {
        good((*result)->data, (*result)->size);
        rp_result_free(result);
    } else {
        bad(status);
    }
}

static void each(rp_status status, rp_results **results) {
    const void *data = NULL;
    size_t size = 0, at;
    if (status != RP_OK) {
        bad(status);
        return;
    }
    for (at = 0; at < rp_results_count(*results); at++) {
        status = rp_results_get(*results, at, &data, &size);
        if (status == RP_OK) {
            good(data, size);
        } else {
            bad(status);
        }
    }
    rp_results_free(results);
}

static int by_text(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static rp_pool *pool_for(const char *kind) {
    const char *command[] = {worker, NULL};
    rp_options options;
    rp_pool *pool = NULL;
    rp_options_init(&options, sizeof options);
    options.processes = strcmp(kind, "single") == 0 ? 1 : 2;
    if (worker != NULL) {
        options.start_method = RP_START_SPAWN;
        options.command = command;
    }
    options.hardened = strcmp(kind, "hardened") == 0;
    options.max_tasks_per_child = strcmp(kind, "brief") == 0 ? 2 : 0;
    if (strcmp(kind, "set_up") == 0 || strcmp(kind, "broken") == 0) {
        options.initializer = "set_up";
        options.initializer_input = "set";
        options.initializer_size = strcmp(kind, "set_up") == 0 ? 3 : 0;
    }
    CHECK_OK(rp_pool_new(&options, &pool));
    if (strcmp(kind, "closed") == 0) {
        CHECK_OK(rp_pool_close(pool));
    } else if (strcmp(kind, "terminated") == 0) {
        CHECK_OK(rp_pool_terminate(pool));
    }
    return pool;
}

static void array(rp_pool *pool, const char *task, const list *items, size_t chunk, size_t size, bool all) {
    size_t item_size = items->items[0].size, at;
    char *inputs = (char *)malloc(items->count * item_size);
    char *values = (char *)malloc(items->count * size + 1);
    rp_async *pending = NULL;
    rp_results *results = NULL;
    rp_status status;
    CHECK(inputs != NULL && values != NULL);
    for (at = 0; at < items->count; at++) {
        CHECK(items->items[at].size == item_size);
        memcpy(inputs + at * item_size, items->items[at].data, item_size);
    }
    if (all) {
        status = rp_map_array_async(pool, task, inputs, items->count, item_size, chunk, NULL, &pending);
        status = status == RP_OK ? rp_async_results(pending, RP_FOREVER, &results) : status;
        each(status, &results);
        rp_async_free(&pending);
    } else {
        status = rp_map_array(pool, task, inputs, items->count, item_size, chunk, values, size);
        if (status != RP_OK) {
            bad(status);
        }
        for (at = 0; status == RP_OK && at < items->count; at++) {
            good(values + at * size, size);
        }
    }
    free(inputs);
    free(values);
}

static void stream(rp_pool *pool, const char *task, const list *items, size_t chunk, bool ordered) {
    rp_items source = {items->items, items->count, 0};
    rp_iter *iter = NULL;
    rp_result *result = NULL;
    rp_status status = ordered ? rp_imap(pool, task, rp_items_next, &source, chunk, &iter)
                               : rp_imap_unordered(pool, task, rp_items_next, &source, chunk, &iter);
    if (status != RP_OK) {
        bad(status);
    }
    while (iter != NULL && (status = rp_iter_next(iter, RP_FOREVER, &result)) != RP_END) {
        one(status, &result);
    }
    rp_iter_free(&iter);
    if (!ordered) {
        qsort(outcomes, outcome_count, sizeof *outcomes, by_text);
    }
}

static void batch(rp_pool *pool, const char *task, const list *items) {
    rp_queue *queue = NULL;
    rp_results *taken = NULL;
    size_t submitted = 0, at, size = 0;
    const void *data = NULL;
    uint64_t tag = 0;
    rp_status status;
    CHECK_OK(rp_queue_new(pool, &queue));
    CHECK_OK(rp_queue_submit(queue, task, items->items, NULL, items->count, &submitted));
    CHECK(submitted == items->count);
    /* Outcomes come in any order, and their places say which they are. */
    memset(outcomes, 0, sizeof outcomes);
    while ((status = rp_queue_take(queue, 16, RP_FOREVER, &taken)) == RP_OK) {
        for (at = 0; at < rp_results_count(taken); at++) {
            CHECK_OK(rp_results_tag(taken, at, &tag));
            CHECK(tag < submitted && outcomes[tag] == NULL);
            outcome_count = (size_t)tag;
            status = rp_results_get(taken, at, &data, &size);
            if (status == RP_OK) {
                good(data, size);
            } else {
                bad(status);
            }
        }
        rp_results_free(&taken);
    }
    CHECK(status == RP_END);
    outcome_count = submitted;
    rp_queue_free(&queue);
}

static void later(rp_pool *pool, const char *how, const char *task, const rp_bytes *input, double timeout) {
    rp_async *before = NULL, *pending = NULL;
    rp_result *result = NULL;
    rp_status status;
    bool cancelled = false;
    if (strcmp(how, "cancel") == 0) {
        CHECK_OK(rp_apply_async(pool, task, input->data, input->size, NULL, &before));
    }
    status = rp_apply_async(pool, task, input->data, input->size, NULL, &pending);
    if (status == RP_OK) {
        if (strcmp(how, "cancel") == 0) {
            CHECK_OK(rp_async_cancel(pending, &cancelled));
            CHECK(cancelled);
        } else if (strcmp(how, "terminate") == 0) {
            CHECK_OK(rp_pool_terminate(pool));
        }
        status = rp_async_get(pending, timeout, &result);
    }
    one(status, &result);
    rp_async_free(&before);
    rp_async_free(&pending);
}

static void run(rp_pool *pool, const char *call, const char *task, const list *items) {
    char how[16];
    double first = 0;
    size_t second = 0, chunk;
    rp_async *pending = NULL;
    rp_result *result = NULL;
    rp_results *results = NULL;
    rp_status status;
    CHECK(sscanf(call, "%15s %lf %zu", how, &first, &second) >= 1);
    chunk = (size_t)first;
    if (strcmp(how, "apply") == 0) {
        status = rp_apply(pool, task, items->items[0].data, items->items[0].size, &result);
        one(status, &result);
    } else if (strcmp(how, "map") == 0) {
        status = rp_map(pool, task, items->items, items->count, chunk, &results);
        each(status, &results);
    } else if (strcmp(how, "map_each") == 0) {
        status = rp_map_async(pool, task, items->items, items->count, chunk, NULL, &pending);
        status = status == RP_OK ? rp_async_results(pending, RP_FOREVER, &results) : status;
        each(status, &results);
        rp_async_free(&pending);
    } else if (strncmp(how, "array", 5) == 0) {
        array(pool, task, items, chunk, second, strcmp(how, "array_each") == 0);
    } else if (strcmp(how, "imap") == 0 || strcmp(how, "unordered") == 0) {
        stream(pool, task, items, chunk, strcmp(how, "imap") == 0);
    } else if (strcmp(how, "queue") == 0) {
        batch(pool, task, items);
    } else {
        later(pool, how, task, items->items, strcmp(how, "timeout") == 0 ? first : RP_FOREVER);
    }
}

static char *trimmed(char *text) {
    char *end;
    text += strspn(text, " ");
    for (end = text + strlen(text); end > text && (end[-1] == ' ' || end[-1] == '\n');) {
        *--end = 0;
    }
    return text;
}

static void run_line(char *line, const char *language) {
    enum { NAME, POOL, WORKERS, CALL, TASK, INPUTS, EXPECTED, FIELDS };
    char *fields[FIELDS], *state = NULL;
    rp_pool *own = NULL;
    list items;
    size_t at;
    for (at = 0; at < FIELDS; at++) {
        fields[at] = strtok_r(at == 0 ? line : NULL, "|", &state);
        CHECK(fields[at] != NULL);
        fields[at] = trimmed(fields[at]);
    }
    if (strcmp(fields[WORKERS], "any") != 0 && strcmp(fields[WORKERS], language) != 0) {
        return;
    }
    if (strcmp(fields[POOL], "shared") != 0) {
        own = pool_for(fields[POOL]);
    }
    items = parse_items(fields[INPUTS]);
    run(own ? own : shared, fields[CALL], fields[TASK], &items);
    free_items(&items);
    rp_pool_free(&own);
    printf("%s\t%s", fields[NAME], outcome_count == 0 ? "none" : "");
    for (at = 0; at < outcome_count; at++) {
        printf("%s%s", at == 0 ? "" : ";", outcomes[at]);
        free(outcomes[at]);
    }
    printf("\n");
    /* A fork must not write it again. */
    fflush(stdout);
    outcome_count = 0;
}

int main(int argc, char **argv) {
    static char line[4096];
    FILE *table;
    register_tasks();
    rp_worker_main_if_worker();
    CHECK(argc >= 3);
    worker = argc > 3 ? argv[3] : NULL;
    shared = pool_for("shared");
    table = fopen(argv[1], "re");
    CHECK(table != NULL);
    while (fgets(line, sizeof line, table) != NULL) {
        if (line[0] != '#' && line[0] != '\n') {
            run_line(line, argv[2]);
        }
    }
    fclose(table);
    rp_pool_free(&shared);
    return 0;
}
