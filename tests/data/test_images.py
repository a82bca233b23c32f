import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from minitl.data import door, images
from minitl.data.images import array_to_img, img_to_array, load_img, resize_images, save_img, to_rgb

PHOTO = Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"


def random_pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def write(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


# --- load_img: what colours become ---


def test_a_photograph_loads_as_rgb_floats():
    x = img_to_array(load_img(PHOTO))
    assert x.shape == (427, 640, 3)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, sklearn.datasets.load_sample_image("china.jpg"))


def test_the_path_may_be_str_path_bytes_or_memory(tmp_path):
    path = write(tmp_path / "a.png", random_pixels(4, 5, 3))
    want = np.asarray(load_img(path))
    for source in (str(path), os.fsencode(path), io.BytesIO(path.read_bytes())):
        np.testing.assert_array_equal(np.asarray(load_img(source)), want)


def test_gray_is_replicated_to_rgb_and_stays_gray_on_demand(tmp_path):
    gray = random_pixels(6, 7)
    path = write(tmp_path / "gray.png", gray)
    np.testing.assert_array_equal(
        np.asarray(load_img(path)), np.repeat(gray[..., np.newaxis], 3, 2)
    )
    assert img_to_array(load_img(path, color_mode="grayscale")).shape == (6, 7, 1)


def test_16_bit_gray_gives_its_high_byte_for_rgb_and_itself_as_gray(tmp_path):
    deep = np.array([[0, 255, 256], [32767, 32768, 65535]], np.uint16)
    path = write(tmp_path / "deep.png", deep)
    rgb = np.asarray(load_img(path))
    np.testing.assert_array_equal(rgb[..., 0], [[0, 0, 1], [127, 128, 255]])
    np.testing.assert_array_equal(rgb[..., 0], rgb[..., 2])
    np.testing.assert_array_equal(np.asarray(load_img(path, color_mode="grayscale")), deep)
    assert np.asarray(load_img(path, color_mode="rgba"))[0, 0].tolist() == [0, 0, 0, 255]


def test_a_16_bit_png_opened_in_the_32_bit_mode_of_older_pillow_is_16_bit():
    img = Image.fromarray(np.array([[0, 65535]], np.int32))
    img.format = "PNG"
    assert np.asarray(door.to_mode(img, "L")).tolist() == [[0, 255]]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_gray_is_taken_within_0_to_255_and_refused_beyond(tmp_path, dtype):
    inside = write(tmp_path / "in.tif", np.array([[0, 7], [255, 1]], dtype))
    assert np.asarray(load_img(inside))[:, :, 1].tolist() == [[0, 7], [255, 1]]
    beyond = write(tmp_path / "out.tif", np.array([[0, 7], [4000, 1]], dtype))
    with pytest.raises(OSError, match=r"out\.tif.*run from 0 to 4000"):
        load_img(beyond)


def test_alpha_is_cut_off_not_blended(tmp_path):
    rgba = random_pixels(5, 5, 4)
    rgba[..., 3] = 0
    path = write(tmp_path / "clear.png", rgba)
    np.testing.assert_array_equal(np.asarray(load_img(path)), rgba[..., :3])
    np.testing.assert_array_equal(np.asarray(load_img(path, color_mode="rgba")), rgba)


def test_palettes_are_looked_up_without_a_warning(tmp_path):
    img = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    img.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    img.save(tmp_path / "p.png", transparency=bytes([0, 128, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = np.asarray(load_img(tmp_path / "p.png"))
    assert x.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    r, g, b = np.asarray(load_img(tmp_path / "red.jpg"))[4, 4]
    assert r > 250 and g < 5 and b < 5


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("L", (4, 4), v) for v in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.unique(np.asarray(load_img(tmp_path / "a.gif"))).tolist() == [10]


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # 'rotate by 90 degrees to view'
    path = write(tmp_path / "turned.jpg", random_pixels(8, 16, 3), exif=exif)
    assert load_img(path).size == (16, 8)


# --- load_img: sizes ---


@pytest.mark.parametrize("interpolation", images.PILLOW_FILTERS)
def test_target_size_is_height_then_width(interpolation):
    img = load_img(PHOTO, target_size=(30, 40), interpolation=interpolation)
    assert img.size == (40, 30)


def test_keep_aspect_ratio_cuts_the_middle_out(tmp_path):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    path = write(tmp_path / "wide.png", pixels)
    assert np.asarray(load_img(path, target_size=(5, 5), keep_aspect_ratio=True)).min() == 255
    assert np.asarray(load_img(path, target_size=(5, 5))).min() == 0


@pytest.mark.parametrize("size", [(10,), 10, (10, 0), (10, -1), (2.5, 3), (1, 2, 3)])
def test_a_size_that_is_none(size):
    with pytest.raises(ValueError, match=r"target_size must be (2 values|two positive integers)"):
        load_img(PHOTO, target_size=size)


def test_unknown_choices_show_the_known_ones():
    with pytest.raises(ValueError, match="color_mode must be one of 'grayscale', 'rgb', 'rgba'"):
        load_img(PHOTO, color_mode="RGB")
    with pytest.raises(ValueError, match="interpolation must be one of 'nearest', 'bilinear'"):
        load_img(PHOTO, interpolation="linear")


# --- load_img: files that are none ---


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "the file is empty"),
        ("page.jpg", b"<html>404</html>", "not an image in a format that is read; it starts"),
        ("cut.jpg", PHOTO.read_bytes()[:5000], "truncated"),
        ("cut.png", None, "truncated"),
    ],
)
def test_unreadable_files_are_named_with_the_reason(tmp_path, name, content, reason):
    if content is None:
        memory = io.BytesIO()
        Image.fromarray(random_pixels(40, 40, 3)).save(memory, "PNG")
        content = memory.getvalue()[:2000]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match=f"cannot read .*{name} as an image: .*{reason}"):
        load_img(tmp_path / name)


def test_every_way_of_breaking_a_file_ends_in_the_same_kind_of_error(tmp_path):
    """Whatever a decoder stumbles over, the user sees an OSError that names the file."""
    rng = np.random.default_rng(1)
    for kind in ("png", "jpeg", "gif", "bmp", "tiff"):
        memory = io.BytesIO()
        Image.fromarray(random_pixels(12, 12, 3)).save(memory, kind)
        whole = np.frombuffer(memory.getvalue(), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            places = rng.integers(0, len(whole), 6)
            broken[places] = rng.integers(0, 256, 6)
            path = tmp_path / f"broken.{kind}"
            path.write_bytes(broken.tobytes())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, on odd metadata
                try:
                    load_img(path)
                except OSError as error:
                    assert f"broken.{kind}" in str(error)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot read .*nowhere\.png: No such file"):
        load_img(tmp_path / "nowhere.png")
    with pytest.raises(IsADirectoryError, match="cannot read"):
        load_img(tmp_path)


def test_what_is_no_path():
    with pytest.raises(TypeError, match=r"path must be a string or .* BytesIO, got ndarray"):
        load_img(np.zeros((3, 3)))


# --- arrays and images ---


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_array_to_img_and_back(channels):
    x = random_pixels(4, 6, channels)
    back = img_to_array(array_to_img(x, scale=False))
    np.testing.assert_array_equal(back, x)


def test_scale_stretches_to_0_255():
    x = np.array([[[-1.0], [0.0], [3.0]]])
    assert np.asarray(array_to_img(x)).tolist() == [[0, 63, 255]]
    assert np.asarray(array_to_img(np.full((2, 2, 3), 7.0))).max() == 0


def test_one_channel_beyond_255_makes_a_32_bit_image():
    img = array_to_img(np.array([[[0], [1000]]]), scale=False)
    assert img.mode == "I" and np.asarray(img).tolist() == [[0, 1000]]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 4)), r"one image \(H, W, C\) with 1, 3 or 4 channels, got shape \(4, 4\)"),
        (np.zeros((4, 4, 2)), r"got shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3)), r"got shape \(0, 4, 3\)"),
        (np.full((2, 2, 3), np.nan), "NaN or infinite"),
        (np.full((2, 2, 3), 256.0), "pixels must lie in 0-255, got 256 to 256"),
        (np.full((2, 2, 1), -1.0), "pixels must lie in 0-255, got -1 to -1"),
    ],
)
def test_arrays_that_are_no_image(x, message):
    with pytest.raises(ValueError, match=message):
        array_to_img(x, scale=False)


def test_img_to_array_takes_a_dtype_and_refuses_other_layouts():
    img = Image.new("RGB", (3, 2))
    assert img_to_array(img, dtype="float64").dtype == np.float64
    with pytest.raises(ValueError, match="'channels_last'; got 'channels_first'"):
        img_to_array(img, data_format="channels_first")


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif"])
def test_save_img_writes_what_load_img_reads(tmp_path, name):
    x = random_pixels(5, 6, 3)
    save_img(tmp_path / name, x, scale=False)
    np.testing.assert_array_equal(img_to_array(load_img(tmp_path / name)), x)


def test_save_img_into_a_file_object():
    memory = io.BytesIO()
    x = random_pixels(5, 6, 1)
    save_img(memory, x, file_format="png", scale=False)
    memory.seek(0)
    np.testing.assert_array_equal(img_to_array(load_img(memory, color_mode="grayscale")), x)


def test_jpeg_drops_alpha_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="JPEG has no alpha channel"):
        save_img(tmp_path / "a.jpg", random_pixels(8, 8, 4), scale=False)
    assert load_img(tmp_path / "a.jpg").mode == "RGB"


def test_save_img_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"before")
    with pytest.raises(TypeError):
        save_img(path, random_pixels(4, 4, 3), compress_level="no number")
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.png"]


def test_save_img_without_a_known_format(tmp_path):
    for name in ("a", "a.xyz"):
        with pytest.raises(ValueError, match=r"end the name in .png or .jpg"):
            save_img(tmp_path / name, random_pixels(4, 4, 3))
    assert os.listdir(tmp_path) == []


# --- batches ---


def test_to_rgb_replicates_gray():
    gray = random_pixels(2, 4, 5)
    for x in (gray, gray[..., np.newaxis]):
        rgb = to_rgb(x)
        assert rgb.shape == (2, 4, 5, 3) and rgb.dtype == np.uint8
        for c in range(3):
            np.testing.assert_array_equal(rgb[..., c], gray)
    assert to_rgb(rgb) is rgb


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 5), r"expected a batch of images \(N, H, W\) or \(N, H, W, C\), got shape \(4, 5\)"),
        ((4, 5, 3), "looks like one image .*x\\[np.newaxis\\]"),
        ((2, 4, 5, 4), r"1 or 3 channels, got shape \(2, 4, 5, 4\); to drop an alpha channel"),
        ((2, 4, 5, 2), "1 or 3 channels"),
    ],
)
def test_to_rgb_of_other_shapes(shape, message):
    with pytest.raises(ValueError, match=message):
        to_rgb(np.zeros(shape))


def naive_resize(x, size, kernel, radius, antialias):
    """One image (H, W) by the formula of `resize_images`, with a loop over every pixel."""

    def matrix(n, out):
        scale = n / out
        stretch = max(scale, 1) if antialias else 1
        w = np.zeros((out, n))
        for i in range(out):
            for j in range(n):
                d = abs(j + 0.5 - (i + 0.5) * scale) / stretch
                w[i, j] = kernel(d) if d < radius else 0
        return w / w.sum(axis=1, keepdims=True)

    return matrix(x.shape[0], size[0]) @ x @ matrix(x.shape[1], size[1]).T


def keys(d):
    """Keys 1981, equation 4."""
    return 1.5 * d**3 - 2.5 * d**2 + 1 if d < 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(3, 17), (20, 5), (9, 11), (1, 1)])
@pytest.mark.parametrize(
    ("name", "kernel", "radius"), [("bilinear", lambda d: 1 - d, 1), ("bicubic", keys, 2)]
)
def test_resize_images_equals_the_formula(name, kernel, radius, size, antialias):
    x = np.random.default_rng(3).uniform(0, 255, (2, 9, 11))
    got = resize_images(x, size, name, antialias)
    for image, result in zip(x, got, strict=True):
        want = naive_resize(image, size, kernel, radius, antialias)
        np.testing.assert_allclose(result, want, atol=1e-10)


@pytest.mark.parametrize("interpolation", images.INTERPOLATIONS)
@pytest.mark.parametrize("antialias", [False, True])
def test_resizing_keeps_constants_and_the_same_size(interpolation, antialias):
    flat = np.full((1, 7, 9, 3), 93.0)
    for size in ((3, 4), (20, 30)):
        np.testing.assert_allclose(
            resize_images(flat, size, interpolation, antialias), 93, rtol=1e-12
        )
    x = random_pixels(2, 7, 9, 3).astype(np.float64)
    if interpolation not in ("gaussian", "mitchellcubic"):  # these two smooth
        np.testing.assert_allclose(
            resize_images(x, (7, 9), interpolation, antialias), x, atol=1e-10
        )


def test_area_counts_parts_of_pixels():
    x = np.array([[[1.0, 2.0, 3.0, 4.0, 5.0]]])  # 5 -> 2: each output covers 2.5 pixels
    np.testing.assert_allclose(
        resize_images(x, (1, 2), "area")[0, 0], [(1 + 2 + 3 / 2) / 2.5, (3 / 2 + 4 + 5) / 2.5]
    )


def test_antialias_is_pillow_without_the_rounding():
    """Pillow rounds (and clips) to 8 bits after each of its two passes; measured: 2.0 at most."""
    x = np.asarray(load_img(PHOTO))
    for mine, theirs in (("bilinear", "bilinear"), ("bicubic", "bicubic"), ("lanczos3", "lanczos")):
        want = img_to_array(load_img(PHOTO, target_size=(100, 120), interpolation=theirs))
        got = np.clip(resize_images(x[np.newaxis], (100, 120), mine, antialias=True)[0], 0, 255)
        assert np.abs(got - want).max() < 2.5
        assert np.abs(got - want).mean() < 0.3
    plain = resize_images(x[np.newaxis], (100, 120))[0]
    want = img_to_array(load_img(PHOTO, target_size=(100, 120), interpolation="bilinear"))
    assert np.abs(plain - want).max() > 30, "without antialias the pixels differ, as the text says"


def test_nearest_is_pillows_nearest():
    # a size where no centre falls on the border of two pixels: there the two may differ
    want = np.asarray(load_img(PHOTO, target_size=(100, 128)))
    x = np.asarray(load_img(PHOTO))[np.newaxis]
    got = resize_images(x, (100, 128), "nearest")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[0], want)


def test_resize_dtypes_and_shapes():
    assert resize_images(random_pixels(2, 8, 8), (4, 4)).shape == (2, 4, 4)
    assert resize_images(random_pixels(2, 8, 8), (4, 4)).dtype == np.float32
    assert resize_images(np.zeros((2, 8, 8, 3)), (4, 4)).dtype == np.float64
    assert resize_images(np.zeros((0, 8, 8, 3)), (4, 4)).shape == (0, 4, 4, 3)


def test_resize_images_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="interpolation must be one of 'bilinear', 'bicubic'"):
        resize_images(np.zeros((1, 4, 4, 3)), (2, 2), "lanczos")
    with pytest.raises(ValueError, match="size must be two positive integers"):
        resize_images(np.zeros((1, 4, 4, 3)), (0, 2))
    with pytest.raises(ValueError, match="no pixels"):
        resize_images(np.zeros((1, 0, 4, 3)), (2, 2))
