from minitl.layers import BatchNormalization


def unfreeze(layers, start, decay):
    base = [layer for layer in layers if layer.name.startswith("block")]
    blocks = sorted({layer.name.split("_")[0] for layer in base})
    for layer in base:
        block = layer.name.split("_")[0]
        layer.trainable = False
        layer.rate_multiplier = 1.0
        if block >= start and not isinstance(layer, BatchNormalization):
            layer.trainable = True
            layer.rate_multiplier = decay ** (len(blocks) - blocks.index(block))
