"""What each input did for a compiled model's score, exactly: Shapley values of the model's own arrays.

The game is the interventional one. Inputs in a set have the row's values, the others those of a background row, and a
set is worth the score that the model gives, on average over the background. So an encoder's many columns are one
player, scalers and imputers are looked through, and the values add up to the row's score less the background's mean.

A linear model's are weight times (value − background's mean), summed over the input's columns. Trees' are found leaf by
leaf (`flyball_shapley` in `kernel.c`), at a cost that grows with leaves and not with sets.
Source: Lundberg et al., "From local explanations to global understanding with explainable AI for trees", Nature Machine
Intelligence 2 (2020), Algorithm 3; of linear models: Štrumbelj and Kononenko (2014), equation 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flyball.errors import Corrupt, InvalidInput
from flyball.models.compiled.matrix import Matrix, Numbers
from flyball.models.compiled.scores import Linear, Scores, Trees

__all__ = ["players_of", "shares"]

Array = np.ndarray[Any, Any]

_LONGEST_PATH = 512  # players on one path; the weights of so many take 2 MB
_MOST_VISITS = 500_000_000  # leaves, times rows, times background rows: a few seconds of one core at the very most


def players_of(matrix: Matrix, inputs: Sequence[str]) -> Array:
    """Return for each column of a matrix the place of its input in `inputs`; int32.

    A column that no input fills is the same in every row, so it does not matter whose it is.
    """
    place = {name: at for at, name in enumerate(inputs)}
    found = np.zeros(matrix.width, np.int32)
    for part in matrix.parts:
        if isinstance(part, Numbers):
            found[part.at : part.at + len(part.names)] = [place[name] for name in part.names]
        else:
            found[part.spots] = place[part.name]
    return found


def shares(scores: Scores, rows: Array, background: Array, player: Array, players: int) -> Array:
    """Return what each player did for each score, shape (rows, players, outputs).

    Args:
        rows, background: matrices as `scores` takes them; not changed.
        player: of each column, as `players_of`.

    Raises:
        InvalidInput: it would take too long, or a path of a tree meets more than 512 inputs.
        Corrupt: the trees are none.
    """
    if isinstance(scores, Linear):
        return _of_linear(scores, rows, background, player, players)
    assert isinstance(scores, Trees)
    return _of_trees(scores, rows, background, player, players)


def _of_linear(scores: Linear, rows: Array, background: Array, player: Array, players: int) -> Array:
    weights = np.atleast_2d(scores.weights)  # (outputs, columns)
    differences = rows - background.mean(axis=0)
    found = np.zeros((len(rows), players, len(weights)))
    for output, weight in enumerate(weights):
        np.add.at(found[:, :, output].T, player, (differences * weight).T)
    return found


def _of_trees(scores: Trees, rows: Array, background: Array, player: Array, players: int) -> Array:
    nodes = scores.nodes
    is_leaf = nodes["left"] == np.arange(len(nodes))
    leaves = int(is_leaf.sum())
    inner = nodes[~is_leaf]
    reached = np.concatenate([scores.roots, inner["left"], inner["right"]])
    if len(np.unique(reached)) < len(reached):  # then there may be more paths than anybody can walk
        raise Corrupt("a node of a compiled tree is reached in two ways; the form was not made by Flyball")
    if leaves * len(rows) * len(background) > _MOST_VISITS:
        raise InvalidInput(
            f"the model has {leaves:,} leaves, which is too much to explain {len(rows)} rows at once; ask for fewer"
        )
    longest = min(_depth(nodes, scores.roots), players)
    if longest > _LONGEST_PATH:
        raise InvalidInput(
            f"a path of the model's trees may meet {longest} inputs; at most {_LONGEST_PATH} are explained"
        )
    run: Any = scores._run  # type: ignore[attr-defined]
    found = run.shapley(_rounded(scores, rows), _rounded(scores, background), player, _weights(longest + 1))
    whole = np.zeros((len(rows), players, found.shape[2]))
    whole[:, : found.shape[1]] = found
    return whole


def _rounded(scores: Trees, table: Array) -> Array:
    return np.ascontiguousarray(table.astype(np.float32) if scores.is_single else table, np.float64)


def _depth(nodes: Array, roots: Array) -> int:
    """Return the most splits on a path; children stand behind their parents, so levels end."""
    depth, level = 0, np.asarray(roots, np.int64)
    while True:
        inner = level[nodes["left"][level] != level]
        if not len(inner):
            return depth
        level = np.unique(np.concatenate([nodes["left"][inner], nodes["right"][inner]]).astype(np.int64))
        depth += 1
        if depth > _LONGEST_PATH:
            return depth


def _weights(size: int) -> Array:
    """Return (p−1)! q! / (p+q)! at [p, q], and 0 where p is 0."""
    found = np.zeros((size + 1, size + 1))
    q = np.arange(size + 1)
    found[1] = 1 / (q + 1)
    for p in range(1, size):
        found[p + 1] = found[p] * p / (p + q + 1)
    return found
