"""What workers that run the program's file again find in it, and what therefore goes by value."""

import pytest
import support
from support import run

pytestmark = pytest.mark.skipif(not support.OURS, reason="not for multiprocessing.Pool")

FORMS = {
    "def f(): hidden = 1": {"f"},
    "class C:\n    def method(self): pass": {"C"},
    "async def f(): pass": {"f"},
    "a = b, *c = 1, 2": {"a", "b", "c"},
    "a: int = 1": {"a"},
    "(a := 1)": {"a"},
    "import a.b, c as d\nfrom e import f as g": {"a", "d", "g"},
    "try:\n    import a\nexcept ImportError:\n    def a(): pass\nelse:\n    b = 1\nfinally:\n    c = 1": {
        "a",
        "b",
        "c",
    },
    "with x as a:\n    def f(): pass": {"a", "f"},
    "for a in x:\n    def f(): pass\nwhile x:\n    def g(): pass": {"a", "f", "g"},
    "match x:\n    case [a, *b]:\n        c = 1": {"a", "b", "c"},
    "if x:\n    def f(): pass\nelse:\n    def g(): pass": {"f", "g"},
    "if __name__ == '__main__':\n    a = 1\nelse:\n    b = 1": {"b"},
    "if '__main__' == __name__ and x:\n    a = 1\nelif y:\n    b = 1": {"b"},
    "if __name__ != '__main__':\n    a = 1\nelse:\n    b = 1": {"a"},
    "if not __name__ == '__main__':\n    a = 1\nelse:\n    b = 1": {"a"},
    "if __name__ == '__main__' or x:\n    a = 1": {"a"},
    "if x:\n    if __name__ == '__main__':\n        a = 1\n    b = 1": {"b"},
    "def main():\n    global f\n    def f(): pass": {"main"},
    # These define what cannot be seen.
    "from a import *": None,
    "globals().update(a=1)": None,
    "exec('a = 1')": None,
    "def f(:": None,
    "\0": None,
    # But not these.
    "if __name__ == '__main__':\n    from a import *\n    exec('b = 1')": set(),
    "def f():\n    exec('a = 1')": {"f"},
}


@pytest.mark.parametrize("text", FORMS)
def test_what_a_file_defines_for_workers(tmp_path, text):
    from ringpool._source import defined_in_workers

    file = tmp_path / "main.py"
    file.write_text(text)
    assert defined_in_workers(str(file)) == FORMS[text]


def test_no_file():
    from ringpool._source import defined_in_workers

    assert defined_in_workers(None) is None
    assert defined_in_workers("/nonexistent/main.py") is None


GUARDED = """
import sys
import support

count = 0

def early(value):
    global count
    count += 1
    return count

class Early:
    def get(self):
        return "early"

def initializer():
    global count
    count = 100

if __name__ == "__main__":
    def late(value):
        return ("late", value, early(0))

    class Late:
        def __init__(self, value):
            self.value = value
        def get(self):
            return self.value

    def set_up():
        sys.was_set_up = True

    def was_set_up():
        return sys.was_set_up

    with support.make(1, method=sys.argv[1], initializer=initializer) as pool:
        # By its name, and so it has the module's globals.
        print(pool.map(early, [1, 2]), pool.apply(Early().get))
        print([answer[:2] for answer in pool.map(late, [1, 2])], pool.apply(Late(5).get))
        print(pool.map(early, [1]))
    with support.make(1, method=sys.argv[1], initializer=set_up) as pool:
        print(pool.apply(was_set_up))
"""


@pytest.mark.parametrize("method", support.METHODS)
def test_functions_behind_the_guard(tmp_path, method):
    pytest.importorskip("cloudpickle")
    code, out, err = run(tmp_path / "program.py", GUARDED, method)
    assert code == 0, err
    # Forked workers find all by name; what goes by value has globals of its own.
    third = 105 if method == "fork" else 103
    assert out.splitlines() == [
        "[101, 102] early",
        "[('late', 1), ('late', 2)] 5",
        f"[{third}]",
        "True",
    ]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_main_module_of_a_package(tmp_path, method):
    """No worker runs that again, so that all of it goes by value."""
    pytest.importorskip("cloudpickle")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import sys\n"
        "import support\n"
        "def double(value):\n"
        "    return value * 2\n"
        "with support.make(1, method=sys.argv[1]) as pool:\n"
        "    print(pool.map(double, [1, 2]))\n"
    )
    text = (
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "runpy.run_module('package', run_name='__main__', alter_sys=True)\n"
    )
    code, out, err = run(tmp_path / "program.py", text, method)
    assert (code, out) == (0, "[2, 4]\n"), err
