/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * ringpool: a pool of worker processes over shared memory.
 *
 *     static int32_t add(void *userdata, const void *input, size_t size, rp_output *output) {
 *         const int64_t *numbers = input;
 *         int64_t sum = numbers[0] + numbers[1];
 *         (void)userdata;
 *         if (size != 2 * sizeof *numbers) return rp_output_fail(output, 1, "two numbers, please");
 *         return rp_output_write(output, &sum, sizeof sum);
 *     }
 *
 *     rp_register("add", add, NULL);
 *     rp_pool *pool = NULL;
 *     rp_pool_new(NULL, &pool);
 *     int64_t numbers[] = {10, 20};
 *     rp_result *sum = NULL;
 *     rp_apply(pool, "add", numbers, sizeof numbers, &sum);
 *     printf("%" PRId64 "\n", *(const int64_t *)sum->data);
 *     rp_result_free(&sum);
 *     rp_pool_free(&pool);
 *
 * CONVENTIONS
 *
 * Functions that can fail return an rp_status, 0 being success. rp_last_error() then has the text and the details, for each
 * thread by itself. Outputs are written through the last parameters, and only on success. A pointer that must not be NULL is
 * checked: RP_NULL_POINTER. Strings end with a zero and are UTF-8. Timeouts are seconds; 0 looks and does not wait, a
 * negative one (RP_FOREVER) never passes.
 *
 * OWNERSHIP
 *
 * What a function gives through an rp_x **, its caller frees with rp_x_free(), which takes the address of the handle and makes
 * the handle NULL. Freeing NULL, or a handle that is NULL, does nothing; so freeing the same handle twice is no error. A copy
 * of a handle does not become NULL, and must not be used any more. Handles can be freed in any order: results stay readable
 * after their pool has gone, and the pool's shared memory goes with the last of them.
 *
 * Inputs are copied before a function returns, but for buffers (rp_buffer), which tasks read where they are. Outputs are never
 * copied: data points into shared memory, is good until the result is freed, and must not be written. Who holds many large
 * results makes the pool copy further ones, so that workers do not run out of memory.
 *
 * BYTES
 *
 * An input is some bytes, and so is an output; nothing is added, and they mean what the caller and the task agree on. Both
 * processes run on the same machine, so a struct is its own bytes. Inputs are aligned to 16 bytes, and so are outputs longer
 * than 8 bytes; those of 8 bytes or less to 8; items of an array, and outputs of the items of one chunk, to their size.
 *
 * A task that a program in Rust registered with its types can be called, too, and such a program can call tasks in C: it sees
 * the bytes as rkyv archives, which for numbers, and tuples and structs of them without padding, are just these. For example
 * ringpool::register("add", |a: u64, b: u64| a + b) is called with 16 bytes and gives 8. Many items are such a task's only by
 * rp_map_array() and its like: those of rp_map() may all have other sizes, which it does not know how to read
 * (RP_BAD_PAYLOAD). See ringpool::raw in its documentation.
 *
 * THREADS
 *
 * All functions may be called by any number of threads at the same time, on the same handles; only rp_x_free() must be the last
 * that is called with a handle, and rp_options_init() and the tasks' rp_output_x() are for one thread. Threads that ask one
 * rp_iter for the next output take turns. A thread that waits helps: it takes results out of shared memory for all.
 *
 * Callbacks of a pool run on a thread of its own, one after the other (see rp_callbacks). Tasks run on the first thread of a
 * worker, or on the one that called rp_worker_attach(), one after the other. The pool has one more thread, which watches over
 * the workers. The library handles no signals of the program that uses it, and changes no environment variables but its own,
 * RINGPOOL_ENTER, which rp_worker_main_if_worker() removes.
 *
 * FORKS
 *
 * With RP_START_FORK workers are forks of the process as it was when rp_pool_new() was called. Memory of that moment is there
 * in each task, private to its worker; other threads are not, and locks that they held at that moment stay locked: a program
 * that has other threads by then does best with RP_START_FORKSERVER or RP_START_SPAWN. Handlers of signals are reset in
 * workers, Ctrl-C is ignored, exit handlers are not run when a worker ends by itself. Output that stdio had not yet written
 * when the pool was started is written by a task that flushes it, too: call fflush(NULL) before rp_pool_new().
 *
 * A program may fork as it likes. In the child, handles of its parent are of no use: functions that take a pool, a call, an
 * iterator, a queue or a buffer return RP_FORKED, the data of results must not be touched, and freeing does nothing to the
 * parent's pool.
 *
 * CRASHES
 *
 * A worker that dies, by a signal, by abort() or exit(), costs the task that it ran: RP_WORKER_DIED, with the signal or exit
 * code in rp_last_error(). Of a chunk of a map that is the item that it ran, or with rp_register_array() the whole chunk. The
 * worker is replaced, and all other calls go on.
 */


#ifndef RINGPOOL_H
#define RINGPOOL_H

/* Generated from ffi/src by: UPDATE_HEADER=1 cargo test -p ringpool-ffi --test header */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The version of this interface. It changes only when programs have to be compiled anew; then the library has another
 * soname, too.
 */
#define RP_ABI_VERSION 1

/**
 * The version of the library, as in 0.1.0.
 */
#define RP_VERSION_MAJOR 0

/**
 * See RP_VERSION_MAJOR.
 */
#define RP_VERSION_MINOR 1

/**
 * See RP_VERSION_MAJOR.
 */
#define RP_VERSION_PATCH 0

/**
 * Wait for ever: a timeout that never passes. Any negative number is as good.
 */
#define RP_FOREVER -1.0

/**
 * Workers are forks of this process as it is when the pool starts. The default.
 */
#define RP_START_FORK 0

/**
 * Each worker is a new run of a program, which enters at rp_worker_main_if_worker().
 */
#define RP_START_SPAWN 1

/**
 * One new run of a program, which enters there, forks all workers.
 */
#define RP_START_FORKSERVER 2

/**
 * What became of a call. Numbers are never used for anything else; later versions may add some.
 */
enum rp_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It was done.
     */
    RP_OK = 0,
    /**
     * A pointer is NULL that must not be.
     */
    RP_NULL_POINTER = 3001,
    /**
     * An argument makes no sense: rp_last_error() says which, and what would.
     */
    RP_INVALID = 3002,
    /**
     * The task itself failed: see task_code.
     */
    RP_TASK_FAILED = 3003,
    /**
     * The task panicked, as tasks in Rust do. Its worker lives on.
     */
    RP_TASK_PANICKED = 3004,
    /**
     * The process that ran the task died: see signal and exit_code.
     */
    RP_WORKER_DIED = 3005,
    /**
     * It did not come in time. Nothing is cancelled: ask again.
     */
    RP_TIMEOUT = 3006,
    /**
     * The pool is closed and takes no new work.
     */
    RP_CLOSED = 3007,
    /**
     * The pool was terminated before the work was done.
     */
    RP_TERMINATED = 3008,
    /**
     * A pool is to be closed or terminated before it is joined.
     */
    RP_STILL_RUNNING = 3009,
    /**
     * The handle was made by another process, whose fork this is.
     */
    RP_FORKED = 3010,
    /**
     * The initializer failed, so the pool cannot work.
     */
    RP_INITIALIZER_FAILED = 3011,
    /**
     * Workers cannot be started.
     */
    RP_START_FAILED = 3012,
    /**
     * All task slots were taken for longer than the pool's patience.
     */
    RP_FULL = 3013,
    /**
     * There is not so much shared memory as an input or output needs.
     */
    RP_NO_MEMORY = 3014,
    /**
     * An input or output is not what the other side takes it for.
     */
    RP_BAD_PAYLOAD = 3015,
    /**
     * The worker knows no task of this name.
     */
    RP_UNKNOWN_TASK = 3016,
    /**
     * Words in shared memory hold values that nobody writes there.
     */
    RP_CORRUPTED = 3017,
    /**
     * A named pool cannot be joined.
     */
    RP_ATTACH_REFUSED = 3018,
    /**
     * The operating system refused something.
     */
    RP_SYSTEM = 3019,
    /**
     * The call was taken back before a worker had started it.
     */
    RP_CANCELLED = 3020,
    /**
     * There is no more: an iterator has ended, or no call of a queue is outstanding.
     */
    RP_END = 3021,
    /**
     * It is not known yet.
     */
    RP_NOT_READY = 3022,
    /**
     * The caller's memory does not hold the output.
     */
    RP_TOO_SMALL = 3023,
    /**
     * The function that gives an iterator its inputs failed.
     */
    RP_INPUT_FAILED = 3024,
    /**
     * A bug in the library. The process and the pool go on.
     */
    RP_BUG = 3025,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum rp_status rp_status;
#else
typedef int32_t rp_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The output of a call, or the outputs of a map, now or later. Any number of threads may ask for it.
 */
typedef struct rp_async rp_async;

/**
 * Outputs that come one after the other. Threads that ask at the same time wait for each other.
 */
typedef struct rp_iter rp_iter;

/**
 * Where a task writes its output. It is good until the task returns, in the thread that the task was called in.
 */
typedef struct rp_output rp_output;

/**
 * A pool of worker processes. Any number of threads may use it at the same time.
 */
typedef struct rp_pool rp_pool;

/**
 * Calls that are submitted by many, and whose outputs are taken by many, as they come: for calls so short that submitting
 * and taking each by itself would cost more. Any number of threads may submit and take.
 */
typedef struct rp_queue rp_queue;

/**
 * Outputs of many calls, where they lie, each good or failed by itself. Good until rp_results_free(), also after the pool
 * has gone. Any number of threads may look at them.
 */
typedef struct rp_results rp_results;

/**
 * What is known about a failure. Later versions may append fields.
 */
typedef struct rp_error {
    /**
     * What kind it is.
     */
    rp_status status;
    /**
     * What happened, with the values that matter, in UTF-8; never NULL.
     */
    const char *text;
    /**
     * RP_TASK_FAILED: the code with which a task failed; 0 if it gave none.
     */
    int32_t task_code;
    /**
     * RP_WORKER_DIED: the signal that killed the process, or 0.
     */
    int32_t signal;
    /**
     * RP_WORKER_DIED: the exit code with which the process left, or -1.
     */
    int32_t exit_code;
    /**
     * RP_WORKER_DIED: the process; else 0.
     */
    uint32_t pid;
} rp_error;

/**
 * A task: reads size bytes of input where they lie, aligned to 16 bytes, writes its output, and returns 0; or returns
 * another number, with which the call fails (see rp_output_fail()).
 *
 * The input is not to be written. C++ exceptions must not leave the function: the worker would abort.
 */
typedef int32_t (*rp_task_fn)(void *userdata,
                              const void *input,
                              size_t size,
                              struct rp_output *output);

/**
 * A task for arrays: reads count items that lie side by side, and writes as many results side by side, all of them.
 * Called once for each chunk of a map. Returns 0; or another number, with which all items of the chunk fail.
 *
 * The output is for rp_output_fail() only.
 */
typedef int32_t (*rp_array_fn)(void *userdata,
                               const void *items,
                               size_t count,
                               void *results,
                               struct rp_output *output);

/**
 * Settings of a pool. All zeros but for the size, as rp_options_init() leaves it, are the defaults.
 *
 * Later versions append fields; size says which of them the program knows.
 */
typedef struct rp_options {
    /**
     * sizeof(rp_options); rp_options_init() sets it.
     */
    size_t size;
    /**
     * How many workers, at most 1023; 0: one for each CPU that this process may use.
     */
    uint32_t processes;
    /**
     * RP_START_FORK, RP_START_SPAWN or RP_START_FORKSERVER.
     */
    uint32_t start_method;
    /**
     * With RP_START_SPAWN and RP_START_FORKSERVER: the program and its arguments, and a NULL behind them. NULL: the
     * file of this program, without arguments; this program must have called rp_worker_main_if_worker() then.
     */
    const char *const *command;
    /**
     * The name of a task that each worker runs before all others, replacements included; or NULL. If it fails,
     * the pool ends, and all calls fail with RP_INITIALIZER_FAILED.
     */
    const char *initializer;
    /**
     * The initializer's input, copied.
     */
    const void *initializer_input;
    /**
     * The size of that.
     */
    size_t initializer_size;
    /**
     * After so many tasks (a chunk of a map is one) a worker leaves and a fresh one takes its place; 0: never.
     */
    uint64_t max_tasks_per_child;
    /**
     * How often a task is started again after its worker died under it: 0 to 14.
     */
    uint32_t retries;
    /**
     * How many tasks may be on their way at once, 2 to 4194304; 0: 1024. Who submits more waits.
     */
    uint32_t slots;
    /**
     * Seconds to wait for a slot or for shared memory while others have it all; 0: ten minutes.
     */
    double patience;
    /**
     * Most shared memory for the inputs, or outputs, of each process, in bytes; 0: half of the machine's memory.
     */
    uint64_t memory_quota;
    /**
     * Address space for that: the largest that the quota can be; 0: 16 GiB.
     */
    uint64_t memory_reserve;
    /**
     * By which workers of other programs join (rp_worker_attach()); or NULL.
     */
    const char *name;
    /**
     * Not 0: launch no workers; only those that join by name work for this pool.
     */
    uint32_t guests_only;
    /**
     * Not 0: distrust what workers write. Everything in shared memory carries checks, and outputs are copied before
     * they are looked at: a value that comes is right, whatever a wild pointer in a worker writes over.
     */
    uint32_t hardened;
} rp_options;

/**
 * The output of a call, where it lies: nothing is copied. Good until rp_result_free(), also after its pool has gone.
 *
 * Later versions may append fields.
 */
typedef struct rp_result {
    /**
     * Where it begins; not NULL. Not to be written. Aligned to 16 bytes if it is longer than 8, else to 8; but within
     * a chunk of several items to the items' size only.
     */
    const void *data;
    /**
     * How many bytes it has.
     */
    size_t size;
} rp_result;

/**
 * What is called when an output has come. All of a pool's callbacks run on one thread of their own, which does nothing else,
 * one after the other; rp_pool_join() waits for them. They may use the pool, but not join or free it. C++ exceptions must
 * not leave them: the program would abort.
 *
 * Later versions append fields; size says which of them the program knows.
 */
typedef struct rp_callbacks {
    /**
     * sizeof(rp_callbacks).
     */
    size_t size;
    /**
     * Passed to each of them.
     */
    void *userdata;
    /**
     * The output of a call, which is good during the call back only. May be NULL.
     */
    void (*result)(void *userdata,
                   const void *data,
                   size_t size);
    /**
     * The outputs of a map, once, if no item failed; good during the call back only. May be NULL.
     */
    void (*results)(void *userdata,
                    const struct rp_results *results);
    /**
     * The failure of a call, or of the first item of a map that failed; good during the call back only. May be NULL.
     */
    void (*error)(void *userdata,
                  const struct rp_error *error);
} rp_callbacks;

/**
 * Shared memory of a pool, to be filled in place and given to tasks without a copy.
 *
 * It may be given to any number of tasks, one after the other or at the same time, and be freed at any time: what a task
 * was given stays there until it is done. But it must not be written as long as a task that was given it is not done.
 * While it is in use as items of one size, it cannot be mapped as items of another (RP_INVALID).
 * Later versions may append fields.
 */
typedef struct rp_buffer {
    /**
     * Where it begins: aligned to 128 bytes. What it holds at first is not specified.
     */
    void *data;
    /**
     * How many bytes it has.
     */
    size_t size;
} rp_buffer;

/**
 * Some bytes, wherever they are. Size 0 goes with any pointer.
 */
typedef struct rp_bytes {
    /**
     * Where they begin.
     */
    const void *data;
    /**
     * How many they are.
     */
    size_t size;
} rp_bytes;

/**
 * Gives the next input of an iterator: writes where it is to item, and returns 1; or returns 0 if there is no more. The
 * input is copied before the function is called again. Any other number ends the iterator with RP_INPUT_FAILED, after the
 * outputs of the inputs before it.
 *
 * It is called from within rp_imap(), rp_imap_unordered() and rp_iter_next(), in the thread that called those. It must not
 * use or free the iterator, and C++ exceptions must not leave it: the program would abort.
 */
typedef int32_t (*rp_next_fn)(void *userdata,
                              struct rp_bytes *item);

/**
 * Items in memory, for rp_items_next(): where they are, how many, and which is next. The items must stay where they are as
 * long as the iterator takes inputs.
 */
typedef struct rp_items {
    /**
     * The items.
     */
    const struct rp_bytes *items;
    /**
     * How many there are.
     */
    size_t count;
    /**
     * The index of the next.
     */
    size_t next;
} rp_items;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * A short text about a status; of a number that is none, that it is none. Never NULL, and never freed.
 */
const char *rp_status_string(int32_t status);

/**
 * The version of this interface that the library has: see RP_ABI_VERSION.
 */
uint32_t rp_abi_version(void);

/**
 * The last failure of a function of this library on this thread; NULL if there was none.
 *
 * What it points to is good until another function of this library fails on this thread. Functions that succeed leave
 * it alone.
 */
const struct rp_error *rp_last_error(void);

/**
 * Makes a task known as name (1 to 63 bytes, UTF-8), in this process and in its forks to come.
 *
 * Workers that are forked know the tasks that were registered before the pool was started; workers that are run anew,
 * those that were registered before rp_worker_main_if_worker(). Registering the same function with the same userdata
 * again does nothing; another task of the same name is an error. userdata is passed to each call: in a forked worker it
 * points to the fork's own copy.
 */
rp_status rp_register(const char *name,
                      rp_task_fn task,
                      void *userdata);

/**
 * rp_register() for a task that is called once for each chunk of a map, on items of item_size bytes that lie side by side,
 * and gives a result of result_size bytes for each.
 *
 * Called by itself, it works on as many items as its input has. Items are aligned to 16 bytes, or to their own size if the
 * chunk begins within a larger array.
 */
rp_status rp_register_array(const char *name,
                            size_t item_size,
                            size_t result_size,
                            rp_array_fn task,
                            void *userdata);

/**
 * Shared memory for at least size bytes of output behind those that have been committed; NULL if there is none. The first
 * bytes of an output are aligned to 16. What the memory holds is not specified.
 *
 * Write there, and say with rp_output_commit() how much that was. Asking again gives other memory, and makes this one bad:
 * commit first. A task that got NULL can ask for less; else it fails with RP_NO_MEMORY, whatever it returns.
 */
void *rp_output_reserve(struct rp_output *output,
                        size_t size);

/**
 * Makes the first size of the bytes that were reserved last part of the output.
 */
rp_status rp_output_commit(struct rp_output *output,
                           size_t size);

/**
 * Appends size bytes to the output, from elsewhere: memory that was reserved is not good any more then, nor is it to be
 * copied from.
 */
rp_status rp_output_write(struct rp_output *output,
                          const void *data,
                          size_t size);

/**
 * Says why the task fails, and returns the code, for the task to return: return rp_output_fail(output, 2, "no such
 * city"); A code of 0 becomes -1. The message is copied; NULL is none. Bytes that are no UTF-8 are replaced.
 */
int32_t rp_output_fail(struct rp_output *output,
                       int32_t code,
                       const char *message);

/**
 * The first thing in main() of a program that is run as a worker, behind the registration of its tasks.
 *
 * In a program that somebody started it does next to nothing. In one that a pool runs as a worker, or as what forks workers,
 * it serves the pool and never returns. Nothing before it may read standard input or start threads.
 */
void rp_worker_main_if_worker(void);

/**
 * Joins the pool of another program by its name, and works for it on this thread until it ends.
 *
 * The program must have registered every task that the pool's program had registered when it started the pool; otherwise
 * the pool is not joined (RP_ATTACH_REFUSED). RP_OK if the pool was closed or terminated, if its process died, or if this
 * worker has done as many tasks as it may.
 */
rp_status rp_worker_attach(const char *name);

/**
 * Whether this process works for a pool.
 */
bool rp_is_worker(void);

/**
 * Makes all settings the defaults. The second argument is sizeof(rp_options): what the program was compiled with.
 * NULL is ignored.
 */
void rp_options_init(struct rp_options *options,
                     size_t size);

/**
 * Starts a pool. Options may be NULL, for the defaults.
 *
 * Tasks that forked workers are to know are registered before.
 */
rp_status rp_pool_new(const struct rp_options *options,
                      struct rp_pool **pool);

/**
 * Takes no more work. Workers leave when all that was submitted is done, and all iterators that were started have ended.
 */
rp_status rp_pool_close(const struct rp_pool *pool);

/**
 * Kills the workers. Work that is not done fails with RP_TERMINATED. When this returns, the workers are dead.
 */
rp_status rp_pool_terminate(const struct rp_pool *pool);

/**
 * Waits until all workers are gone and all callbacks have run. Only after rp_pool_close() or rp_pool_terminate().
 */
rp_status rp_pool_join(const struct rp_pool *pool);

/**
 * Ends a pool and makes the handle NULL: terminates it, unless it was joined. Results, buffers and all other handles stay
 * good, and are freed by themselves. NULL, and a handle that is NULL, are ignored.
 */
void rp_pool_free(struct rp_pool **pool);

/**
 * How many workers the pool keeps; 0 if it is NULL.
 */
size_t rp_pool_processes(const struct rp_pool *pool);

/**
 * The process ids of the workers that live now, guests included. Writes the first capacity of them to pids, and how many
 * there are to count.
 */
rp_status rp_pool_worker_pids(const struct rp_pool *pool,
                              uint32_t *pids,
                              size_t capacity,
                              size_t *count);

/**
 * Runs a task in a worker and waits for its output.
 */
rp_status rp_apply(const struct rp_pool *pool,
                   const char *task,
                   const void *input,
                   size_t size,
                   struct rp_result **result);

/**
 * rp_apply(), with the output copied to the caller's memory of capacity bytes: nothing is to be freed. written gets the
 * size of the output. If that is more than the capacity, the status is RP_TOO_SMALL, and all that is known of the output is
 * its size, from rp_last_error().
 */
rp_status rp_apply_into(const struct rp_pool *pool,
                        const char *task,
                        const void *input,
                        size_t size,
                        void *output,
                        size_t capacity,
                        size_t *written);

/**
 * Runs a task in a worker; the output can be fetched later. Waits for a slot if all are taken, and for shared memory if
 * inputs have it all, at most for the pool's patience; and for nothing else.
 *
 * callbacks may be NULL. pending may be NULL for who has callbacks, or does not care.
 */
rp_status rp_apply_async(const struct rp_pool *pool,
                         const char *task,
                         const void *input,
                         size_t size,
                         const struct rp_callbacks *callbacks,
                         struct rp_async **pending);

/**
 * rp_apply_async() with the first size bytes of a buffer as input, which are not copied.
 */
rp_status rp_apply_buffer_async(const struct rp_pool *pool,
                                const char *task,
                                const struct rp_buffer *input,
                                size_t size,
                                const struct rp_callbacks *callbacks,
                                struct rp_async **pending);

/**
 * Waits until all that was asked for is done, well or badly; RP_TIMEOUT if that takes more than timeout seconds.
 */
rp_status rp_async_wait(const struct rp_async *pending,
                        double timeout);

/**
 * Waits for the output of a call, for timeout seconds at most: the status of the call. Ask as often as you like.
 */
rp_status rp_async_get(const struct rp_async *pending,
                       double timeout,
                       struct rp_result **result);

/**
 * Waits for all outputs of a map, for timeout seconds at most. RP_OK means that they are there, each good or failed by
 * itself. Ask as often as you like.
 */
rp_status rp_async_results(const struct rp_async *pending,
                           double timeout,
                           struct rp_results **results);

/**
 * Whether all that was asked for is done, well or badly. Not NULL's.
 */
bool rp_async_ready(const struct rp_async *pending);

/**
 * Whether the call, or all items of the map, succeeded. RP_NOT_READY if it is not done.
 */
rp_status rp_async_successful(const struct rp_async *pending,
                              bool *successful);

/**
 * Takes back what no worker has started: the call, or some chunks of the map, which then fail with RP_CANCELLED. cancelled
 * says whether there was any; it may be NULL. A task that runs goes on.
 */
rp_status rp_async_cancel(const struct rp_async *pending,
                          bool *cancelled);

/**
 * Forgets the output and makes the handle NULL. The task is run all the same, and callbacks are called. NULL, and a handle
 * that is NULL, are ignored.
 */
void rp_async_free(struct rp_async **pending);

/**
 * Gives an output back and makes the handle NULL. NULL, and a handle that is NULL, are ignored.
 */
void rp_result_free(struct rp_result **result);

/**
 * Makes a buffer of size bytes.
 */
rp_status rp_buffer_alloc(const struct rp_pool *pool,
                          size_t size,
                          struct rp_buffer **buffer);

/**
 * Gives a buffer back and makes the handle NULL. NULL, and a handle that is NULL, are ignored.
 */
void rp_buffer_free(struct rp_buffer **buffer);

/**
 * Runs a task for each of count items, and waits for all outputs, which are in the order of the items. If items fail, the
 * status is that of the first that failed, and there are no results; all others are run. rp_map_async() gives what
 * succeeded beside what failed.
 *
 * chunksize items travel together and are run by one worker, one after the other; 0 makes four chunks for each worker. A
 * starmap is a map whose items have all arguments in them.
 */
rp_status rp_map(const struct rp_pool *pool,
                 const char *task,
                 const struct rp_bytes *items,
                 size_t count,
                 size_t chunksize,
                 struct rp_results **results);

/**
 * rp_map() that does not wait: see rp_async_results(). The items are copied before it returns. callbacks and pending may be
 * NULL, as for rp_apply_async(); for no items at all, no callback is called.
 */
rp_status rp_map_async(const struct rp_pool *pool,
                       const char *task,
                       const struct rp_bytes *items,
                       size_t count,
                       size_t chunksize,
                       const struct rp_callbacks *callbacks,
                       struct rp_async **pending);

/**
 * Runs a task for each of count items of item_size bytes that lie side by side, and writes the outputs, result_size bytes
 * each, side by side to results. Outputs of another size are RP_BAD_PAYLOAD. If items fail, the status is that of the first
 * that failed, and what results holds is not specified. Items and results must not overlap.
 *
 * Costs one submission for each chunk and, with a task of rp_register_array(), one call for each chunk. chunksize 0 chooses
 * chunks of a quarter of each worker's share, and at most 256 KiB; the last may be smaller.
 */
rp_status rp_map_array(const struct rp_pool *pool,
                       const char *task,
                       const void *items,
                       size_t count,
                       size_t item_size,
                       size_t chunksize,
                       void *results,
                       size_t result_size);

/**
 * The same without waiting: see rp_async_results(), and rp_results_run() for results where they lie, side by side. The
 * items are copied before it returns. callbacks and pending may be NULL, as for rp_apply_async().
 */
rp_status rp_map_array_async(const struct rp_pool *pool,
                             const char *task,
                             const void *items,
                             size_t count,
                             size_t item_size,
                             size_t chunksize,
                             const struct rp_callbacks *callbacks,
                             struct rp_async **pending);

/**
 * The same for all items of a buffer, which are not copied.
 */
rp_status rp_map_buffer_async(const struct rp_pool *pool,
                              const char *task,
                              const struct rp_buffer *items,
                              size_t item_size,
                              size_t chunksize,
                              const struct rp_callbacks *callbacks,
                              struct rp_async **pending);

/**
 * How many there are; 0 if it is NULL.
 */
size_t rp_results_count(const struct rp_results *results);

/**
 * One output; or its failure, as the status that this returns, of which rp_last_error() says more. data and size may be
 * NULL for who wants to know that only.
 */
rp_status rp_results_get(const struct rp_results *results,
                         size_t index,
                         const void **data,
                         size_t *size);

/**
 * The outputs from one on that are equally long and lie side by side: where they begin, how many they are, and the size of
 * each. Or the failure of the first.
 */
rp_status rp_results_run(const struct rp_results *results,
                         size_t index,
                         const void **data,
                         size_t *count,
                         size_t *item_size);

/**
 * The tag with which the call was submitted to its queue. RP_INVALID for results that are not from a queue.
 */
rp_status rp_results_tag(const struct rp_results *results,
                         size_t index,
                         uint64_t *tag);

/**
 * Gives the outputs back and makes the handle NULL. NULL, and a handle that is NULL, are ignored.
 */
void rp_results_free(struct rp_results **results);

/**
 * Runs a task for each input that next gives, as the outputs are asked for; outputs come in the order of the inputs.
 *
 * Lazy and bounded: at most four chunks for each worker, and at least sixteen, have been taken and not yet been returned.
 * chunksize inputs travel together; 0 is 1, which is right unless tasks are very short. While other calls have all slots,
 * or all shared memory, and this iterator none, taking an input waits for them, here and in rp_iter_next(), whatever the
 * timeout there, at most for the pool's patience.
 */
rp_status rp_imap(const struct rp_pool *pool,
                  const char *task,
                  rp_next_fn next,
                  void *userdata,
                  size_t chunksize,
                  struct rp_iter **iter);

/**
 * rp_imap() with outputs in the order in which they come.
 */
rp_status rp_imap_unordered(const struct rp_pool *pool,
                            const char *task,
                            rp_next_fn next,
                            void *userdata,
                            size_t chunksize,
                            struct rp_iter **iter);

/**
 * Waits for the next output, for timeout seconds at most: its status, or RP_END. After RP_TIMEOUT ask again; after the
 * failure of an item the others follow.
 */
rp_status rp_iter_next(struct rp_iter *iter,
                       double timeout,
                       struct rp_result **result);

/**
 * Ends an iterator, half-way or not, and makes the handle NULL. What no worker has started is taken back. NULL, and a handle
 * that is NULL, are ignored.
 */
void rp_iter_free(struct rp_iter **iter);

/**
 * An rp_next_fn whose userdata is an rp_items (a NULL in the place of items is RP_INPUT_FAILED): rp_imap(pool, "task", rp_items_next, &items, 0, &iter).
 */
int32_t rp_items_next(void *items,
                      struct rp_bytes *item);

/**
 * Makes a queue of a pool.
 */
rp_status rp_queue_new(const struct rp_pool *pool,
                       struct rp_queue **queue);

/**
 * Submits a call of a task for each of count inputs. tags has a number for each, which comes back with its output; NULL: its
 * index. Waits while all slots are taken. submitted gets how many were submitted, also on failure; it may be NULL.
 */
rp_status rp_queue_submit(const struct rp_queue *queue,
                          const char *task,
                          const struct rp_bytes *items,
                          const uint64_t *tags,
                          size_t count,
                          size_t *submitted);

/**
 * Takes up to most outputs that have come, with their tags (rp_results_tag()); waits until there is one, for timeout seconds
 * at most. RP_END if no call is outstanding.
 */
rp_status rp_queue_take(const struct rp_queue *queue,
                        size_t most,
                        double timeout,
                        struct rp_results **results);

/**
 * Ends a queue and makes the handle NULL. Calls that no worker has started are taken back, outputs that have not been taken
 * are forgotten. NULL, and a handle that is NULL, are ignored.
 */
void rp_queue_free(struct rp_queue **queue);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* RINGPOOL_H */
