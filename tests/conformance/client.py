"""The conformance suite's client in Python, over the C library and with nothing but the standard library.

    client.py LIBRARY TABLE LANGUAGE WORKER

Runs the cases of the table whose tasks are in that language, in runs of the program WORKER, and prints what client.c prints.
"""

import struct
import sys
from ctypes import (
    CDLL, POINTER, Structure, byref, c_bool, c_char, c_char_p, c_double, c_int32, c_size_t, c_uint32, c_uint64, c_void_p,
    cast, create_string_buffer, sizeof, string_at,
)

FOREVER = -1.0
START_SPAWN = 1
OK = 0
TASK_FAILED = 3003
WORKER_DIED = 3005
END = 3021
NAMES = {
    3004: "task_panicked",
    3006: "timeout",
    3007: "closed",
    3008: "terminated",
    3011: "initializer_failed",
    3015: "bad_payload",
    3016: "unknown_task",
    3020: "cancelled",
}


class Bytes(Structure):
    _fields_ = [("data", c_void_p), ("size", c_size_t)]


class Error(Structure):
    _fields_ = [
        ("status", c_int32),
        ("text", c_char_p),
        ("task_code", c_int32),
        ("signal", c_int32),
        ("exit_code", c_int32),
        ("pid", c_uint32),
    ]


class Items(Structure):
    _fields_ = [("items", POINTER(Bytes)), ("count", c_size_t), ("next", c_size_t)]


class Options(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("processes", c_uint32),
        ("start_method", c_uint32),
        ("command", POINTER(c_char_p)),
        ("initializer", c_char_p),
        ("initializer_input", c_char_p),
        ("initializer_size", c_size_t),
        ("max_tasks_per_child", c_uint64),
        ("retries", c_uint32),
        ("slots", c_uint32),
        ("patience", c_double),
        ("memory_quota", c_uint64),
        ("memory_reserve", c_uint64),
        ("name", c_char_p),
        ("guests_only", c_uint32),
        ("hardened", c_uint32),
    ]


HANDLE = POINTER(c_void_p)
ITEMS = POINTER(Bytes)
CALL = [c_void_p, c_char_p, c_char_p, c_size_t]
MANY = [c_void_p, c_char_p, ITEMS, c_size_t, c_size_t]
SIDE_BY_SIDE = [c_void_p, c_char_p, c_char_p, c_size_t, c_size_t, c_size_t]
PLACE = POINTER(c_void_p)
FUNCTIONS = {
    "rp_options_init": (None, [POINTER(Options), c_size_t]),
    "rp_pool_new": (c_int32, [POINTER(Options), HANDLE]),
    "rp_pool_close": (c_int32, [c_void_p]),
    "rp_pool_terminate": (c_int32, [c_void_p]),
    "rp_pool_free": (None, [HANDLE]),
    "rp_last_error": (POINTER(Error), []),
    "rp_apply": (c_int32, CALL + [POINTER(POINTER(Bytes))]),
    "rp_apply_async": (c_int32, CALL + [c_void_p, HANDLE]),
    "rp_async_get": (c_int32, [c_void_p, c_double, POINTER(POINTER(Bytes))]),
    "rp_async_results": (c_int32, [c_void_p, c_double, HANDLE]),
    "rp_async_cancel": (c_int32, [c_void_p, POINTER(c_bool)]),
    "rp_async_free": (None, [HANDLE]),
    "rp_result_free": (None, [POINTER(POINTER(Bytes))]),
    "rp_map": (c_int32, MANY + [HANDLE]),
    "rp_map_async": (c_int32, MANY + [c_void_p, HANDLE]),
    "rp_map_array": (c_int32, SIDE_BY_SIDE + [c_void_p, c_size_t]),
    "rp_map_array_async": (c_int32, SIDE_BY_SIDE + [c_void_p, HANDLE]),
    "rp_results_count": (c_size_t, [c_void_p]),
    "rp_results_get": (c_int32, [c_void_p, c_size_t, PLACE, POINTER(c_size_t)]),
    "rp_results_tag": (c_int32, [c_void_p, c_size_t, POINTER(c_uint64)]),
    "rp_results_free": (None, [HANDLE]),
    "rp_imap": (c_int32, [c_void_p, c_char_p, c_void_p, c_void_p, c_size_t, HANDLE]),
    "rp_imap_unordered": (c_int32, [c_void_p, c_char_p, c_void_p, c_void_p, c_size_t, HANDLE]),
    "rp_iter_next": (c_int32, [c_void_p, c_double, POINTER(POINTER(Bytes))]),
    "rp_iter_free": (None, [HANDLE]),
    "rp_queue_new": (c_int32, [c_void_p, HANDLE]),
    "rp_queue_submit": (c_int32, [c_void_p, c_char_p, ITEMS, c_void_p, c_size_t, POINTER(c_size_t)]),
    "rp_queue_take": (c_int32, [c_void_p, c_size_t, c_double, HANDLE]),
    "rp_queue_free": (None, [HANDLE]),
}


def load(path):
    library = CDLL(path)
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def parse(text):
    """The items of a case."""
    items = []
    for word in [] if text == "none" else text.split(";"):
        kind, rest = word[0], word[1:]
        if kind == "x":
            items.append(bytes.fromhex(rest))
        elif kind == "p":
            items.append(bytes((at * 31 + at // 256) & 255 for at in range(int(rest))))
        elif kind == "u":
            items.append(b"".join(struct.pack("=Q", int(number)) for number in rest.split(",")))
        elif kind == "f":
            items.append(b"".join(struct.pack("=d", float(number)) for number in rest.split(",")))
        elif kind == "n":
            count, factor = map(int, rest.split("*"))
            items.extend(struct.pack("=Q", at * factor) for at in range(count))
        else:
            raise ValueError("no item: " + word)
    return items


def in_memory(items):
    """Items as an array of rp_bytes; they live as long as what else is returned."""
    kept = [create_string_buffer(item, max(len(item), 1)) for item in items]
    array = (Bytes * max(len(items), 1))()
    for place, buffer, item in zip(array, kept, items):
        place.data, place.size = cast(buffer, c_void_p), len(item)
    return array, kept


def good(data):
    if len(data) <= 40:
        return data.hex()
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{len(data)} bytes, {value:016x}"


class Client:
    def __init__(self, library, worker):
        self.rp = load(library)
        self.command = (c_char_p * 2)(worker.encode(), None)
        self.pool = self.start("shared")

    def check(self, status):
        assert status == OK, self.rp.rp_last_error().contents.text

    def bad(self, status):
        error = self.rp.rp_last_error().contents
        assert error.status == status, (error.status, status)
        text = error.text.decode()
        if status == TASK_FAILED:
            assert f" code {error.task_code}: " in text, text
            return "!task_failed " + text
        if status == WORKER_DIED and error.signal != 0:
            return f"!worker_died signal {error.signal}"
        if status == WORKER_DIED:
            return f"!worker_died exit {error.exit_code}"
        return "!" + NAMES.get(status, f"other {status}: {text}")

    def start(self, kind):
        options = Options()
        self.rp.rp_options_init(byref(options), sizeof(options))
        options.processes = 1 if kind == "single" else 2
        options.start_method = START_SPAWN
        options.command = self.command
        options.hardened = kind == "hardened"
        options.max_tasks_per_child = 2 if kind == "brief" else 0
        if kind in ("set_up", "broken"):
            options.initializer = b"set_up"
            options.initializer_input = b"set"
            options.initializer_size = 3 if kind == "set_up" else 0
        pool = c_void_p()
        self.check(self.rp.rp_pool_new(byref(options), byref(pool)))
        if kind == "closed":
            self.check(self.rp.rp_pool_close(pool))
        elif kind == "terminated":
            self.check(self.rp.rp_pool_terminate(pool))
        return pool

    def one(self, status, result):
        if status != OK:
            return [self.bad(status)]
        outcome = good(string_at(result.contents.data, result.contents.size))
        self.rp.rp_result_free(byref(result))
        assert not result
        return [outcome]

    def item(self, results, index):
        data, size = c_void_p(), c_size_t()
        status = self.rp.rp_results_get(results, index, byref(data), byref(size))
        return good(string_at(data, size.value)) if status == OK else self.bad(status)

    def each(self, status, results):
        if status != OK:
            return [self.bad(status)]
        outcomes = [self.item(results, index) for index in range(self.rp.rp_results_count(results))]
        self.rp.rp_results_free(byref(results))
        return outcomes

    def wait_for_each(self, status, pending):
        results = c_void_p()
        if status == OK:
            status = self.rp.rp_async_results(pending, FOREVER, byref(results))
        outcomes = self.each(status, results)
        self.rp.rp_async_free(byref(pending))
        return outcomes

    def run(self, pool, call, task, items):
        library, how, rest = self.rp, call[0], call[1:]
        array, kept = in_memory(items)
        if how == "apply":
            result = POINTER(Bytes)()
            return self.one(library.rp_apply(pool, task, items[0], len(items[0]), byref(result)), result)
        if how == "map":
            results = c_void_p()
            status = library.rp_map(pool, task, array, len(items), int(rest[0]), byref(results))
            return self.each(status, results)
        if how == "map_each":
            pending = c_void_p()
            status = library.rp_map_async(pool, task, array, len(items), int(rest[0]), None, byref(pending))
            return self.wait_for_each(status, pending)
        if how == "array":
            size = int(rest[1])
            values = (c_char * (len(items) * size))()
            joined, count = b"".join(items), len(items)
            status = library.rp_map_array(pool, task, joined, count, len(items[0]), int(rest[0]), values, size)
            if status != OK:
                return [self.bad(status)]
            return [good(values.raw[at * size:(at + 1) * size]) for at in range(count)]
        if how == "array_each":
            pending = c_void_p()
            joined, count = b"".join(items), len(items)
            status = library.rp_map_array_async(
                pool, task, joined, count, len(items[0]), int(rest[0]), None, byref(pending))
            return self.wait_for_each(status, pending)
        if how in ("imap", "unordered"):
            return self.stream(pool, how, task, array, len(items), int(rest[0]))
        if how == "queue":
            return self.batch(pool, task, array, len(items))
        return self.later(pool, how, task, items[0], float(rest[0]) if how == "timeout" else FOREVER)

    def stream(self, pool, how, task, array, count, chunk):
        library = self.rp
        start = library.rp_imap if how == "imap" else library.rp_imap_unordered
        source, iterator = Items(array, count, 0), c_void_p()
        status = start(pool, task, cast(library.rp_items_next, c_void_p), byref(source), chunk, byref(iterator))
        if status != OK:
            return [self.bad(status)]
        outcomes = []
        while True:
            result = POINTER(Bytes)()
            status = library.rp_iter_next(iterator, FOREVER, byref(result))
            if status == END:
                break
            outcomes += self.one(status, result)
        library.rp_iter_free(byref(iterator))
        return outcomes if how == "imap" else sorted(outcomes)

    def batch(self, pool, task, array, count):
        library, queue, submitted = self.rp, c_void_p(), c_size_t()
        self.check(library.rp_queue_new(pool, byref(queue)))
        self.check(library.rp_queue_submit(queue, task, array, None, count, byref(submitted)))
        outcomes = {}
        while True:
            taken, tag = c_void_p(), c_uint64()
            status = library.rp_queue_take(queue, 16, FOREVER, byref(taken))
            if status == END:
                break
            self.check(status)
            for index in range(library.rp_results_count(taken)):
                self.check(library.rp_results_tag(taken, index, byref(tag)))
                assert tag.value not in outcomes
                outcomes[tag.value] = self.item(taken, index)
            library.rp_results_free(byref(taken))
        library.rp_queue_free(byref(queue))
        assert len(outcomes) == count == submitted.value
        return [outcomes[tag] for tag in range(count)]

    def later(self, pool, how, task, item, timeout):
        library, before, pending = self.rp, c_void_p(), c_void_p()
        result = POINTER(Bytes)()
        if how == "cancel":
            self.check(library.rp_apply_async(pool, task, item, len(item), None, byref(before)))
        status = library.rp_apply_async(pool, task, item, len(item), None, byref(pending))
        if status == OK:
            if how == "cancel":
                cancelled = c_bool()
                self.check(library.rp_async_cancel(pending, byref(cancelled)))
                assert cancelled.value
            elif how == "terminate":
                self.check(library.rp_pool_terminate(pool))
            status = library.rp_async_get(pending, timeout, byref(result))
        outcomes = self.one(status, result)
        library.rp_async_free(byref(before))
        library.rp_async_free(byref(pending))
        return outcomes

    def case(self, fields, language):
        name, kind, workers, call, task, inputs, _ = fields
        if workers not in ("any", language):
            return
        own = None if kind == "shared" else self.start(kind)
        outcomes = self.run(own or self.pool, call.split(), task.encode(), parse(inputs))
        if own:
            self.rp.rp_pool_free(byref(own))
        print(name, ";".join(outcomes) if outcomes else "none", sep="\t", flush=True)


def main():
    library, table, language, worker = sys.argv[1:]
    client = Client(library, worker)
    with open(table, encoding="utf-8") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                client.case([field.strip() for field in line.split("|")], language)
    client.rp.rp_pool_free(byref(client.pool))


main()
