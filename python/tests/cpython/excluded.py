"""CPython's tests that cannot hold for another implementation, and why."""

EXCLUDED = {
    "TestPoolNotLeakOnFailure.test_release_unused_processes": (
        "its fake processes have no process ids; tests/test_face.py does the same with real ones"
    ),
}
