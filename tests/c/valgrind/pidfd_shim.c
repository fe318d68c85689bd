/* Loaded before the C library into programs under valgrind: pidfd_open() and pidfd_send_signal() by way of
 * pidfd_broker.c, which has the kernel do what valgrind does not let through. The descriptors are the kernel's own. */
#define _GNU_SOURCE
#include <stdlib.h>
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

int pidfd_open(pid_t pid, unsigned flags) {
    request question = {OPEN, pid, 0, flags};
    int fd = -1;
    return ask(&question, -1, &fd) < 0 ? -1 : fd;
}

int pidfd_send_signal(int pidfd, int signal, void *info, unsigned flags) {
    request question = {SIGNAL, 0, signal, flags};
    int fd = -1;
    (void)info;
    return ask(&question, pidfd, &fd);
}
