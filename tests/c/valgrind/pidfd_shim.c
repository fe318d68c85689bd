/* Loaded before the C library into programs under valgrind: the system calls pidfd_open and pidfd_send_signal by way of
 * pidfd_broker.c, which has the kernel do what valgrind does not let through. The descriptors are the kernel's own. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pidfd.h"

static int ask(const request *question, int sent, int *fd) {
    struct sockaddr_un address;
    const char *name = getenv(VARIABLE);
    answer reply = {-1, ENOSYS};
    int broker = name == NULL ? -1 : socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (broker >= 0) {
        if (connect(broker, (struct sockaddr *)&address, at_name(&address, name)) == 0 &&
            deliver(broker, question, sizeof *question, sent)) {
            receive(broker, &reply, sizeof reply, fd);
        }
        close(broker);
    }
    if (reply.result < 0) {
        errno = reply.error;
    }
    return reply.result;
}

/* The C library's syscall(), through which the library under test makes these two. */
long syscall(long number, ...) {
    static long (*next)(long, ...);
    long a[6];
    va_list arguments;
    int n, fd = -1;
    va_start(arguments, number);
    for (n = 0; n < 6; n++) {
        a[n] = va_arg(arguments, long);
    }
    va_end(arguments);
    if (number == SYS_pidfd_open) {
        request question = {OPEN, (int32_t)a[0], 0, (uint32_t)a[1]};
        return ask(&question, -1, &fd) < 0 ? -1 : fd;
    }
    if (number == SYS_pidfd_send_signal) {
        request question = {SIGNAL, 0, (int32_t)a[1], (uint32_t)a[3]};
        return ask(&question, (int)a[0], &fd);
    }
    if (next == NULL) {
        *(void **)&next = dlsym(RTLD_NEXT, "syscall"); /* as POSIX has it */
    }
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
