/* A pool without workers of its own, and a second executable that works for it: the argument is its path. */
#include "check.h"

#include <sys/types.h>

int main(int argc, char **argv) {
    rp_options options;
    rp_pool *pool = NULL;
    rp_result *result = NULL;
    rp_results *results = NULL;
    rp_bytes items[2] = {{"ab", 2}, {"cde", 3}};
    double numbers[] = {16, 25}, roots[2];
    const void *data = NULL;
    size_t size = 0;
    char name[64];
    int status = 0;
    pid_t worker;

    CHECK(argc == 2);
    /* What guests must know. Their functions may be others; this program runs none. */
    CHECK_OK(rp_register("shout", echo, NULL));
    CHECK_OK(rp_register_array("roots", 8, 8, square_roots, NULL));
    snprintf(name, sizeof name, "c-attach-%ld", (long)getpid());
    default_options(&options);
    options.name = name;
    options.guests_only = 1;
    CHECK_OK(rp_pool_new(&options, &pool));
    worker = fork();
    CHECK(worker >= 0);
    if (worker == 0) {
        execl(argv[1], argv[1], name, (char *)NULL);
        _exit(99);
    }
    CHECK_OK(rp_apply(pool, "shout", "hello", 5, &result));
    CHECK(result->size == 5 && memcmp(result->data, "HELLO", 5) == 0);
    rp_result_free(&result);
    CHECK_OK(rp_map(pool, "shout", items, 2, 1, &results));
    CHECK_OK(rp_results_get(results, 1, &data, &size));
    CHECK(size == 3 && memcmp(data, "CDE", 3) == 0);
    rp_results_free(&results);
    CHECK_OK(rp_map_array(pool, "roots", numbers, 2, 8, 0, roots, 8));
    CHECK(roots[0] == 4 && roots[1] == 5);
    CHECK_STATUS(rp_apply(pool, "unknown to the guest", "x", 1, &result), RP_UNKNOWN_TASK);
    CHECK_OK(rp_pool_close(pool));
    CHECK_OK(rp_pool_join(pool));
    rp_pool_free(&pool);
    CHECK(waitpid(worker, &status, 0) == worker);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 0;
}
