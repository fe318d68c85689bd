/* The tasks of the conformance suite in C; ../src/bin/conform.rs has the same in Rust. */
#ifndef TASKS_H
#define TASKS_H

#include "../c/check.h"

static inline unsigned char pattern(size_t at) {
    return (unsigned char)(at * 31 + at / 256);
}

static inline uint64_t number(const void *input) {
    uint64_t value;
    memcpy(&value, input, sizeof value);
    return value;
}

static inline int32_t add(void *userdata, const void *input, size_t size, rp_output *output) {
    const uint64_t *numbers = (const uint64_t *)input;
    uint64_t sum;
    (void)userdata;
    if (size != 2 * sizeof *numbers) {
        return rp_output_fail(output, 1, "two numbers, please");
    }
    sum = numbers[0] + numbers[1];
    return rp_output_write(output, &sum, sizeof sum);
}

/* Its number times the one in userdata. */
static inline int32_t times(void *userdata, const void *input, size_t size, rp_output *output) {
    uint64_t value;
    if (size != sizeof value) {
        return rp_output_fail(output, 1, "one number, please");
    }
    value = *(const uint64_t *)userdata * number(input);
    return rp_output_write(output, &value, sizeof value);
}

static inline int32_t total(void *userdata, const void *input, size_t size, rp_output *output) {
    const unsigned char *bytes = (const unsigned char *)input;
    uint64_t sum = 0;
    size_t at;
    (void)userdata;
    for (at = 0; at < size; at++) {
        sum += bytes[at];
    }
    return rp_output_write(output, &sum, sizeof sum);
}

static inline int32_t sized(void *userdata, const void *input, size_t size, rp_output *output) {
    size_t length = (size_t)number(input), at;
    unsigned char *bytes = (unsigned char *)rp_output_reserve(output, length);
    (void)userdata;
    (void)size;
    if (bytes == NULL) {
        return 1;
    }
    for (at = 0; at < length; at++) {
        bytes[at] = pattern(at);
    }
    return rp_output_commit(output, length);
}

static inline int32_t doze(void *userdata, const void *input, size_t size, rp_output *output) {
    (void)userdata;
    (void)size;
    pause_ms((long)number(input));
    return rp_output_write(output, input, sizeof(uint64_t));
}

static inline int32_t trouble(void *userdata, const void *input, size_t size, rp_output *output) {
    volatile char *volatile nowhere = (volatile char *)(uintptr_t)8;
    (void)userdata;
    (void)size;
    switch (number(input)) {
    case 0:
        return rp_output_fail(output, 7, "no such city");
    case 1:
        abort();
    case 2:
        *nowhere = 1;
        break;
    case 3:
        exit(3);
    case 4:
        kill(getpid(), SIGKILL);
        break;
    default:
        break;
    }
    return rp_output_write(output, input, sizeof(uint64_t));
}

static char remembered[16];
static size_t remembered_size;

/* The initializer. */
static inline int32_t set_up(void *userdata, const void *input, size_t size, rp_output *output) {
    (void)userdata;
    if (size == 0 || size > sizeof remembered) {
        return rp_output_fail(output, 9, "nothing to remember");
    }
    memcpy(remembered, input, size);
    remembered_size = size;
    return 0;
}

static inline int32_t recall(void *userdata, const void *input, size_t size, rp_output *output) {
    (void)userdata;
    (void)input;
    (void)size;
    return rp_output_write(output, remembered, remembered_size);
}

static inline void register_tasks(void) {
    static uint64_t two = 2, three = 3;
    CHECK_OK(rp_register("echo", echo, NULL));
    CHECK_OK(rp_register("add", add, NULL));
    CHECK_OK(rp_register("double", times, &two));
    CHECK_OK(rp_register("triple", times, &three));
    CHECK_OK(rp_register("total", total, NULL));
    CHECK_OK(rp_register("sized", sized, NULL));
    CHECK_OK(rp_register("nap", doze, NULL));
    CHECK_OK(rp_register("trouble", trouble, NULL));
    CHECK_OK(rp_register("set_up", set_up, NULL));
    CHECK_OK(rp_register("recall", recall, NULL));
    CHECK_OK(rp_register_array("roots", 8, 8, square_roots, NULL));
}

#endif
