import numpy as np


def backward(y, inputs):
    waiting = {}
    seen = {id(y)}
    stack = [y]
    while stack:
        tensor = stack.pop()
        if tensor.node is None:
            continue
        for source, _ in tensor.node.edges:
            waiting[id(source)] = waiting.get(id(source), 0) + 1
            if id(source) not in seen:
                seen.add(id(source))
                stack.append(source)
    gradients = {id(y): np.ones_like(y.data)}
    ready = [y]
    while ready:
        tensor = ready.pop()
        if tensor.node is None:
            continue
        for source, vjp in tensor.node.edges:
            share = vjp(gradients[id(tensor)])
            if id(source) in gradients:
                gradients[id(source)] = gradients[id(source)] + share
            else:
                gradients[id(source)] = share
            waiting[id(source)] -= 1
            if waiting[id(source)] == 0:
                ready.append(source)
    found = []
    for tensor in inputs:
        if id(tensor) in gradients:
            found.append(gradients[id(tensor)])
        else:
            found.append(np.zeros_like(tensor.data))
    return found
