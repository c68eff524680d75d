"""Files with something wrong, as hypothesis strategies: bytes changed, values of JSON replaced."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

ODD = [
    None, True, False, 0, 1, -1, 2, 255, 2**15, 2**31, 2**53, 2**63, 2**64, 10**30, -(2**63), 0.5,
    1e-300, 1e300, float("nan"), float("inf"), float("-inf"), "", "a", "0", "\0",
    "\ud800", "é" * 40, "../../x", "YX", "<u2", "|O", "float32", "x" * 5000, [], {},
    [0], [[]], [1, 2], {"a": 1},
    {"": {}}, [None], [[0, 1], [0, 1]], [[1, 0], [1, 0]], [1e9, 1e9], [0, 0],
]  # fmt: skip
"""Values that are seldom what a reader expects."""

odd_values = st.one_of(
    st.sampled_from(ODD),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=20),
    st.recursive(
        st.sampled_from(ODD),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=8,
    ),
).map(copy.deepcopy)  # what is drawn may be changed again


@st.composite
def changed_bytes(draw: st.DrawFn, seeds: list[bytes], changes: int = 6) -> bytes:
    """Draw one of some files with bytes overwritten, cut out, doubled or cut off."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.sampled_from([1, 1, 2, changes]))):  # few let a reader go on further
        if not data:
            break
        # Most of what a reader depends on stands at the beginning or the end.
        end = draw(st.sampled_from([len(data), min(len(data), 512)]))
        at = draw(st.integers(0, end - 1))
        at = draw(st.sampled_from([at, len(data) - 1 - at]))
        kind = draw(st.sampled_from(["byte", "byte", "word", "cut", "double", "end"]))
        if kind == "byte":
            data[at] = draw(st.integers(0, 255))
        elif kind == "word":
            word = draw(st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**16, 2**24]))
            order = draw(st.sampled_from(["little", "big"]))
            data[at : at + 4] = word.to_bytes(4, order)
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        else:
            del data[at:]
    return bytes(data)


@st.composite
def changed_numbers(draw: st.DrawFn, seeds: list[bytes], changes: int = 3) -> bytes:
    """Draw one of some files with numbers of 1 to 8 bytes written anywhere."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, changes))):
        size = draw(st.sampled_from([1, 1, 2, 4, 8]))
        most = 256**size - 1
        number = draw(st.one_of(st.integers(0, most), st.sampled_from([0, most // 2 + 1, most])))
        at = draw(st.integers(0, len(data) - size))
        data[at : at + size] = number.to_bytes(size, "little")
    return bytes(data)


@st.composite
def changed_json(draw: st.DrawFn, values: Any, changes: int = 3) -> Any:
    """Draw values of JSON of which some are replaced, removed, or have others beside them."""
    found = copy.deepcopy(values)
    for _ in range(draw(st.integers(1, changes))):
        place, inside = found, None
        for _ in range(draw(st.integers(1, 6))):
            if not isinstance(place, dict | list) or not place:
                break
            inside = place
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(keys))
            place = inside[key]
        if inside is None:
            return draw(odd_values)
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if kind == "replace":
            inside[key] = draw(odd_values)
        elif kind == "remove":
            del inside[key]
        elif isinstance(inside, dict):
            inside[draw(st.text(max_size=8))] = draw(odd_values)
        else:
            inside.insert(key, draw(odd_values))
    return found
