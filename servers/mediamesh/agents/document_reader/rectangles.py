"""Rectangles about points, turned as the points lie."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Points", "grown", "hull", "smallest_rectangle", "straight_rectangle"]

Points = np.ndarray[Any, np.dtype[np.float64]]
# A rectangle that lies straight is taken where the smallest one is hardly smaller: cutting it out blurs nothing.
_STRAIGHT = 1.03


def hull(points: Points) -> Points:
    """Return the corners of the convex hull of points [n, 2] in turn, by Andrew's monotone chain."""
    ordered = sorted({(float(x), float(y)) for x, y in points})
    if len(ordered) < 3:
        return np.array(ordered)
    lower, upper = _chain(ordered), _chain(ordered[::-1])
    return np.array(lower[:-1] + upper[:-1])


def _chain(ordered: list[tuple[float, float]]) -> list[tuple[float, float]]:
    chain: list[tuple[float, float]] = []
    for x, y in ordered:
        while len(chain) > 1 and _turns_right(chain[-2], chain[-1], (x, y)):
            chain.pop()
        chain.append((x, y))
    return chain


def _turns_right(one: tuple[float, float], two: tuple[float, float], three: tuple[float, float]) -> bool:
    return (two[0] - one[0]) * (three[1] - one[1]) <= (two[1] - one[1]) * (three[0] - one[0])


def straight_rectangle(points: Points) -> Points:
    """Return the four corners of the upright rectangle about points: top left, top right, bottom right, bottom left."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def smallest_rectangle(points: Points) -> Points:
    """Return the smallest rectangle about points, or the upright one where that is hardly larger.

    One side of the smallest one lies on the hull (Freeman and Shapira 1975), so the directions of the hull's sides are
    all that have to be tried.

    Returns:
        Corners [4, 2], clockwise on a screen; the first side is within 45 degrees of the direction to the right.
    """
    straight = straight_rectangle(points)
    corners = hull(points)
    if len(corners) < 3:
        return straight
    sides = np.roll(corners, -1, axis=0) - corners
    angles = np.arctan2(sides[:, 1], sides[:, 0]) % (np.pi / 2)
    angles = np.where(angles > np.pi / 4, angles - np.pi / 2, angles)
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    spans = [np.stack([(axes @ corners.T).min(axis=1), (axes @ corners.T).max(axis=1)]) for axes in (along, across)]
    areas = (spans[0][1] - spans[0][0]) * (spans[1][1] - spans[1][0])
    best = int(areas.argmin())
    if float(np.prod(straight[2] - straight[0])) <= _STRAIGHT * areas[best]:
        return straight
    (left, right), (top, bottom) = spans[0][:, best], spans[1][:, best]
    turned = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    rectangle: Points = turned @ np.stack([along[best], across[best]])
    return rectangle


def grown(rectangle: Points, distance: float) -> Points:
    """Return a rectangle whose sides lie further out by a distance."""
    right, down = rectangle[1] - rectangle[0], rectangle[3] - rectangle[0]
    right = right / max(float(np.hypot(*right)), 1e-9) * distance
    down = down / max(float(np.hypot(*down)), 1e-9) * distance
    outward: Points = np.stack([-right - down, right - down, right + down, -right + down])
    return outward + rectangle
