def dense(x, kernel, bias):
    y = x @ kernel
    if bias is not None:
        y = y + bias
    return y


def dense_input_gradient(g, kernel):
    return g @ kernel.T


def dense_kernel_gradient(x, g):
    return x.T @ g


def bias_gradient(g):
    rows = g.reshape(-1, g.shape[-1])
    return rows.sum(axis=0)
