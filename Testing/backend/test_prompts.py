"""Prompts say what is wrong with a value, survive JSON, and tell which box a structure fills."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import NAMED_AFFINES, geometries, patches, points

from aiassist.errors import AIAssistError, PatchError, PromptError
from aiassist.imaging import Geometry, MaskPatch, Region
from aiassist.prompts import CLICK_RADIUS, CLICK_RADIUS_VOXELS, Prompts, Scribble

CUBE = Geometry.from_spacing((40, 40, 40))
NAN = float("nan")

prompts = st.builds(
    Prompts,
    extreme_points=points(least=2) | st.just(()),
    line=st.none() | points(least=2, most=2),
    box=st.none() | points(least=2, most=2),
    positive=points(),
    negative=points(),
    scribbles=st.lists(st.builds(Scribble, points(), st.booleans()), max_size=2),
    prior=st.none() | patches(),
)


@given(prompts)
def test_json_returns_the_prompts(original):
    back = Prompts.from_json(json.loads(json.dumps(original.to_json())))
    for name in ("extreme_points", "positive", "negative", "line", "box"):
        one, other = getattr(original, name), getattr(back, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert np.array_equal(one, other)
            assert other.shape[1] == 3
    assert len(back.scribbles) == len(original.scribbles)
    for one, other in zip(original.scribbles, back.scribbles, strict=True):
        assert np.array_equal(one.points, other.points)
        assert one.positive == other.positive
    assert (back.prior is None) == (original.prior is None)
    if back.prior is not None:
        assert (back.prior.version, back.prior.region) == (original.prior.version, original.prior.region)


def test_a_points_file_is_a_prompt():
    assert Prompts.from_json({"points": [[1, 2, 3], [4, 5, 6]]}).extreme_points.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_nothing_said_is_no_json():
    assert Prompts().to_json() == {}


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"points": [[1, 2, 3], [4, 5]]}, "[4, 5]"),
        ({"points": [[1, 2, 3], [4, 5, 6, 7]]}, "[4, 5, 6, 7]"),
        ({"points": [[1, 2, 3], "x"]}, "'x'"),
        ({"points": [["a", "b", "c"], [1, 2, 3]]}, "'a', 'b', 'c'"),
        ({"points": [[1, 2, None], [1, 2, 3]]}, "nan"),
        ({"points": [[1, 2, 10**400], [1, 2, 3]]}, "10000"),
        ({"points": [[[1, 2, 3]]]}, "[[[1, 2, 3]]]"),
        ({"points": [1, 2, 3]}, "[1, 2, 3]"),
        ({"points": 5}, "5"),
        ({"points": {}}, "{}"),
        ({"points": {"a": 1}}, "{'a': 1}"),
        ({"points": ""}, "''"),
        ({"points": None}, "None"),
        ({"positive": None}, "None"),
        ({"negative": True}, "True"),
        ({"points": [[1, 2, 3]]}, "[1.0, 2.0, 3.0]"),
        ({"points": [[1, 2, NAN], [1, 2, 3]]}, "nan"),
        ({"positive": [[1, 2, float("inf")]]}, "inf"),
        ({"line": [[1, 2, 3]]}, "1"),
        ({"box": [[1, 2, 3]] * 3}, "3"),
        ({"line": []}, "0"),
        ({"pionts": []}, "'pionts'"),
        ({"scribbles": 5}, "scribbles"),
        ({"scribbles": [5]}, "scribbles"),
        ({"scribbles": [{"positive": True}]}, "scribbles"),
        ({"scribbles": [{"points": [[1, 2]]}]}, "[1, 2]"),
        ({"scribbles": [{"points": [[1, 2, 3]], "positive": "false"}]}, "'false'"),
        ({"scribbles": [{"points": [[1, 2, 3]], "postive": False}]}, "'postive'"),
        ({"scribbles": [{"points": [[1, 2, 10**400]]}]}, "scribble"),
        ({"prior": 5}, "prior"),
        ({"prior": "?"}, "prior"),
        ([[1, 2, 3]], "JSON object"),
        (None, "JSON object"),
    ],
    ids=str,
)
def test_what_is_no_prompt_is_refused_by_value(data, named):
    with pytest.raises(PromptError) as error:
        Prompts.from_json(data)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_prior_is_refused():
    data = bytearray(MaskPatch.of_mask(np.ones((2, 2, 2), bool)).to_bytes())
    data[-1] ^= 1
    with pytest.raises(PatchError, match="checksum"):
        Prompts.from_json({"prior": base64.b64encode(data).decode()})


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["points", "positive", "x"]), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["points", "positive", "line", "box", "scribbles", "prior"]), _json))
def test_any_json_is_either_prompts_or_a_sentence(data):
    try:
        read = Prompts.from_json(data)
    except AIAssistError as error:
        assert str(error)
    else:
        assert Prompts.from_json(read.to_json()).to_json() == read.to_json()


def test_prompts_cannot_be_changed():
    given_points = np.array([[1.0, 2, 3], [4, 5, 6]])
    asked = Prompts(extreme_points=given_points)
    given_points[:] = 0
    assert asked.extreme_points.tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(ValueError):
        asked.extreme_points[0, 0] = 9


# From patient coordinates


@given(geometries(), points(limit=100, least=2), points(limit=100))
def test_points_in_lps_become_voxel_indices(geometry, extremes, clicks):
    asked = Prompts.from_lps(
        geometry,
        extreme_points=geometry.to_lps(extremes),
        line=geometry.to_lps(extremes[:2]),
        box=geometry.to_lps(extremes[:2]),
        positive=geometry.to_lps(clicks),
        negative=[],
        scribbles=[Scribble(geometry.to_lps(extremes), False)],
    )
    assert np.allclose(asked.extreme_points, extremes, atol=1e-7)
    assert np.allclose(asked.line, extremes[:2], atol=1e-7)
    assert np.allclose(asked.box, extremes[:2], atol=1e-7)
    assert np.allclose(asked.positive, np.reshape(clicks, (-1, 3)), atol=1e-7)
    assert asked.negative.shape == (0, 3)
    assert np.allclose(asked.scribbles[0].points, extremes, atol=1e-7)
    assert asked.scribbles[0].positive is False


def test_a_bad_point_in_lps_is_named_as_it_was_given():
    with pytest.raises(PromptError, match=r"positive.*\[1, 2\]"):
        Prompts.from_lps(CUBE, positive=[[1, 2]])


# The box


def box(asked: Prompts, geometry: Geometry = CUBE):
    low, high = asked.box_ijk(geometry)
    return low.tolist(), high.tolist()


SIX = [[10, 15, 15], [20, 15, 15], [15, 8, 15], [15, 22, 15], [15, 15, 5], [15, 15, 25]]


def test_six_points_make_their_own_box_to_the_voxels_borders():
    assert box(Prompts(extreme_points=SIX)) == ([9.5, 7.5, 4.5], [20.5, 22.5, 25.5])


def test_corners_of_a_box_may_come_in_any_order():
    assert box(Prompts(box=[[20, 8, 25], [10, 22, 5]])) == ([9.5, 7.5, 4.5], [20.5, 22.5, 25.5])


def test_box_and_points_together_make_the_box_of_both():
    both = Prompts(extreme_points=[[10, 15, 15], [20, 15, 15]], box=[[12, 8, 5], [14, 22, 25]])
    assert box(both) == ([9.5, 7.5, 4.5], [20.5, 22.5, 25.5])


def test_coplanar_points_are_thickened_by_the_mean_extent():
    assert box(Prompts(extreme_points=SIX[:4])) == ([9.5, 7.5, 8.5], [20.5, 22.5, 21.5])


def test_the_ends_of_a_long_thin_structure_are_its_own_but_not_those_of_a_plane():
    tube = [[18, 20, 2], [22, 20, 10], [20, 19, 20], [20, 22, 30], [20, 20, 0], [20, 20, 39]]
    assert box(Prompts(extreme_points=tube)) == ([17.5, 18.5, -0.5], [22.5, 22.5, 39.5])
    plane = [[10, 20, 20], [30, 20, 20], [20, 14, 20], [20, 26, 20], [20, 20, 20], [21, 20, 21]]
    low, high = box(Prompts(extreme_points=plane))
    assert high[2] - low[2] == pytest.approx(1 + (20 + 12) / 2)


def test_the_ends_of_a_tube_of_one_voxel_are_its_own():
    thin = [[20, 20, 0], [20, 20, 39], *[[20, 20, 5 * n] for n in range(1, 5)]]
    assert box(Prompts(extreme_points=thin)) == ([19.5, 19.5, -0.5], [20.5, 20.5, 39.5])


def test_thickening_is_in_millimetres():
    geometry = Geometry.from_spacing((40, 40, 40), (1, 1, 4))
    low, high = Prompts(extreme_points=SIX[:4]).box_ijk(geometry)
    assert (high - low - 1)[2] * 4 == pytest.approx(12)


def test_a_box_in_one_slice_is_as_high_as_it_is_wide():
    assert box(Prompts(box=[[10, 8, 15], [20, 22, 15]])) == ([9.5, 7.5, 8.5], [20.5, 22.5, 21.5])
    assert box(Prompts(box=[[10, 8, 15], [20, 22, 19]])) == ([9.5, 7.5, 14.5], [20.5, 22.5, 19.5])


def test_a_line_is_the_diameter_of_a_ball():
    assert box(Prompts(line=[[10, 20, 20], [30, 20, 20]])) == ([9.5, 9.5, 9.5], [30.5, 30.5, 30.5])


def test_a_line_across_the_slices_of_a_sheared_grid_is_as_long_as_it_is():
    affine = np.array([[1, 0, 0, 0], [0, 1, 3, 0], [0, 0, 4, 0], [0, 0, 0, 1.0]])  # as of a gantry that was tilted
    low, high = Prompts(line=[[50, 50, 5], [50, 20, 15]]).box_ijk(Geometry((30, 100, 100), affine))
    assert (high - low - 1)[[0, 2]] == pytest.approx([40, 10])  # 40 mm straight up, in slices of 4 mm
    assert (high - low - 1)[1] == pytest.approx(50)  # which each lie 3 mm farther


def test_the_ball_of_a_line_is_round_in_millimetres():
    geometry = Geometry.from_spacing((40, 40, 40), (1, 2, 4))
    low, high = Prompts(line=[[10, 20, 20], [26, 20, 20]]).box_ijk(geometry)
    assert ((high - low - 1) * geometry.spacing).tolist() == pytest.approx([16, 16, 16])
    assert ((high + low) / 2).tolist() == pytest.approx([18, 20, 20])


def test_a_click_is_the_middle_of_a_ball():
    large = Geometry.from_spacing((99, 99, 99))
    low, high = Prompts(positive=[[50, 50, 50]]).box_ijk(large)
    assert low.tolist() == [50 - CLICK_RADIUS - 0.5] * 3
    assert high.tolist() == [50 + CLICK_RADIUS + 0.5] * 3


def test_the_ball_of_a_click_is_limited_in_voxels():
    mouse = Geometry.from_spacing((99, 99, 99), (0.1, 0.1, 0.2))
    low, high = Prompts(positive=[[50, 50, 50]]).box_ijk(mouse)
    assert ((high - low - 1) / 2).tolist() == pytest.approx(
        [CLICK_RADIUS_VOXELS, CLICK_RADIUS_VOXELS, CLICK_RADIUS_VOXELS / 2]
    )


def test_clicks_and_strokes_inside_share_a_box_and_those_outside_do_not_count():
    large = Geometry.from_spacing((99, 99, 99))
    asked = Prompts(
        positive=[[40, 50, 50]],
        negative=[[90, 90, 90]],
        scribbles=[Scribble([[60, 50, 50]]), Scribble([[1, 1, 1]], positive=False)],
    )
    low, high = asked.box_ijk(large)
    assert (low[0], high[0]) == (40 - CLICK_RADIUS - 0.5, 60 + CLICK_RADIUS + 0.5)
    assert (low[1], high[1]) == (50 - CLICK_RADIUS - 0.5, 50 + CLICK_RADIUS + 0.5)


def test_a_prior_mask_is_its_own_box():
    prior = MaskPatch(Region((5, 8, 10), (26, 23, 21)), np.ones((21, 15, 11), bool))
    assert box(Prompts(prior=prior, negative=[[1, 1, 1]])) == ([9.5, 7.5, 4.5], [20.5, 22.5, 25.5])


def test_an_empty_prior_alone_says_nothing():
    with pytest.raises(PromptError, match="empty"):
        Prompts(prior=MaskPatch.empty(), negative=[[1, 1, 1]]).box_ijk(CUBE)
    with pytest.raises(PromptError, match="empty"):
        Prompts(prior=MaskPatch.of_mask(np.zeros(CUBE.shape, bool)), negative=[[1, 1, 1]]).check(CUBE)


@given(prompts.filter(lambda p: len(p.outline_points) or len(p.positive)), geometries())
def test_the_box_lies_in_the_volume_and_never_turns_inside_out(asked, geometry):
    low, high = asked.box_ijk(geometry)
    assert (low >= -0.5).all()
    assert (high <= np.array(geometry.size) - 0.5).all()
    assert (low <= high).all()


# The check against a volume


@pytest.mark.parametrize("name", ["extreme_points", "positive", "negative", "line", "box"])
def test_a_point_outside_the_volume_is_refused_by_value(name):
    good = {"extreme_points": SIX} if name == "negative" else {}
    with pytest.raises(PromptError, match=r"\[40\.2, 3\.0, 3\.0\] lies outside .* \[39, 39, 39\]"):
        Prompts(**good, **{name: [[3, 3, 3], [40.2, 3, 3]]}).check(CUBE)


def test_a_stroke_outside_the_volume_is_refused_by_value():
    with pytest.raises(PromptError, match=r"scribble point \[-1\.0, 3\.0, 3\.0\]"):
        Prompts(scribbles=[Scribble([[3, 3, 3], [-1, 3, 3]])]).check(CUBE)


def test_points_on_the_outermost_borders_are_inside():
    borders = Prompts(extreme_points=[[-0.5, -0.5, -0.5], [39.5, 39.5, 39.5]])
    borders.check(CUBE)
    assert CUBE.contains(borders.extreme_points).all()


@pytest.mark.parametrize(("name", "count"), [("extreme_points", 6), ("extreme_points", 2), ("line", 2)])
def test_equal_points_are_refused_by_value(name, count):
    with pytest.raises(PromptError, match=rf"All {count} .* \[3\.0, 4\.0, 5\.0\]"):
        Prompts(**{name: [[3, 4, 5]] * count}).check(CUBE)


@pytest.mark.parametrize(
    "asked",
    [
        Prompts(),
        Prompts(negative=[[3, 3, 3]]),
        Prompts(scribbles=[Scribble([[3, 3, 3]], positive=False)]),
        Prompts(scribbles=[Scribble([])]),
    ],
    ids=["nothing", "a negative click", "a negative stroke", "a stroke without points"],
)
def test_prompts_that_cannot_start_a_mask_are_refused(asked):
    with pytest.raises(PromptError, match="no usable prompt"):
        asked.check(CUBE)


@pytest.mark.parametrize(
    "asked",
    [
        Prompts(extreme_points=SIX),
        Prompts(extreme_points=SIX[:2]),
        Prompts(line=SIX[:2]),
        Prompts(box=[[3, 3, 3], [3, 3, 3]]),
        Prompts(positive=[[3, 3, 3]]),
        Prompts(scribbles=[Scribble([[3, 3, 3]])]),
        Prompts(prior=MaskPatch.of_mask(np.ones((40, 40, 40), bool)), negative=[[3, 3, 3]]),
    ],
)
def test_prompts_that_are_enough_pass_for_any_kind_of_grid(asked):
    for affine in NAMED_AFFINES.values():
        geometry = Geometry((40, 40, 40), affine)
        asked.check(geometry)
        low, high = asked.box_ijk(geometry)
        assert (high > low).all()


def test_a_prior_beyond_the_volume_is_refused_by_value():
    prior = MaskPatch(Region((0, 0, 39), (1, 1, 42)), np.ones((1, 1, 3), bool))
    with pytest.raises(PromptError, match=r"\(42, 1, 1\)"):
        Prompts(prior=prior).check(CUBE)
