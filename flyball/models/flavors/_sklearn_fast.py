"""The same answers without the overhead: what scikit-learn spends on one row is mostly checks and frames.

`quicken` recognises [ColumnTransformer of OrdinalEncoder or dense OneHotEncoder on texts, and of numbers passed
through, imputed or scaled] → any estimator, and bare estimators on numbers. Texts become numbers by dictionaries that
are filled by asking the fitted encoders themselves; for a few rows a gradient-boosted ensemble is run as one generated
Python function, comparison by comparison in float64 and summed in scikit-learn's order. Everything private that is read
here may change with scikit-learn, so nothing is assumed: at load both ways answer the same rows (the example, and rows
with missing, unknown and recombined values), and unless all bits agree the plain way is kept.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flyball.errors import InvalidInput
from flyball.models._columns import Column
from flyball.models.fields import Field
from flyball.models.flavors._sklearn_outputs import classes_of, named, tidy

__all__ = ["quicken"]

Predict = Callable[[Mapping[str, Column]], dict[str, Column]]
Part = Callable[[Mapping[str, Column], Column], None]

_UNKNOWN = "\x00 a text that no training data holds"
# Generated code costs about 3 µs a node to compile and 150 bytes to keep.
_MOST_NODES, _DEEPEST = 40_000, 60


class _NotFastError(Exception):
    """This model, or this value, must take the plain way."""


def quicken(
    model: Any,
    fields: Sequence[Field],
    rows: Callable[[Mapping[str, Column]], Any],
    predictor: Callable[[Any, Callable[[Any], Any]], Predict],
    slow: Predict,
    sample: Mapping[str, Column] | None,
) -> Predict | None:
    """Return a function that answers exactly as `slow`, or None when there is none or it is not proved equal.

    Args:
        rows: makes what the model takes from (some of) the columns.
        predictor: makes the plain way of any estimator from what feeds it; the final one gets its matrix directly.
        sample: checked example rows, or None; then rows are made up.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matrix, final = _matrix(model, fields, rows)
            finish = _finish(final, predictor)
            fast = _joined(matrix, finish, slow)
            return fast if _agree(fast, slow, fields, sample) else None
    except Exception:
        # Whatever scikit-learn's insides do differently in another version only costs speed.
        return None


def _joined(
    matrix: Callable[[Mapping[str, Column]], Column], finish: Callable[[Column], dict[str, Column]], slow: Predict
) -> Predict:
    def predict(columns: Mapping[str, Column]) -> dict[str, Column]:
        try:
            return finish(matrix(columns))
        except (_NotFastError, KeyError, ValueError):
            return slow(columns)  # it answers, or says in its own words why it cannot

    return predict


def _matrix(model: Any, fields: Sequence[Field], rows: Any) -> tuple[Callable[[Mapping[str, Column]], Column], Any]:
    """Return what makes the float64 matrix for the final estimator, and that estimator."""
    by_name = {field.name: field for field in fields}
    named = getattr(model, "feature_names_in_", None)
    order = [str(name) for name in named] if named is not None else [field.name for field in fields]
    steps = [step for _, step in model.steps] if hasattr(model, "steps") else [model]
    first, final = steps[0], steps[-1]
    if len(steps) == 1:
        if any(f.dtype in ("string", "datetime") for f in fields):
            raise _NotFastError
        final = copy.copy(final)
        vars(final).pop("feature_names_in_", None)  # else it asks for names with every call
        parts, width = [_numbers(order, slice(0, len(order)), [])], len(order)
    elif len(steps) == 2 and type(first).__name__ == "ColumnTransformer" and not first.sparse_output_:
        parts, width = [], max(s.stop for s in first.output_indices_.values())
        for name, transformer, _ in first.transformers_:
            inputs = [order[i] for i in first._transformer_to_input_indices[name]]
            if transformer != "drop" and inputs:
                parts.append(_part(transformer, [by_name[n] for n in inputs], first.output_indices_[name], rows))
    else:
        raise _NotFastError

    def matrix(columns: Mapping[str, Column]) -> Column:
        table = np.empty((len(next(iter(columns.values()))), width))
        for part in parts:
            part(columns, table)
        return table

    return matrix, final


def _part(transformer: Any, inputs: Sequence[Field], where: slice, rows: Any) -> Part:
    kind = type(transformer).__name__
    if kind in ("OrdinalEncoder", "OneHotEncoder") and all(f.dtype == "string" for f in inputs):
        return _encoder(transformer, [f.name for f in inputs], where, rows)
    if any(f.dtype in ("string", "datetime") for f in inputs):
        raise _NotFastError
    chain = [step for _, step in transformer.steps] if kind == "Pipeline" else [transformer]
    return _numbers([f.name for f in inputs], where, [act for step in chain for act in _elementwise(step)])


def _numbers(names: Sequence[str], where: slice, acts: Sequence[Callable[[Column], None]]) -> Part:
    def part(columns: Mapping[str, Column], table: Column) -> None:
        at = where.start
        for name in names:
            table[:, at] = columns[name]
            at += 1
        if acts:
            block = table[:, where]
            for act in acts:
                act(block)

    return part


def _elementwise(step: Any) -> list[Callable[[Column], None]]:
    kind = type(step).__name__
    if step == "passthrough" or (kind == "FunctionTransformer" and step.func is None):
        return []
    if kind == "StandardScaler":
        mean, scale = step.mean_, step.scale_

        def standardise(block: Column) -> None:
            if mean is not None:
                block -= mean
            if scale is not None:
                block /= scale

        return [standardise]
    if kind == "SimpleImputer" and not step.add_indicator and step.missing_values != step.missing_values:
        fill = step.statistics_.astype(np.float64)
        if np.isnan(fill).any():
            raise _NotFastError
        return [lambda block: np.copyto(block, fill, where=np.isnan(block))]
    raise _NotFastError


def _encoder(encoder: Any, names: Sequence[str], where: slice, rows: Any) -> Part:
    """Ask the encoder for every category, a missing and an unknown one, column by column, and keep its answers."""
    first = [categories[0] if isinstance(categories[0], str) else None for categories in encoder.categories_]

    def ask(at: int, values: list[Any]) -> Column:
        repeated = [values if i == at else [first[i]] * len(values) for i in range(len(names))]
        columns = {name: np.array([*v, None], object)[:-1] for name, v in zip(names, repeated, strict=True)}
        found = encoder.transform(rows(columns))
        return np.asarray(found.toarray() if hasattr(found, "toarray") else found, np.float64)

    base = ask(0, [first[0]])[0]
    tables = []
    for at, categories in enumerate(encoder.categories_):
        values: list[Any] = [c for c in categories if isinstance(c, str)]
        answers = [ask(at, values)]
        for extra in (None, _UNKNOWN):
            try:
                answers.append(ask(at, [extra]))
                values.append(extra)
            except ValueError:
                continue  # it refuses such a value; so the dictionary has none and the plain way says so
        block = np.concatenate(answers)
        varies = np.flatnonzero(((block != base) & ~(np.isnan(block) & np.isnan(base))).any(axis=0))
        spot = where.start + varies
        tables.append((names[at], {v: i for i, v in enumerate(values)}, block[:, varies], spot))
    single = [(name, {v: float(b[i, 0]) for v, i in t.items()}, int(s[0])) for name, t, b, s in tables if len(s) == 1]
    several = [(name, t, b, s) for name, t, b, s in tables if len(s) > 1]

    def part(columns: Mapping[str, Column], table: Column) -> None:
        if len(single) < len(tables):
            table[:, where] = base
        for name, codes, at in single:
            table[:, at] = _looked_up(codes, columns[name])
        for name, codes_at, block, spot in several:
            table[:, spot] = block[_looked_up(codes_at, columns[name])]

    return part


def _looked_up(codes: Mapping[Any, Any], column: Column) -> list[Any]:
    try:
        return [codes[value] for value in column.tolist()]
    except KeyError:
        unknown = codes[_UNKNOWN]
        return [codes.get(value, unknown) if value is not None else codes[None] for value in column.tolist()]


def _finish(
    final: Any, predictor: Callable[[Any, Callable[[Any], Any]], Predict]
) -> Callable[[Column], dict[str, Column]]:
    """Return the last step, from the matrix to the outputs."""
    general: Any = predictor(final, lambda table: table)
    name = type(final).__name__
    if name in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"):
        return _boosted(final, general)
    return lambda table: general(table)


def _boosted(final: Any, general: Any) -> Callable[[Column], dict[str, Column]]:
    if final._preprocessor is not None or final.is_categorical_ is not None:
        raise _NotFastError
    raw, most_rows = _generated(final)
    loss, labels = final._loss, classes_of(final)
    classes = None if labels is None else tidy(labels)

    def finish(table: Column) -> dict[str, Column]:
        if len(table) > most_rows:
            found: dict[str, Column] = general(table)
            return found
        sums = np.array([raw(*row) for row in table.tolist()])
        if classes is None:
            return {"prediction": loss.link.inverse(sums.ravel())}
        likely = loss.predict_proba(sums)
        return {"prediction": classes[likely.argmax(axis=1)], **named(likely)}

    return finish


def _generated(final: Any) -> tuple[Callable[..., list[float]], int]:
    """Return the ensemble as a function of a row's numbers, and up to how many rows it beats scikit-learn.

    Only numbers from checked trees enter the source. A missing value makes every comparison false, which is why a node
    that sends it left asks the opposite question.
    """
    trees = [tree for stage in final._predictors for tree in stage]
    nodes = sum(len(tree.nodes) for tree in trees)
    if nodes > _MOST_NODES or max(int(tree.nodes["depth"].max()) for tree in trees) > _DEEPEST:
        raise _NotFastError
    outputs = len(final._predictors[0])
    base = np.asarray(final._baseline_prediction, np.float64).ravel().tolist()
    lines = [f"def ensemble({', '.join(f'x{i}' for i in range(final.n_features_in_))}):"]
    lines += [f"  y{k} = 0.0 + {base[k]!r}" for k in range(outputs)]
    for stage in final._predictors:
        lines += [f"  y{k} += {_expression(tree.nodes)}" for k, tree in enumerate(stage)]
    lines.append(f"  return [{', '.join(f'y{k}' for k in range(outputs))}]")
    space: dict[str, Any] = {"__builtins__": {}}
    exec(compile("\n".join(lines), "<boosted trees>", "exec"), space)
    # Measured: a tree costs 0.1 to 0.2 µs a row here; in scikit-learn 5.5 µs a call and then 0.05 µs a row.
    return space["ensemble"], 32


def _expression(nodes: Any) -> str:
    fields = ("is_leaf", "value", "feature_idx", "num_threshold", "missing_go_to_left", "left", "right")
    leaf, value, feature, threshold, missing_left, left, right = (nodes[f].tolist() for f in fields)

    def at(i: int) -> str:
        if leaf[i]:
            return _literal(value[i])
        name, limit = f"x{feature[i]}", _literal(threshold[i])
        asks = f"not {name} > {limit}" if missing_left[i] else f"{name} <= {limit}"
        return f"({at(left[i])} if {asks} else {at(right[i])})"

    return at(0)


def _literal(number: float) -> str:
    if number != number:
        raise _NotFastError
    return {float("inf"): "1e999", float("-inf"): "-1e999"}.get(number) or repr(float(number))


def _agree(fast: Predict, slow: Predict, fields: Sequence[Field], sample: Mapping[str, Column] | None) -> bool:
    """Whether both ways give the same bits on the sample and on rows made from it, one by one and together."""
    trial = _trial_rows(fields, sample)
    count, answered = len(next(iter(trial.values()))), 0
    for start, stop in [(0, count), (0, min(count, 16)), *((i, i + 1) for i in range(min(count, 24)))]:
        columns = {name: array[start:stop] for name, array in trial.items()}
        try:
            expected = slow(columns)
        except InvalidInput:
            continue  # the fast way falls back to the same refusal
        found = fast(columns)
        for name, want in expected.items():
            have = found[name]
            if have.dtype != want.dtype or not np.array_equal(have, want, equal_nan=want.dtype.kind == "f"):
                return False
        answered += 1
    return answered > 0


def _trial_rows(fields: Sequence[Field], sample: Mapping[str, Column] | None) -> dict[str, Column]:
    """The sample, then 200 rows whose values are drawn column by column, with missing and unknown ones among them."""
    random = np.random.default_rng(0)
    trial = {}
    for field in fields:
        pool = [] if sample is None else sample[field.name].tolist()
        if field.dtype == "string":
            made: list[Any] = [*pool, *(field.categories or ()), _UNKNOWN]
        elif field.dtype == "bool":
            made = [*pool, False, True]
        else:
            numbers = [v for v in pool if v == v] or [0]
            spread = (max(numbers) - min(numbers)) or 1
            made = [*pool, *(random.normal(np.mean(numbers), spread, 40))]
            if field.dtype == "int64":
                made = [v if v != v else int(v) for v in made]
        if field.nullable:
            made.append(None if field.dtype == "string" else np.nan)
        drawn = [made[i] for i in random.integers(0, len(made), 200)]
        kind: Any = object if field.dtype == "string" else np.float64
        if not field.nullable and field.dtype in ("int64", "bool"):
            kind = np.dtype(field.dtype)
        values = np.empty(len(pool) + 200, kind)
        values[:] = [*pool, *drawn]
        trial[field.name] = values
    return trial
