"""Downloads: kept in the cache with their digest; without a network, what to put where."""

import gzip
import hashlib
import io
import urllib.error
from dataclasses import replace
from typing import ClassVar

import pytest

from minitl.applications import downloads
from minitl.applications.downloads import FetchError
from minitl.datasets import cifar10, fashion_mnist, mnist
from tests.datasets.test_mnist import IMAGES, LABELS, idx


class Response(io.BytesIO):
    status = 200
    headers: ClassVar[dict[str, str]] = {}


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A network of the addresses in the dictionary; all others refuse. And an empty cache."""
    monkeypatch.setenv("MINITL_HOME", str(tmp_path / "home"))
    known, asked = {}, []

    def urlopen(request, timeout):
        assert timeout <= 10
        asked.append(request.full_url)
        if request.full_url not in known:
            raise urllib.error.URLError(OSError(-2, "Name or service not known"))
        return Response(known[request.full_url])

    monkeypatch.setattr(downloads.urllib.request, "urlopen", urlopen)
    return known, asked


def published(monkeypatch, known, address):
    """MNIST with small files, whole at one address."""
    contents = [idx(IMAGES), idx(LABELS), idx(IMAGES[:2]), idx(LABELS[:2])]
    packed = {
        file: gzip.compress(data) for file, data in zip(mnist.SOURCE.files, contents, strict=True)
    }
    files = {file: hashlib.md5(data).hexdigest() for file, data in packed.items()}
    monkeypatch.setattr(mnist, "SOURCE", replace(mnist.SOURCE, files=files))
    for file, data in packed.items():
        known[address + file] = data


def test_second_address_and_then_the_cache(network, monkeypatch, caplog, tmp_path):
    known, asked = network
    first, second = mnist.SOURCE.addresses
    published(monkeypatch, known, second)
    (x, _), (_, y) = mnist.load_data()
    assert len(x) == 7 and y.tolist() == LABELS[:2].tolist()
    assert [url.startswith(first) for url in asked] == [True, False] * 4
    assert f"fetching train-images-idx3-ubyte.gz of MNIST from {first}" in caplog.text
    asked.clear()
    assert len(mnist.load_data()[0][0]) == 7
    assert asked == []
    kept = sorted(p.name for p in (tmp_path / "home/datasets/mnist").glob("*.gz"))
    assert kept == sorted(mnist.SOURCE.files)


def test_a_wrong_digest_is_thrown_away(network, monkeypatch, tmp_path):
    known, _ = network
    for address in mnist.SOURCE.addresses:
        known[address + "train-images-idx3-ubyte.gz"] = b"something else"
    with pytest.raises(FetchError) as caught:
        mnist.load_data()
    found = hashlib.md5(b"something else").hexdigest()
    wrong = f"expected md5 {next(iter(mnist.SOURCE.files.values()))}, found {found}"
    assert str(caught.value).count(wrong) == 2
    assert not list((tmp_path / "home/datasets/mnist").glob("train*"))


@pytest.mark.parametrize("module", [mnist, fashion_mnist, cifar10])
def test_without_a_network_it_says_what_to_put_where(network, module, tmp_path):
    _, asked = network
    with pytest.raises(FetchError) as caught:
        module.load_data()
    text = str(caught.value)
    assert f"could not get {module.SOURCE.title}. Tried:" in text
    assert "no connection (Name or service not known)" in text
    for file, md5 in module.SOURCE.files.items():
        assert f"{module.SOURCE.addresses[0]}{file} (md5 {md5})" in text
    assert f"put it into {tmp_path / 'home' / 'datasets' / module.SOURCE.name}" in text
    assert len(asked) == len(module.SOURCE.addresses)  # the first file's failure is enough


@pytest.mark.parametrize("module", [mnist, fashion_mnist, cifar10])
def test_digests_look_like_md5(module):
    for md5 in module.SOURCE.files.values():
        assert len(md5) == 32 and int(md5, 16) >= 0
