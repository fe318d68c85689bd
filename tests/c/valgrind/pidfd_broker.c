/* Opens process handles for programs under a valgrind that does not know the system calls for that.
 *
 *     pidfd_broker SHIM PROGRAM ARGUMENT..
 *
 * Listens at an abstract address, which it puts into the environment, and runs the program with the shim (pidfd_shim.c)
 * loaded, which asks it; its exit code is the program's. It must not run under valgrind itself.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pidfd.h"

/* Answers one request. Clients connect anew for each. */
static void serve(int client) {
    request question;
    answer reply = {-1, 0};
    int sent = -1, fd = -1;
    if (!receive(client, &question, sizeof question, &sent)) {
        return;
    }
    if (question.kind == OPEN) {
        fd = (int)syscall(SYS_pidfd_open, question.pid, question.flags);
        reply.result = fd;
    } else {
        reply.result = (int)syscall(SYS_pidfd_send_signal, sent, question.signal, NULL, question.flags);
    }
    reply.error = errno;
    deliver(client, &reply, sizeof reply, fd);
    if (fd >= 0) {
        close(fd);
    }
    if (sent >= 0) {
        close(sent);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_un address;
    char name[64];
    int listener, ready[2], status = 0;
    pid_t program, self = getpid();
    struct pollfd wait[1];
    if (argc < 3) {
        return 2;
    }
    snprintf(name, sizeof name, "ringpool-pidfd-%ld", (long)self);
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, at_name(&address, name)) != 0 ||
        listen(listener, 64) != 0 || pipe(ready) != 0) {
        perror("pidfd_broker");
        return 2;
    }
    setenv(VARIABLE, name, 1);
    program = fork();
    if (program == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setenv("LD_PRELOAD", argv[1], 1);
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    wait[0].fd = listener;
    wait[0].events = POLLIN;
    for (;;) {
        if (poll(wait, 1, 50) > 0) {
            int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (client >= 0) {
                serve(client);
                close(client);
            }
        } else if (waitpid(program, &status, WNOHANG) == program) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
    }
}
