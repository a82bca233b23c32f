"""`minitl.ops` beside `keras.ops`: values, shapes, kinds of numbers; in graphs as on numbers."""

import numpy as np
import pytest

import minitl
from tests.keras_live.compare import assert_close
from tests.tolerances import SAME_FORMULA_FLOAT32

A = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
B = np.random.default_rng(1).uniform(0.5, 2, (2, 3)).astype(np.float32)
S = np.random.default_rng(2).standard_normal((3, 3)).astype(np.float32)
J = np.array([[0, 2, 1], [1, 1, 0]])
SPACE = {"A": A, "B": B, "S": S, "J": J, "np": np}

# One expression a line; those of one tensor A are tried in a model's graph as well.
EXPRESSIONS = """
abs(A) | absolute(A) | square(A) | sqrt(B) | rsqrt(B) | reciprocal(B) | exp(A) | expm1(A) | log(B)
log1p(B) | log2(B) | log10(B) | sin(A) | cos(A) | tan(A) | tanh(A) | arctan(A) | sinh(A) | cosh(A)
erf(A) | sign(A) | floor(A) | ceil(A) | round(A) | negative(A) | clip(A, -0.5, 0.5)
power(B, 2.5) | power(B, A) | add(A, B) | subtract(A, 1) | multiply(A, B) | divide(A, B)
true_divide(A, 2) | maximum(A, 0) | minimum(A, B) | mod(A, 0.7) | floor_divide(A, 0.7) | relu(A)
relu6(A) | sigmoid(A) | softmax(A) | softmax(A, axis=0) | log_softmax(A) | softplus(A)
softsign(A) | silu(A) | gelu(A) | elu(A) | selu(A) | leaky_relu(A) | hard_sigmoid(A)
hard_silu(A) | sum(A) | sum(A, axis=1) | sum(A, axis=1, keepdims=True) | mean(A, axis=-1)
mean(J) | max(A, axis=1) | max(A, axis=0, keepdims=True) | min(A) | amax(A) | amin(A, axis=0)
prod(B, axis=1) | var(A, axis=1) | std(A) | average(A, axis=1) | logsumexp(A, axis=1)
cumsum(A, axis=1) | norm(A, axis=1) | argmax(A, axis=1) | argmin(A, axis=-1) | argsort(A)
sort(A, axis=1) | any(A > 0) | all(B > 0, axis=1) | count_nonzero(A > 0) | isnan(A) | isinf(A)
isfinite(A) | equal(A, A) | not_equal(A, B) | less(A, B) | less_equal(A, B) | greater(A, B)
greater_equal(A, A) | logical_and(A > 0, B > 1) | logical_or(A > 0, B > 1) | logical_not(A > 0)
where(A > 0, A, B) | where(A > 0, A, 0.0) | reshape(A, (3, 2)) | reshape(A, (-1,)) | ravel(A)
transpose(A) | transpose(A, axes=(1, 0)) | expand_dims(A, 1) | expand_dims(A, -1)
squeeze(A[:, :1]) | squeeze(A[:, :1], axis=1) | swapaxes(A, 0, 1) | moveaxis(A, 0, -1)
flip(A, axis=1) | roll(A, 1, axis=1) | repeat(A, 2, axis=0) | tile(A, (2, 1))
broadcast_to(A, (4, 2, 3)) | concatenate([A, B]) | concatenate([A, B], axis=-1) | stack([A, B])
stack([A, B], axis=-1) | hstack([A, B]) | vstack([A, B]) | append(A, B) | take(A, [2, 0], axis=1)
take(A, 1, axis=0) | take_along_axis(A, J, axis=1) | diag(A[0]) | diag(S) | diagonal(S) | tril(S)
triu(S, k=1) | pad(A, ((1, 1), (0, 2))) | pad(A, ((1, 0), (0, 2)), constant_values=3.0)
pad(A, ((0, 0), (1, 1)), mode="reflect") | matmul(A, S) | dot(A, S) | dot(A[0], A[1])
tensordot(A, S, axes=1) | outer(A[0], B[0]) | einsum("ij,kj->ik", A, B) | one_hot(J, 4)
one_hot(J[0], 3, axis=0) | cast(A, "int32") | cast(J, "float32") | zeros((2, 3))
ones((2,), dtype="int32") | full((2, 2), 0.5) | arange(5) | arange(1, 4, 0.5) | linspace(0, 1, 5)
eye(3) | zeros_like(A) | ones_like(J) | full_like(A, 2) | convert_to_tensor([1.5, 2.5])
convert_to_tensor([1, 2]) | array([[1, 2]]) | normalize(A) | normalize(A, axis=0)
stop_gradient(A) | identity(3) | meshgrid(A[0], B[0])[0] | split(A, 3, axis=1)[1]
split(A, [1], axis=1)[1] | unstack(A)[1] | top_k(A, 2)[0] | top_k(A, 2)[1] | isclose(A, A)
binary_crossentropy(B / 2, B / 3) | categorical_crossentropy(B / 3, B / 4)
sparse_categorical_crossentropy(J[0][:2], A, from_logits=True) | shape(A) | ndim(A) | size(A)
"""
TOLD = [each.strip() for line in EXPRESSIONS.strip().splitlines() for each in line.split(" | ")]


def evaluated(ops, expression, **names):
    return eval(f"ops.{expression}", {"ops": ops, **SPACE, **names})


@pytest.mark.parametrize("expression", TOLD)
def test_values(keras, expression):
    mine, theirs = (np.asarray(evaluated(k.ops, expression)) for k in (minitl, keras))
    assert mine.dtype.kind == theirs.dtype.kind
    assert_close(mine, theirs, SAME_FORMULA_FLOAT32)


IN_GRAPHS = [
    "square(A)", "relu(A)", "mean(A, axis=1)",
    "sum(A, axis=1, keepdims=True)", "A[:, 1:]",
    "concatenate([A, A], axis=-1)", "expand_dims(A, 1)", "reshape(A, (-1, 3, 1))",
    "stack([A, A], 1)",
    "clip(A, 0, 1)", "maximum(A, 0)", "where(A > 0, A, 0.0)", "norm(A, axis=-1)", "flip(A, axis=1)",
    "cast(A, 'float32') * 2 - 1", "softmax(A)", "split(A, 3, 1)[0]",
]  # fmt: skip


@pytest.mark.parametrize("expression", IN_GRAPHS)
def test_in_a_graph(keras, expression):
    found = []
    for k in (minitl, keras):
        a = k.Input((3,))
        names = {"ops": k.ops, "A": a}
        y = eval(expression if "[" in expression[:2] else f"ops.{expression}", names)
        model = k.Model(a, y)
        found.append((tuple(y.shape), model.predict(A, verbose=0)))
    assert found[0][0] == found[1][0]
    assert_close(found[0][1], found[1][1], SAME_FORMULA_FLOAT32)
