"""What a program's file defines when a worker runs it, which is not as `__main__`."""

from __future__ import annotations

import types
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast

    _Block = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

# `ast` and `dis` take a while to import and are used once at most, so not before.

__all__ = ["defined_in_workers"]

#: Who looks at names by these may define others than can be seen.
_DYNAMIC = frozenset({"__import__", "exec", "globals", "locals", "setattr", "vars"})


def defined_in_workers(file: str | None) -> frozenset[str] | None:
    """The names that a file defines but for what is under `if __name__ == "__main__":`.

    None if that cannot be told: there is no source, or it imports or makes names that it does not have.
    """
    if file is None:
        return None
    try:
        code = _unguarded(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    if code is None or not _DYNAMIC.isdisjoint(code.co_names):
        return None
    import dis

    stores = ("STORE_NAME", "STORE_GLOBAL")
    return frozenset(at.argval for at in dis.get_instructions(code) if at.opname in stores)


def _unguarded(source: bytes) -> types.CodeType | None:
    """What workers run of it; None if that imports names that are not said.

    >>> code = _unguarded(b'''
    ... import os
    ... def early(): pass
    ... if __name__ == "__main__":
    ...     def late(): pass
    ... else:
    ...     def other(): pass
    ... ''')
    >>> sorted(code.co_names)
    ['early', 'os', 'other']
    """
    import ast

    def only_in_main(test: ast.expr) -> bool | None:
        """Whether what follows this test is for the program alone; False: for workers alone."""
        match test:
            case ast.Compare(
                left=ast.Name(id="__name__") | ast.Constant(value="__main__"),
                ops=[ast.Eq() | ast.NotEq() as operator],
                comparators=[ast.Name(id="__name__") | ast.Constant(value="__main__")],
            ):
                return isinstance(operator, ast.Eq)
            case ast.UnaryOp(op=ast.Not()):
                inner = only_in_main(test.operand)
                return None if inner is None else not inner
            case ast.BoolOp(op=ast.And()):
                # One that is for the program alone is enough.
                return True if any(only_in_main(value) for value in test.values) else None
        return None

    class Worker(ast.NodeTransformer):
        """Leaves out what workers do not run, and notes what cannot be followed."""

        opaque = False

        def visit_FunctionDef(self, node: _Block) -> ast.stmt:
            node.body = [ast.copy_location(ast.Pass(), node)]  # its names are its own
            return node

        visit_AsyncFunctionDef = visit_ClassDef = visit_FunctionDef

        def visit_If(self, node: ast.If) -> ast.stmt:
            verdict = only_in_main(node.test)
            if verdict is not None:
                node.test = ast.copy_location(ast.Constant(value=not verdict), node.test)
                if verdict:
                    node.body = [ast.copy_location(ast.Pass(), node)]
                else:
                    node.orelse = []
            self.generic_visit(node)
            return node

        def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
            self.opaque |= any(name.name == "*" for name in node.names)
            return node

        def generic_visit(self, node: ast.AST) -> ast.AST:
            # No statement is in an expression.
            return node if isinstance(node, ast.expr) else super().generic_visit(node)

    worker = Worker()
    tree = worker.visit(ast.parse(source))
    return None if worker.opaque else compile(tree, "<main>", "exec", dont_inherit=True)
