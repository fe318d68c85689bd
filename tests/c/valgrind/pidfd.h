/* What pidfd_broker.c and pidfd_shim.c say to each other: one packet each way, with a descriptor or without. */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define VARIABLE "RINGPOOL_PIDFD_BROKER"

enum { OPEN, SIGNAL };

typedef struct request {
    int32_t kind, pid, signal;
    uint32_t flags;
} request;

typedef struct answer {
    int32_t result, error;
} answer;

static inline socklen_t at_name(struct sockaddr_un *address, const char *name) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path + 1, name, strlen(name));
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
}

static inline bool deliver(int to, const void *bytes, size_t size, int fd) {
    char room[CMSG_SPACE(sizeof fd)];
    struct iovec part = {(void *)bytes, size};
    struct msghdr message;
    memset(&message, 0, sizeof message);
    memset(room, 0, sizeof room);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (fd >= 0) {
        struct cmsghdr *head;
        message.msg_control = room;
        message.msg_controllen = sizeof room;
        head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    return sendmsg(to, &message, MSG_NOSIGNAL) == (ssize_t)size;
}

static inline bool receive(int from, void *bytes, size_t size, int *fd) {
    char room[CMSG_SPACE(sizeof *fd)];
    struct iovec part = {bytes, size};
    struct msghdr message;
    struct cmsghdr *head;
    ssize_t got;
    memset(&message, 0, sizeof message);
    memset(room, 0, sizeof room);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    do {
        got = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    head = CMSG_FIRSTHDR(&message);
    if (head != NULL && head->cmsg_type == SCM_RIGHTS) {
        memcpy(fd, CMSG_DATA(head), sizeof *fd);
    }
    return got == (ssize_t)size;
}
