import h5py


def text(name):
    if isinstance(name, bytes):
        return name.decode()
    return str(name)


def read_weights(path):
    found = []
    with h5py.File(path) as file:
        for layer in map(text, file.attrs["layer_names"]):
            group = file[layer]
            names = [text(name) for name in group.attrs["weight_names"]]
            found.append((layer, [(name, group[name][()]) for name in names]))
    return found
