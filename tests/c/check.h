/* What the test programs share. They are compiled as C11 and as C++17. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ringpool.h"

static inline const char *last_text(void) {
    const rp_error *error = rp_last_error();
    return error ? error->text : "no error";
}

/* Ends the program unless the condition holds. */
#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition,      \
                    last_text());                                                                \
            exit(1);                                                                             \
        }                                                                                        \
    } while (0)

/* The same for a call that must end with a status. */
#define CHECK_STATUS(call, expected)                                                             \
    do {                                                                                         \
        rp_status got_ = (call);                                                                 \
        if (got_ != (expected)) {                                                                \
            fprintf(stderr, "%s:%d: %s gave %d, %s (last error: %s)\n", __FILE__, __LINE__,      \
                    #call, (int)got_, rp_status_string(got_), last_text());                      \
            exit(1);                                                                             \
        }                                                                                        \
    } while (0)

#define CHECK_OK(call) CHECK_STATUS(call, RP_OK)

/* Default options. Tools that keep books of all address space do not have enough for the default of each process. */
static inline void default_options(rp_options *options) {
    rp_options_init(options, sizeof *options);
    if (getenv("RINGPOOL_C_SMALL") != NULL) {
        options->memory_reserve = 256 << 20;
    }
}

static inline rp_pool *start(uint32_t processes) {
    rp_options options;
    rp_pool *pool = NULL;
    default_options(&options);
    options.processes = processes;
    CHECK_OK(rp_pool_new(&options, &pool));
    CHECK(pool != NULL);
    return pool;
}

/* Ends a pool whose work is done. Under valgrind (RINGPOOL_C_SMALL) workers are not asked to leave: its children that were
 * forked do not get through exit(). */
static inline void finish(rp_pool **pool) {
    if (getenv("RINGPOOL_C_SMALL") == NULL) {
        CHECK_OK(rp_pool_close(*pool));
        CHECK_OK(rp_pool_join(*pool));
    }
    rp_pool_free(pool);
    CHECK(*pool == NULL);
}

static inline void pause_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&time, &time) != 0) {
    }
}

/* Tasks that several programs use. */

static inline int32_t echo(void *userdata, const void *input, size_t size, rp_output *output) {
    (void)userdata;
    return rp_output_write(output, input, size);
}

/* Adds the number in userdata to each number of the input. */
static inline int32_t add_to_each(void *userdata, const void *input, size_t size, rp_output *output) {
    const int64_t *numbers = (const int64_t *)input;
    int64_t *sums = (int64_t *)rp_output_reserve(output, size);
    size_t at;
    if (sums == NULL) {
        return 1;
    }
    for (at = 0; at < size / sizeof *numbers; at++) {
        sums[at] = numbers[at] + *(const int64_t *)userdata;
    }
    return rp_output_commit(output, size);
}

static inline int32_t square_roots(void *userdata, const void *items, size_t count, void *results,
                                   rp_output *output) {
    const double *numbers = (const double *)items;
    double *roots = (double *)results;
    size_t at;
    (void)userdata;
    for (at = 0; at < count; at++) {
        if (numbers[at] < 0) {
            return rp_output_fail(output, 33, "a negative number");
        }
        roots[at] = sqrt(numbers[at]);
    }
    return 0;
}

/* Sleeps so many milliseconds, and says so. */
static inline int32_t nap(void *userdata, const void *input, size_t size, rp_output *output) {
    int32_t ms = 0;
    (void)userdata;
    memcpy(&ms, input, size < sizeof ms ? size : sizeof ms);
    pause_ms(ms);
    return rp_output_write(output, &ms, sizeof ms);
}

#endif
