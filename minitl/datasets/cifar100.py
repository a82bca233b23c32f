"""CIFAR-100: 60,000 photographs as CIFAR-10's, in 100 classes of 20 kinds. See `cifar10.py`."""

from minitl.data.images import check_choice
from minitl.datasets.cifar10 import load_pairs
from minitl.datasets.sources import Pair, Place, Source

_COARSE = """aquatic_mammals fish flowers food_containers fruit_and_vegetables
    household_electrical_devices household_furniture insects large_carnivores
    large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
    medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1
    vehicles_2"""
_FINE = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"""
COARSE_NAMES, CLASS_NAMES = tuple(_COARSE.split()), tuple(_FINE.split())
SOURCE = Source(
    "cifar-100",
    "CIFAR-100 (binary version)",
    ("https://www.cs.toronto.edu/~kriz/",),
    {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
)


def load_data(label_mode: str = "fine", path: Place = None) -> tuple[Pair, Pair]:
    """((x_train, y_train), (x_test, y_test)), as `cifar10.load_data`.

    `label_mode` is 'fine' (the 100 CLASS_NAMES) or 'coarse' (the 20 COARSE_NAMES).
    """
    check_choice("label_mode", label_mode, ("fine", "coarse"))
    column = slice(0, 1) if label_mode == "coarse" else slice(1, 2)
    files = ("train.bin", "test.bin")
    train, test = load_pairs(SOURCE, path, "cifar-100-binary", files, labels=[20, 100])
    return (train[0], train[1][:, column].copy()), (test[0], test[1][:, column].copy())
