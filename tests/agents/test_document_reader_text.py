"""The parts that find text and read it, without the models."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw

from mediamesh.agents.document_reader.components import find_runs
from mediamesh.agents.document_reader.crops import crop, lengthwise, line_width
from mediamesh.agents.document_reader.detection import boxes, detector_input, tensor
from mediamesh.agents.document_reader.recognition import by_width, decoded, line_batch, orientation_batch
from mediamesh.agents.document_reader.rectangles import grown, hull, smallest_rectangle, straight_rectangle
from mediamesh.agents.document_reader.selection import chosen
from mediamesh.wire.errors import InvalidRequest

pytestmark = pytest.mark.slow

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))
CLOUDS = arrays.arrays(np.float64, st.tuples(st.integers(3, 30), st.just(2)), elements=st.integers(-50, 50).map(float))


def flooded(mask) -> list[set[tuple[int, int]]]:
    """Return the components of a mask in the plainest way."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    found = []
    while left:
        piece, edge = set(), [left.pop()]
        while edge:
            row, column = edge.pop()
            piece.add((row, column))
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            edge += near
        found.append(piece)
    return found


@given(MASKS)
def test_the_components_of_a_mask_are_what_flooding_finds(mask) -> None:
    runs = find_runs(mask)
    found: list[set[tuple[int, int]]] = [set() for _ in range(runs.count)]
    for row, start, end, label in zip(runs.rows, runs.starts, runs.ends, runs.labels, strict=True):
        found[label] |= {(int(row), column) for column in range(start, end)}
    assert sorted(map(sorted, found)) == sorted(map(sorted, flooded(mask)))


def test_a_long_winding_component_is_one() -> None:
    mask = np.zeros((201, 201), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    assert find_runs(mask).count == 1


@given(CLOUDS)
def test_the_smallest_rectangle_holds_all_points_and_is_hardly_larger_than_any_other(points) -> None:
    rectangle = smallest_rectangle(points)
    right, down = rectangle[1] - rectangle[0], rectangle[3] - rectangle[0]
    assert abs(right @ down) < 1e-6
    for side in (right, down):
        if (length := math.hypot(*side)) > 1e-9:
            places = (points - rectangle[0]) @ side / length
            assert places.min() > -1e-6
            assert places.max() < length + 1e-6
    straight = straight_rectangle(points)
    area = math.hypot(*right) * math.hypot(*down)
    assert area <= math.prod(straight[2] - straight[0]) + 1e-6


@given(st.floats(-44, 44), st.floats(30, 200), st.floats(5, 25))
def test_the_rectangle_about_a_turned_one_is_that_one(degrees, width, height) -> None:
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ turn
    found = smallest_rectangle(corners)
    if not np.array_equal(found, straight_rectangle(corners)):
        np.testing.assert_allclose(found, corners, atol=1e-6)


@given(CLOUDS)
def test_a_hull_turns_one_way_only(points) -> None:
    corners = hull(points)
    if len(corners) >= 3:
        sides = np.roll(corners, -1, axis=0) - corners
        after = np.roll(sides, -1, axis=0)
        assert (sides[:, 0] * after[:, 1] - sides[:, 1] * after[:, 0] > 0).all()


def test_a_rectangle_grows_on_all_sides() -> None:
    box = np.array([[10.0, 10], [50, 10], [50, 20], [10, 20]])
    np.testing.assert_allclose(grown(box, 3), [[7, 7], [53, 7], [53, 23], [7, 23]])


def test_boxes_are_grown_and_in_pixels_of_the_picture() -> None:
    likely = np.zeros((64, 128), np.float32)
    likely[20:30, 10:110] = 0.9
    [box] = boxes(likely, (256, 256))
    distance = 100 * 10 * 1.5 / (2 * 110)
    edges = np.array([10 - distance, 20 - distance, 110 + distance, 30 + distance]) * [2, 4, 2, 4]
    np.testing.assert_allclose([*box[0], *box[2]], edges, rtol=1e-6)


def test_what_is_small_or_doubtful_is_no_text() -> None:
    likely = np.zeros((64, 64), np.float32)
    likely[10:12, 10:12] = 0.9
    likely[30:40, 10:50] = 0.4
    assert boxes(likely, (64, 64)) == []
    assert boxes(np.zeros((32, 32), np.float32), (32, 32)) == []


@pytest.mark.parametrize("size", [(1, 1), (10, 100_000), (100_000, 10), (640, 480), (8000, 8000), (900, 30)])
def test_the_input_of_the_detector_fits_a_message_whatever_the_picture(size) -> None:
    with Image.new("L", size) as small:
        values = detector_input(small.resize(size).convert("RGB"))
    assert values.nbytes < 20 * 2**20
    assert values.shape[:2] == (1, 3)
    assert all(side % 32 == 0 and side for side in values.shape[2:])


def test_a_tensor_is_bgr_from_minus_one_to_one() -> None:
    assert tensor(Image.new("RGB", (1, 1), (0, 127, 255))).ravel() == pytest.approx([1, -1 / 255, -1])


def bars() -> Image.Image:
    """A picture 200 x 100 that is red left, green right."""
    picture = Image.new("RGB", (200, 100), "white")
    ImageDraw.Draw(picture).rectangle((40, 40, 99, 59), fill=(255, 0, 0))
    ImageDraw.Draw(picture).rectangle((100, 40, 159, 59), fill=(0, 255, 0))
    return picture


@pytest.mark.parametrize("degrees", [0, 20, -30, 90, 180])
def test_a_turned_line_is_cut_out_straight(degrees) -> None:
    angle = math.radians(-degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    centre = np.array([100.0, 100.0])
    picture = Image.new("RGB", (200, 200), "white")
    picture.paste(bars(), (0, 50))
    turned = picture.rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white")
    box = (np.array([[40.0, 90], [160, 90], [160, 110], [40, 110]]) - centre) @ turn + centre
    line = crop(turned, box)
    assert line.size == (288, 48) == (line_width(box), 48)
    values = np.asarray(line, np.int32)
    assert np.abs(values[12:36, 20:124] - [255, 0, 0]).mean() < 12
    assert np.abs(values[12:36, 164:268] - [0, 255, 0]).mean() < 12


def test_a_high_box_is_read_along_its_height() -> None:
    high = np.array([[0.0, 0], [10, 0], [10, 40], [0, 40]])
    np.testing.assert_array_equal(lengthwise(high), [[0, 40], [0, 0], [10, 0], [10, 40]])
    wide = high[:, ::-1]
    np.testing.assert_array_equal(lengthwise(wide[[0, 3, 2, 1]]), wide[[0, 3, 2, 1]])


@given(st.lists(st.integers(8, 3200), max_size=60), st.integers(1, 16))
def test_batches_hold_every_line_once_and_none_is_cut(widths, most) -> None:
    batches = list(by_width(widths, most=most))
    assert sorted(number for numbers, _ in batches for number in numbers) == list(range(len(widths)))
    for numbers, width in batches:
        assert len(numbers) <= most
        assert all(widths[number] <= width for number in numbers)
        assert len(numbers) == 1 or len(numbers) * width <= 12_800


def test_batches_are_padded_with_grey() -> None:
    white = Image.new("RGB", (100, 48), "white")
    values = line_batch([white, white.resize((320, 48))], 320)
    assert values.shape == (2, 3, 48, 320)
    assert (values[0, :, :, :100] == 1).all()
    assert (values[0, :, :, 100:] == 0).all()
    assert orientation_batch([white, white.resize((3000, 48))]).shape == (2, 3, 48, 192)


def test_repetitions_are_one_character_unless_a_blank_is_between() -> None:
    classes = np.array([0, 3, 3, 0, 3, 5, 5, 0, 7])
    characters = np.array([b"", b"l", b"l", b"", b"l", "é".encode(), "é".encode(), b"", b" "], object)
    probabilities = np.linspace(0.1, 0.9, 9, dtype=np.float32)
    text, score = decoded(classes, probabilities, characters)
    assert text == "llé "
    assert score == pytest.approx((0.2 + 0.5 + 0.6 + 0.9) / 4)
    assert decoded(np.zeros(4, int), probabilities[:4], characters[:4]) == ("", 0.0)


@pytest.mark.parametrize(
    ("text", "pages"),
    [("all", [1, 2, 3, 4, 5]), ("", [1, 2, 3, 4, 5]), ("2", [2]), ("4-", [4, 5]), (" 5, 1-2 ,2", [1, 2, 5])],
)
def test_pages_are_chosen_by_numbers_and_ranges(text, pages) -> None:
    assert chosen(text, 5) == pages


@pytest.mark.parametrize("text", ["0", "6", "3-2", "1-6", "x", "1,,2", "-2", "1-2-3", "1.5"])
def test_pages_that_there_are_not_are_named(text) -> None:
    with pytest.raises(InvalidRequest) as raised:
        chosen(text, 5)
    assert raised.value.violations[0][0] == "params.pages"
