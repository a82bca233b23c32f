"""Each rule of the house finds what is against it, in a small package made for that."""

import pytest

from tests import house

NAMING = """
'''Names.'''
PARTS = {
    "late": "minitl.b",  # what for
    "gone": "minitl.nowhere",
}
def part(name): ...
"""
SOUND = {
    "minitl/__init__.py": "'''All.'''\nfrom minitl import a",
    "minitl/a.py": "'''A.'''\nimport numpy\nfrom minitl.naming import part\npart('late').f()",
    "minitl/b.py": "'''B.'''\nfrom minitl import a\nclass B:\n    _x = 1\ndef f(b):\n    b._x",
    "minitl/naming.py": NAMING.replace('    "gone": "minitl.nowhere",\n', ""),
}


@pytest.fixture
def rules(tmp_path, monkeypatch):
    """A function that writes files over sound ones, and gives what each rule finds."""
    monkeypatch.setattr(house, "ROOT", tmp_path)
    monkeypatch.setattr(house, "PACKAGE", tmp_path / "minitl")
    monkeypatch.setattr(house, "SPINE", tmp_path / "minitl" / "spine.txt")
    monkeypatch.setattr(house, "KERAS_SIGNATURES", {})
    monkeypatch.setattr(house, "USED_ALL_THE_SAME", {})

    def find(spine="__init__.py a.py naming.py", **files):
        written = SOUND | {f"minitl/{name}.py": text for name, text in files.items()}
        for name, text in written.items():
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_text(text)
        house.SPINE.write_text("# in order\n" + "\n".join(spine.split()))
        house.files.cache_clear()
        house.modules.cache_clear()
        return {title: found for title, rule in house.RULES.items() if (found := rule())}

    yield find
    house.files.cache_clear()
    house.modules.cache_clear()


def test_nothing_is_found_in_a_sound_house(rules):
    assert rules() == {}
    assert house.spine() == ["__init__.py", "a.py", "naming.py"]
    assert house.arrows_between_rooms()["b"] == {"a"}
    assert house.floors(house.arrows_between_rooms()) == [["naming"], ["a"], ["b", "minitl"]]
    assert house.rooms() == ["a.py", "b.py", "naming.py"]
    assert house.spine_lines("a.py") == 4


A = SOUND["minitl/a.py"]
ELSEWHERE = "'''A.'''\nfrom minitl import naming\nclass A:\n    f = naming.elsewhere('late', '{}')"
CASES = {  # rule: files, what is found
    "imports by which the spine leaves itself": [
        ({"a": A + "\nimport scipy"}, ["minitl/a.py:5: imports scipy"]),
        ({"a": A + "\nimport h5py"}, ["minitl/a.py:5: imports h5py"]),
        ({"a": A + "\ndef f():\n    import h5py"}, []),
        (
            {"a": A + "\ndef f():\n    import tqdm"},
            ["minitl/a.py:6: imports tqdm, inside a function"],
        ),
        ({"a": A + "\nif TYPE_CHECKING:\n    from minitl.b import *"}, []),
    ],
    "imports inside functions": [
        (
            {"b": "'''B.'''\ndef f():\n    from minitl import a"},
            ["minitl/b.py:3: imports minitl.a"],
        ),
        ({"b": "'''B.'''\nclass B:\n    from minitl import a"}, []),
    ],
    "imports by a name made at run time": [
        (
            {"b": "'''B.'''\nimport importlib\nimportlib.import_module('x')"},
            ["minitl/b.py:3: importlib.import_module"],
        )
    ],
    "relative imports": [({"b": "'''B.'''\nfrom . import a"}, ["minitl/b.py:2: imports ."])],
    "PARTS": [
        (
            {"naming": NAMING.replace("  # what for", "")},
            [
                "PARTS['late']: no comment says what for",
                "PARTS['gone']: there is no minitl.nowhere",
                "PARTS['gone']: no comment says what for",
                "PARTS['gone']: nothing opens it",
            ],
        ),
        (
            {"a": A.replace("late", "latter")},
            ["PARTS['late']: nothing opens it", "minitl/a.py:4: PARTS has no latter"],
        ),
        ({"a": ELSEWHERE.format("f")}, []),
        ({"a": ELSEWHERE.format("g")}, ["minitl/a.py:4: minitl.b has no g"]),
        (
            {"a": A, "naming": NAMING.replace("minitl.nowhere", "minitl.a")},
            [
                "PARTS['gone']: minitl.a is of the spine, which can be imported",
                "PARTS['gone']: no comment says what for",
                "PARTS['gone']: nothing opens it",
            ],
        ),
    ],
    "circles of files": [
        ({"a": A + "\nfrom minitl.b import B"}, ["minitl.a, minitl.b"]),
        ({"a": A + "\nif TYPE_CHECKING:\n    from minitl.b import B"}, []),
    ],
    "circles of rooms": [
        ({"a": A + "\nif TYPE_CHECKING:\n    from minitl.b import B"}, []),
        (
            {
                "a": A + "\nfrom minitl.c.x import C",
                "c/x": "'''X.'''",
                "c/y": "'''Y.'''\nimport minitl.a",
            },
            ["a, c"],
        ),
    ],
    "private names of others": [
        (
            {"c": "'''C.'''\nfrom minitl.b import _f\nfrom minitl import a, b\na._g, b.B._x"},
            ["minitl/c.py:2: minitl.b._f", "minitl/c.py:4: a._g", "minitl/c.py:4: b.B._x"],
        ),
        ({"c": "'''C.'''\ndef f(x):\n    getattr(x, '_y')"}, ["minitl/c.py:3: getattr(x, '_y')"]),
        ({"c": "'''C.'''\nclass C:\n    def f(self, x):\n        self._y = x._y"}, []),
    ],
    "functions that are too long": [
        ({"c": "'''C.'''\ndef f():" + "\n    1" * 60}, ["f has 61 lines"]),
        ({"c": "'''C.'''\nclass C:\n    def f():" + "\n        1" * 59}, []),
    ],
    "functions with too many parameters": [
        (
            {"c": "'''C.'''\nclass C:\n    def f(self, a, b, c, d, e, f, g, h, i, *j, **k): ..."},
            ["C.f has 11 parameters"],
        ),
        ({"c": "'''C.'''\nclass C:\n    def f(self, a, b, c, d, e, f, g, h, i, *, j): ..."}, []),
    ],
    "files that are too long": [
        ({"c": "'''C.'''" + "\n" * 600}, []),
        ({"c": "'''C.'''" + "\n1" * 600}, ["minitl/c.py: 601 lines"]),
    ],
    "files that are named wrongly": [
        (
            {
                "c/__init__": "'''C: `d.py`, `c/d.py`, `b.py`, `minitl/b.py`.'''",
                "c/d": "'''`b.py`, `c.py`'''",
            },
            ["minitl/c/d.py:1: there is no c.py"],
        )
    ],
    "files without a docstring": [({"c": "C = 1"}, ["minitl/c.py: no docstring"])],
}


@pytest.mark.parametrize(
    "rule, files, expected", [(rule, *case) for rule, cases in CASES.items() for case in cases]
)
def test_what_is_against_a_rule_is_found(rules, rule, files, expected):
    found = rules(**files).get(rule, [])
    assert len(found) == len(expected)
    for line, end in zip(found, expected, strict=True):
        assert line.endswith(end)


def test_arrows_are_drawn_for_type_checkers_too(rules):
    rules(a=A + "\nif TYPE_CHECKING:\n    import minitl.b.c")
    assert house.arrows_between_rooms()["a"] == {"b", "naming"}
    assert house.arrows_between_rooms(typing=False)["a"] == {"naming"}


def test_a_file_of_the_spine_that_is_not_there(rules):
    found = rules(spine="__init__.py a.py c.py naming.py")
    assert found == {"the spine's files that are not there": ["spine.txt: there is no c.py"]}


def test_every_rule_is_tested():
    others = {"the spine's files that are not there", "exceptions that are none"}
    assert set(house.RULES) == set(CASES) | others


def test_a_circle_is_as_high_as_if_it_were_a_tower():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a"}}
    assert house.circles(arrows) == [["a", "b", "c"]]
    assert house.floors(arrows) == [["d"], [], [], ["a", "b", "c"], ["e"]]
