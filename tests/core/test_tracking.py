"""Objects are followed through synthetic movies whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.settings.tasks import LinkSettings
from napari_unet.core.tracking import FrameObjects, Linker, assign, check_linkable, match_frames


def frame(shape, places, rng=None, ratio=1.0):
    """Draw balls {true name: (centre, radius)}, numbered at random; also the names by label."""
    labels, order = np.zeros(shape, np.uint16), list(places)
    if rng is not None:
        rng.shuffle(order)
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    step = [ratio, 1, 1][-len(shape) :]
    for number, name in enumerate(order, 1):
        centre, radius = places[name]
        pairs = zip(grid, centre, step, strict=True)
        distance = sum((g * s - c) ** 2 for g, c, s in pairs)
        labels[(distance < radius**2) & (labels == 0)] = number
    return labels, dict(enumerate(order, 1))


def follow(movie, shape, settings=None, ratio=1.0):
    """Link a movie; return which names each track had, and the tracks."""
    rng, linker, names = np.random.default_rng(0), Linker(settings or LinkSettings(), ratio), {}
    for places in movie:
        labels, called = frame(shape, places, rng, ratio)
        found = linker.add(labels)
        assert found.dtype == np.uint32
        assert np.array_equal(found > 0, labels > 0)
        for number, name in called.items():
            (track,) = np.unique(found[labels == number])
            names.setdefault(int(track), []).append(name)
    return names, linker.finish()


def walk(count, frames, shape, step, seed, radius=5.0):
    """Let balls that start on a grid wander."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(9, n - 8, 16) for n in shape), indexing="ij"), -1)
    at = grid.reshape(-1, len(shape))[:count].astype(float)
    for _ in range(frames):
        yield {k: (tuple(c), radius) for k, c in enumerate(at)}
        at = at + rng.uniform(-step, step, at.shape)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shape", "count"), [((80, 80), 16), ((24, 56, 56), 9)])
def test_what_moves_keeps_its_number(shape, count, seed):
    names, tracks = follow(walk(count, 8, shape, 3, seed), shape)
    assert tracks.count == len(names) == count and not tracks.graph
    assert all(len(set(name)) == 1 and len(name) == 8 for name in names.values())


def test_a_step_as_long_as_the_object_is_followed_without_overlap():
    movie = [{"a": ((20, 10 + 10 * t), 5), "b": ((60, 10 + 10 * t), 5)} for t in range(6)]
    names, tracks = follow(movie, (80, 80))
    assert sorted(map(len, names.values())) == [6, 6] and tracks.count == 2
    assert follow(movie, (80, 80), LinkSettings(reach=5))[1].count == 12


def test_what_vanishes_ends_and_what_appears_begins():
    stay, gone, new = ((20, 20), 6), ((20, 60), 6), ((60, 40), 6)
    movie = [{"a": stay, "b": gone}] * 3 + [{"a": stay}] + [{"a": stay, "c": new}] * 2
    names, tracks = follow(movie, (80, 80))
    assert sorted(names.values()) == [["a"] * 6, ["b"] * 3, ["c"] * 2]
    assert not tracks.graph


def division(at=3, frames=6):
    for t in range(frames):
        if t < at:
            yield {"mother": ((40, 30), 8), "other": ((15, 60), 8)}
        else:
            apart = 6 + (t - at)
            yield {
                "one": ((40, 30 - apart), 5.6),
                "two": ((40, 30 + apart), 5.6),
                "other": ((15, 60), 8),
            }


def test_a_division_gives_two_tracks_with_their_parent():
    names, tracks = follow(division(), (80, 80))
    number = {name[0]: track for track, name in names.items()}
    assert set(number) == {"mother", "one", "two", "other"}
    mother = number["mother"]
    assert tracks.graph == {number["one"]: [mother], number["two"]: [mother]}
    assert names[mother] == ["mother"] * 3 and len(names[number["two"]]) == 3


def test_divisions_can_be_left_out():
    names, tracks = follow(division(), (80, 80), LinkSettings(divisions=False))
    assert not tracks.graph and len(names) == 3


def test_an_object_that_appears_beside_one_as_large_as_before_is_no_division():
    movie = [{"a": ((40, 30), 6)}] * 2 + [{"a": ((40, 30), 6), "b": ((40, 43), 6)}] * 2
    names, tracks = follow(movie, (80, 80))
    assert not tracks.graph and sorted(map(len, names.values())) == [2, 4]


def test_divisions_in_volumes_of_flat_voxels():
    movie = [{"m": ((30, 25, 25), 8)}] * 2 + [
        {"one": ((30 - 7, 25, 25), 6), "two": ((30 + 7, 25, 25), 6)}
    ] * 2
    names, tracks = follow(movie, (20, 50, 50), ratio=3.0)
    assert len(names) == 3 and len(tracks.graph) == 2


def test_empty_frames():
    movie = [{}, {"a": ((20, 20), 5)}, {}, {"a": ((20, 20), 5)}, {}]
    names, tracks = follow(movie, (40, 40))
    assert len(names) == tracks.count == 2
    names, tracks = follow([{}, {}], (40, 40))
    assert tracks.table.shape == (0, 5) and tracks.count == 0


def test_the_table_says_where_everything_is():
    movie = [{"a": ((4, 20, 30), 6)}, {"a": ((5, 22, 30), 6)}]
    _, tracks = follow(movie, (10, 50, 60))
    assert np.allclose(tracks.table, [[1, 0, 4, 20, 30], [1, 1, 5, 22, 30]], atol=0.6)
    flat = follow([{"a": ((20, 30), 6)}], (50, 60))[1]
    assert np.allclose(flat.table, [[1, 0, 0, 20, 30]])
    assert flat.layer_table("TYX").shape == (1, 4)


def test_the_csv_names_parents():
    _, tracks = follow(division(), (80, 80))
    lines = tracks.to_csv().splitlines()
    assert lines[0] == "id,t,z,y,x,parent" and len(lines) == 1 + 3 * 2 + 3 * 3
    (mother,) = {parent for (parent,) in tracks.graph.values()}
    assert {line.split(",")[5] for line in lines[1:]} == {"0", str(mother)}


@pytest.mark.parametrize("seed", range(5))
def test_large_groups_are_assigned_alike(seed):
    rng = np.random.default_rng(seed)
    keys = np.unique(rng.integers(0, 30 * 30, 200))
    before, now = np.divmod(keys, 30)
    costs = rng.uniform(0, 1, len(keys))
    table = {(b, n): c for b, n, c in zip(before.tolist(), now.tolist(), costs, strict=True)}

    def total(found):
        pairs = list(zip(*(side.tolist() for side in found), strict=True))
        assert len({b for b, _ in pairs}) == len({n for _, n in pairs}) == len(pairs)
        return sum(table[pair] - 1 for pair in pairs)

    dense, sparse = assign(before, now, costs), assign(before, now, costs, dense=0)
    assert total(dense) == pytest.approx(total(sparse))


def test_a_frame_that_is_crowded_is_its_own_successor():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 200, (400, 2))
    y, x = np.mgrid[:200, :200]
    distance = (y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2
    labels = (distance.argmin(-1) + 1).astype(np.uint16)
    seen = FrameObjects.from_labels(labels)
    assert np.array_equal(match_frames(seen, seen, LinkSettings()), np.arange(len(seen.ids)))


def test_what_cannot_be_linked():
    check_linkable("TYX", "instance", "planes")
    check_linkable("TZYX", "instance", "joined")
    with pytest.raises(InputError, match="give axes with a T"):
        check_linkable("ZYX", "instance", "joined")
    with pytest.raises(InputError, match="Classes"):
        check_linkable("TYX", "semantic", "planes")
    with pytest.raises(SettingsError, match="joined or orthogonal"):
        check_linkable("TZYX", "instance", "planes")
    with pytest.raises(SettingsError, match="link_by is 'magic'"):
        LinkSettings(link_by="magic")
