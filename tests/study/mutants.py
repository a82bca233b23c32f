"""Wrong solutions, made of right ones: each has one small change, as a slip of the pen would be.

Signs, axes, numbers that are off by one, terms and statements left out, `=` for `+=`, a missing
transpose or copy, operands and names exchanged.
"""

import ast
import copy
import random
from collections.abc import Iterator

OTHER: dict[type, tuple] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt,),
    ast.GtE: (ast.Gt,),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
# Names that mean the same along rows and along columns, or forth and back.
TWINS = [
    *(["sh sw", "oh ow", "kh kw", "top left", "top bottom", "i j", "height width"]),
    *(["m v", "beta_1 beta_2", "fan_in fan_out", "da db"]),
]


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What might stand in the place of a node."""
    if isinstance(node, ast.BinOp):
        for op in OTHER.get(type(node.op), ()):
            yield ast.BinOp(node.left, op(), node.right)
        yield node.left
        yield node.right
        if isinstance(node.op, (ast.Sub, ast.Div, ast.MatMult)):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield node.operand
    elif isinstance(node, ast.AugAssign):
        yield ast.Assign([node.target], node.value, lineno=node.lineno)
        for op in OTHER.get(type(node.op), ()):
            yield ast.AugAssign(node.target, op(), node.value)
        yield ast.Pass()
    elif (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER:
        for op in OTHER[type(node.ops[0])]:
            yield ast.Compare(node.left, [op()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(OTHER[type(node.op)][0](), node.values)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, (int, float)):
            yield ast.Constant(node.value + 1)
            yield ast.Constant(node.value - 1)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in ("copy", "sqrt", "exp", "tanh", "log", "reversed", "astype", "sorted"):
            inner = node.args[0] if node.args and node.func.attr != "astype" else node.func.value
            yield inner
        if node.func.attr in ("sum", "mean", "max", "min", "argmax"):
            other = {"sum": "mean", "mean": "sum", "max": "min", "min": "max", "argmax": "argmin"}
            func = ast.Attribute(node.func.value, other[node.func.attr], ast.Load())
            yield ast.Call(func, node.args, node.keywords)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for pair in map(str.split, TWINS):
            if node.id in pair:
                yield ast.Name(pair[1 - pair.index(node.id)], node.ctx)
    elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) == 2:
        yield ast.Tuple(node.elts[::-1], node.ctx)


class Exchange(ast.NodeTransformer):
    """Puts the `which`-th change of the `where`-th node in its place."""

    def __init__(self, where: int, which: int):
        self.where, self.which, self.at = where, which, -1

    def visit(self, node: ast.AST) -> ast.AST:
        self.at += 1
        if self.at == self.where:
            return copy.deepcopy(list(changes(node))[self.which])
        return self.generic_visit(node)


class Counting(ast.NodeVisitor):
    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []
        self.at = -1

    def visit(self, node: ast.AST) -> None:
        self.at += 1
        self.found += [(self.at, which) for which, _ in enumerate(changes(node))]
        self.generic_visit(node)


def mutants(source: str, seed: int = 0) -> Iterator[str]:
    """All versions of a source with one change, in random order, each once."""
    tree = ast.parse(source)
    counting = Counting()
    counting.visit(tree)
    random.Random(seed).shuffle(counting.found)
    seen = {ast.unparse(tree)}
    for where, which in counting.found:
        changed = Exchange(where, which).visit(copy.deepcopy(tree))
        text = ast.unparse(ast.fix_missing_locations(changed))
        if text not in seen:
            seen.add(text)
            yield text
