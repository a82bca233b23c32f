import numpy as np


def cut(layers):
    count = 0
    for layer in layers:
        if layer.trainable_weights or layer.random:
            return count
        count += 1
    return count


def features(layers, images, batch_size):
    parts = []
    for start in range(0, len(images), batch_size):
        y = images[start : start + batch_size]
        for layer in layers:
            y = layer(y)
        parts.append(y.data.reshape(len(y.data), -1))
    return np.concatenate(parts)
