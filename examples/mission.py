"""The first script of transfer learning: VGG16, a head of one's own, the base frozen.

Between the two rules stands a Keras script as tutorials print it. Only its import lines are
changed: `import minitl as keras`, and `minitl` for `keras` in the others. The arrays above it
are photographs of solar cells, in ten classes of brightness and cell type that a head can learn,
so that the script's ten outputs have something to say.

    python examples/mission.py [--images 60]

Needs the extra `demo` for the images.
"""

import argparse

import numpy as np

from minitl.applications.vgg16 import preprocess_input
from minitl.data import elpv, resize_images, to_rgb
from minitl.utils import set_random_seed, to_categorical


def solar_cells(n, seed=0):
    """Images (n, 224, 224, 3) as VGG16 takes them, and one-hot labels (n, 10)."""
    cells, _, types = elpv.load_data()
    chosen = np.random.default_rng(seed).permutation(len(cells))[:n]
    cells, types = cells[chosen], types[chosen]
    brightness = cells.mean(axis=(1, 2))
    fifth = np.searchsorted(np.quantile(brightness, [0.2, 0.4, 0.6, 0.8]), brightness)
    labels = fifth + 5 * (types == "poly")
    images = resize_images(to_rgb(cells), (224, 224), "bilinear")
    return preprocess_input(images), to_categorical(labels, 10)


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--images", type=int, default=60, help="default: %(default)s")
arguments = parser.parse_args()
set_random_seed(0)
x, y = solar_cells(arguments.images)
fifth = len(x) // 5
x_train, y_train = x[: 3 * fifth], y[: 3 * fifth]
x_val, y_val = x[3 * fifth : 4 * fifth], y[3 * fifth : 4 * fifth]
x_test, y_test = x[4 * fifth :], y[4 * fifth :]

# --------------------------------------------------------------------------------------------------
import minitl as keras  # noqa: E402, F401
from minitl.applications import VGG16  # noqa: E402
from minitl.layers import Dense, Flatten  # noqa: E402
from minitl.models import Model  # noqa: E402

# 加载预训练模型
vgg16 = VGG16(weights='imagenet', include_top=False, input_shape=(224, 224, 3))

# 添加自定义层
x = Flatten()(vgg16.output)
x = Dense(1024, activation='relu')(x)
predictions = Dense(10, activation='softmax')(x)

# 创建模型
model = Model(inputs=vgg16.input, outputs=predictions)

# 冻结预训练模型的权重
for layer in vgg16.layers:
    layer.trainable = False

# 编译模型
model.compile(optimizer='adam', loss='categorical_crossentropy', metrics=['accuracy'])

# 训练模型
model.fit(x_train, y_train, batch_size=32, epochs=10, validation_data=(x_val, y_val))

# 评估模型
score = model.evaluate(x_test, y_test)
print('Test loss:', score[0])
print('Test accuracy:', score[1])
# --------------------------------------------------------------------------------------------------
