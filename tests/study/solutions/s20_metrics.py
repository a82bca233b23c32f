import numpy as np


def accuracy(labels, p):
    return np.mean(p.argmax(axis=1) == labels)


def f1(labels, p):
    guess = p.argmax(axis=1)
    found = np.zeros(p.shape[1])
    for k in range(p.shape[1]):
        tp = ((guess == k) & (labels == k)).sum()
        both = (guess == k).sum() + (labels == k).sum()
        if both > 0:
            found[k] = 2 * tp / both
    return found
