/* The second executable of attach.c: serves the pool that its argument names, until that ends. */
#include "check.h"

#include <ctype.h>

static int32_t shout(void *userdata, const void *input, size_t size, rp_output *output) {
    char *loud = (char *)rp_output_reserve(output, size);
    size_t at;
    (void)userdata;
    if (loud == NULL) {
        return 1;
    }
    for (at = 0; at < size; at++) {
        loud[at] = (char)toupper(((const unsigned char *)input)[at]);
    }
    return rp_output_commit(output, size);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    CHECK_OK(rp_register("shout", shout, NULL));
    /* Not all that the pool calls is known here. */
    CHECK_STATUS(rp_worker_attach(argv[1]), RP_ATTACH_REFUSED);
    CHECK(strstr(last_text(), "roots") != NULL);
    CHECK_OK(rp_register_array("roots", 8, 8, square_roots, NULL));
    CHECK_OK(rp_worker_attach(argv[1]));
    return 0;
}
