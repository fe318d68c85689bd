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
