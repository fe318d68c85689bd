/* How often each byte occurs in some files, counted by all workers:
 *
 *     cc examples/c/histogram.c $(pkg-config --cflags --libs ringpool) -o histogram
 *     ./histogram [PROCESSES] FILE..
 *
 * Files travel in pieces, which are read straight into shared memory: nothing is copied on the way to a worker, and
 * a worker's counts are added up where they lie.
 */
#include <errno.h>
#include <inttypes.h>
#include <ringpool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20, VALUES = 256, AHEAD = 16 };

typedef struct counts {
    uint64_t of[VALUES];
} counts;

static int32_t count(void *userdata, const void *input, size_t size, rp_output *output) {
    const unsigned char *bytes = (const unsigned char *)input;
    counts *found = (counts *)rp_output_reserve(output, sizeof *found);
    size_t n;
    (void)userdata;
    if (found == NULL) {
        return rp_output_fail(output, 1, "no memory for the counts");
    }
    memset(found, 0, sizeof *found);
    for (n = 0; n < size; n++) {
        found->of[bytes[n]]++;
    }
    return rp_output_commit(output, sizeof *found);
}

static void check(rp_status status) {
    if (status != RP_OK) {
        fprintf(stderr, "histogram: %s\n", rp_last_error()->text);
        exit(1);
    }
}

/* Adds what came of a piece, if there was one. */
static void finish(rp_async **piece, counts *total) {
    rp_result *result = NULL;
    int n;
    if (*piece == NULL) {
        return;
    }
    check(rp_async_get(*piece, RP_FOREVER, &result));
    for (n = 0; n < VALUES; n++) {
        total->of[n] += ((const counts *)result->data)->of[n];
    }
    rp_result_free(&result);
    rp_async_free(piece);
}

int main(int argc, char **argv) {
    rp_options options;
    rp_pool *pool = NULL;
    rp_async *pieces[AHEAD] = {NULL};
    counts total;
    uint64_t bytes = 0, most = 0;
    size_t next = 0, n;
    char *end = argv[0];
    int first = 1, file;

    rp_options_init(&options, sizeof options);
    if (argc > 1) {
        options.processes = (uint32_t)strtoul(argv[1], &end, 10);
        first = *end == '\0' ? 2 : 1;
        if (first == 1) {
            options.processes = 0;
        }
    }
    if (first >= argc) {
        fprintf(stderr, "usage: histogram [PROCESSES] FILE..\n");
        return 2;
    }
    memset(&total, 0, sizeof total);
    check(rp_register("count", count, NULL));
    check(rp_pool_new(&options, &pool));

    for (file = first; file < argc; file++) {
        FILE *stream = fopen(argv[file], "rb");
        if (stream == NULL) {
            fprintf(stderr, "histogram: %s: %s\n", argv[file], strerror(errno));
            return 1;
        }
        for (;;) {
            rp_buffer *buffer = NULL;
            size_t size;
            check(rp_buffer_alloc(pool, PIECE, &buffer));
            size = fread(buffer->data, 1, PIECE, stream);
            if (size > 0) {
                finish(&pieces[next], &total);
                check(rp_apply_buffer_async(pool, "count", buffer, size, NULL, &pieces[next]));
                next = (next + 1) % AHEAD;
            }
            rp_buffer_free(&buffer); /* the task keeps what it was given */
            if (size < PIECE) {
                break;
            }
        }
        fclose(stream);
    }
    for (n = 0; n < AHEAD; n++) {
        finish(&pieces[n], &total);
    }
    for (n = 0; n < VALUES; n++) {
        bytes += total.of[n];
        most = total.of[n] > most ? total.of[n] : most;
    }
    printf("%" PRIu64 " bytes\n", bytes);
    for (n = 0; n < VALUES; n++) {
        if (total.of[n] > 0) {
            printf("%02zx %c %10" PRIu64 " %.*s\n", n, n > 32 && n < 127 ? (char)n : ' ', total.of[n],
                   (int)(50 * total.of[n] / most), "##################################################");
        }
    }
    check(rp_pool_close(pool));
    check(rp_pool_join(pool));
    rp_pool_free(&pool);
    return 0;
}
