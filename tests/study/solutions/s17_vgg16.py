from minitl.layers import Conv2D, Input, MaxPooling2D
from minitl.models import Model

TABLE = [(1, 2, 64), (2, 2, 128), (3, 3, 256), (4, 3, 512), (5, 3, 512)]


def build(shape):
    x = inputs = Input(shape)
    for block, count, filters in TABLE:
        for number in range(count):
            name = f"block{block}_conv{number + 1}"
            x = Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)
        x = MaxPooling2D(2, strides=2, name=f"block{block}_pool")(x)
    return Model(inputs, x)
