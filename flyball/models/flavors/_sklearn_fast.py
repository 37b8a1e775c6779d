"""The same answers without the overhead: what scikit-learn spends on one row is mostly checks and frames.

`read` recognises [ColumnTransformer of OrdinalEncoder or dense OneHotEncoder on texts, and of numbers passed through,
imputed or scaled] → [scalers] → any estimator. Texts become numbers by tables that are filled by asking the fitted
encoders themselves. Where the estimator is one of `_sklearn_scores`, the whole becomes a `compiled.forms.Form`, which
the bundle keeps; else only the way to the estimator is quick. Without a C compiler a few rows of a gradient-boosted
ensemble are run as one generated Python function, comparison by comparison in float64 and summed in scikit-learn's
order. Everything private that is read here may change with scikit-learn, so nothing is assumed: both ways answer the
same rows (the example; rows with missing, unknown and recombined values; rows at the splits of trees and one unit in
the last place beside them), and unless all bits agree (`compiled.forms.same`) the plain way is kept.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from flyball.errors import FlyballError, InvalidInput
from flyball.models._columns import Column
from flyball.models.compiled.forms import Form, agree
from flyball.models.compiled.matrix import UNKNOWN, Codes, Matrix, Numbers
from flyball.models.compiled.scores import Linear, Scores, Trees
from flyball.models.fields import Field
from flyball.models.flavors._sklearn_outputs import classes_of, named, tidy
from flyball.models.flavors._sklearn_scores import NotCompiledError, scores_of

__all__ = ["compiled", "quicken"]

Predict = Callable[[Mapping[str, Column]], dict[str, Column]]
Predictor = Callable[[Any, Callable[[Any], Any]], Predict]
Acts = list[tuple[str, Any]]

# Generated code costs about 3 µs a node to compile and 150 bytes to keep.
_MOST_NODES, _DEEPEST = 40_000, 60
_TRIAL_ROWS, _MATRIX_ROWS = 300, 1000


class _NotFastError(Exception):
    """This model, or this value, must take the plain way; the text says why."""


def compiled(
    model: Any,
    fields: Sequence[Field],
    rows: Callable[[Mapping[str, Column]], Any],
    predictor: Predictor,
    slow: Predict,
    sample: Mapping[str, Column] | None,
    dtype: str = "float64",
) -> tuple[Form | None, str]:
    """Return the model's compiled form and nothing, or None and why there is none.

    Args:
        rows: makes what the model takes from (some of) the columns.
        predictor: makes the plain way of any estimator from what feeds it; the final one gets its matrix directly.
        slow: the plain way of the whole model, with which the form must agree.
        sample: checked example rows, or None; then rows are made up.
        dtype: of the matrix that the model gets, where it gets one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matrix, final = _read(model, fields, rows, dtype)
            scores, finish = scores_of(final)
            labels = classes_of(model)
            classes = None if labels is None else tidy(labels)
            edges = _edges(scores, matrix.width) if isinstance(scores, Trees) else [np.zeros(0)] * matrix.width
            trial = _trial_rows(fields, sample, _edges_by_name(matrix, edges))
            why = ""
            for each in _ways(scores):
                form = Form(matrix, each, finish, classes)
                why = agree(form, slow, trial, form.ulps) or ""
                if not why:
                    return _of_matrices(form, final, predictor, trial, edges)
            return None, why
    except (_NotFastError, NotCompiledError, FlyballError) as error:
        return None, str(error)
    except Exception as error:
        # Whatever scikit-learn's insides do differently in another version only costs speed.
        return None, f"the model is not built as expected ({type(error).__name__}: {str(error)[:120]})"


def _ways(scores: Scores) -> Sequence[Scores]:
    """How a matrix may have lain in memory for the model, which decides in which order BLAS sums."""
    return [scores, replace(scores, is_by_column=True)] if isinstance(scores, Linear) else [scores]


def _of_matrices(
    form: Form, final: Any, predictor: Predictor, trial: Mapping[str, Column], edges: Sequence[Column]
) -> tuple[Form | None, str]:
    """Compare the last step alone on many more rows; return the form with its proof, or why not."""
    is_whole = not isinstance(form.scores, Trees) or not form.scores.takes_missing
    table = _trial_matrix(form.matrix, trial, edges, is_whole)
    if getattr(final, "_preprocessor", None) is None and not form.ulps:  # BLAS sums a matrix of its own in its own way
        general = predictor(final, lambda found: found["table"])
        why = agree(lambda found: form.of_matrix(found["table"].copy()), general, {"table": table})
        if why is not None:
            return None, why
    return form.proved(table, form.of_matrix(table.copy())), ""


def quicken(
    model: Any,
    fields: Sequence[Field],
    rows: Callable[[Mapping[str, Column]], Any],
    predictor: Predictor,
    slow: Predict,
    sample: Mapping[str, Column] | None,
) -> Predict | None:
    """Return a function that answers exactly as `slow` with the model's own last step, or None; see `compiled`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matrix, final = _read(model, fields, rows)
            if getattr(final, "_preprocessor", None) is not None:
                return None
            fast = _joined(matrix, _finish(final, predictor), slow)
            return fast if agree(fast, slow, _trial_rows(fields, sample, {})) is None else None
    except Exception:
        # Whatever scikit-learn's insides do differently in another version only costs speed.
        return None


def _joined(matrix: Matrix, finish: Callable[[Column], dict[str, Column]], slow: Predict) -> Predict:
    def predict(columns: Mapping[str, Column]) -> dict[str, Column]:
        try:
            return finish(matrix(columns))
        except (_NotFastError, InvalidInput, KeyError, ValueError):
            return slow(columns)  # it answers, or says in its own words why it cannot

    return predict


def _read(model: Any, fields: Sequence[Field], rows: Any, dtype: str = "float64") -> tuple[Matrix, Any]:
    """Return what makes the float64 matrix for the final estimator, and that estimator."""
    names = getattr(model, "feature_names_in_", None)
    order = [str(name) for name in names] if names is not None else [field.name for field in fields]
    steps = [step for _, step in model.steps] if hasattr(model, "steps") else [model]
    *before, final = [step for step in steps if not (isinstance(step, str) and step == "passthrough")]
    if getattr(final, "_preprocessor", None) is not None:
        before = [*before, final._preprocessor]
    if before and type(before[0]).__name__ == "ColumnTransformer":
        matrix = _split(before[0], order, {field.name: field for field in fields}, rows)
        after = [act for step in before[1:] for act in _elementwise(step)]
        return Matrix(matrix.width, matrix.parts, matrix.base, after), final
    if any(f.dtype in ("string", "datetime") for f in fields):
        raise _NotFastError("texts and times reach the model other than by a ColumnTransformer")
    acts: Acts = [("single", None)] if dtype == "float32" else []
    acts += [act for step in before for act in _elementwise(step)]
    final = copy.copy(final)
    vars(final).pop("feature_names_in_", None)  # else it asks for names with every call
    return Matrix(len(order), [Numbers(tuple(order), 0, tuple(acts))]), final


def _split(first: Any, order: Sequence[str], by_name: Mapping[str, Field], rows: Any) -> Matrix:
    if first.sparse_output_:
        raise _NotFastError("the ColumnTransformer gives a sparse matrix")
    width = max(s.stop for s in first.output_indices_.values())
    base = np.zeros(width)
    parts: list[Numbers | Codes] = []
    for name, transformer, _ in first.transformers_:
        inputs = [by_name[order[i]] for i in first._transformer_to_input_indices[name]]
        where = first.output_indices_[name]
        kind = type(transformer).__name__
        if not inputs or (isinstance(transformer, str) and transformer == "drop"):
            continue
        if kind in ("OrdinalEncoder", "OneHotEncoder") and all(f.dtype == "string" for f in inputs):
            codes, base[where] = _encoder(transformer, [f.name for f in inputs], where, rows)
            parts += codes
            continue
        if any(f.dtype in ("string", "datetime") for f in inputs):
            raise _NotFastError(f"a {kind} takes texts or times")
        chain = [step for _, step in transformer.steps] if kind == "Pipeline" else [transformer]
        acts = tuple(act for step in chain for act in _elementwise(step))
        parts.append(Numbers(tuple(f.name for f in inputs), where.start, acts))
    return Matrix(width, parts, base if any(isinstance(part, Codes) for part in parts) else None)


def _elementwise(step: Any) -> Acts:
    kind = type(step).__name__
    if (isinstance(step, str) and step == "passthrough") or (kind == "FunctionTransformer" and step.func is None):
        return []
    if kind == "StandardScaler":
        return [act for act in (("subtract", step.mean_), ("divide", step.scale_)) if act[1] is not None]
    if kind == "RobustScaler":
        return [act for act in (("subtract", step.center_), ("divide", step.scale_)) if act[1] is not None]
    if kind == "MaxAbsScaler" and not getattr(step, "clip", False):
        return [("divide", step.scale_)]
    if kind == "MinMaxScaler" and not step.clip:
        return [("multiply", step.scale_), ("add", step.min_)]
    if kind == "SimpleImputer" and not step.add_indicator and step.missing_values != step.missing_values:
        fill = step.statistics_.astype(np.float64)
        if not np.isnan(fill).any():
            return [("fill", fill)]
    raise _NotFastError(f"a {kind} before the estimator is not compiled")


def _encoder(encoder: Any, names: Sequence[str], where: slice, rows: Any) -> tuple[list[Codes], Column]:
    """Ask the encoder for every category, a missing and an unknown one, column by column, and keep its answers."""
    first = [categories[0] if isinstance(categories[0], str) else None for categories in encoder.categories_]

    def ask(at: int, values: list[Any]) -> Column:
        repeated = [values if i == at else [first[i]] * len(values) for i in range(len(names))]
        columns = {name: np.array([*v, None], object)[:-1] for name, v in zip(names, repeated, strict=True)}
        found = encoder.transform(rows(columns))
        return np.asarray(found.toarray() if hasattr(found, "toarray") else found, np.float64)

    base = ask(0, [first[0]])[0]
    codes = []
    for at, categories in enumerate(encoder.categories_):
        values: list[Any] = [c for c in categories if isinstance(c, str)]
        answers = [ask(at, values)]
        for extra in (None, UNKNOWN):
            try:
                answers.append(ask(at, [extra]))
                values.append(extra)
            except ValueError:
                continue  # it refuses such a value, and so does the table without it
        block = np.concatenate(answers)
        varies = np.flatnonzero(((block != base) & ~(np.isnan(block) & np.isnan(base))).any(axis=0))
        codes.append(Codes(names[at], tuple(values), block[:, varies], where.start + varies))
    return codes, base


def _finish(final: Any, predictor: Predictor) -> Callable[[Column], dict[str, Column]]:
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


def _edges(scores: Trees, width: int) -> list[Column]:
    """Return for each column of the matrix where trees split it, and the next numbers on either side."""
    nodes = scores.nodes
    split = nodes["left"] != nodes["right"]
    found = []
    for feature in range(width):
        at = np.unique(nodes["threshold"][split & (nodes["feature"] == feature) & (nodes["flags"] & 2 == 0)])
        at = at[np.isfinite(at)]
        near = [np.nextafter(at, side) for side in (-np.inf, np.inf)]
        if scores.is_single:
            single = at.astype(np.float32)
            near += [np.nextafter(single, np.float32(side)).astype(np.float64) for side in (-np.inf, np.inf)]
        found.append(np.concatenate([at, *near]))
    return found


def _edges_by_name(matrix: Matrix, edges: Sequence[Column]) -> dict[str, Column]:
    found = {}
    for part in matrix.parts:
        if isinstance(part, Numbers) and not part.acts:
            found.update({name: edges[part.at + at] for at, name in enumerate(part.names)})
    return found


def _trial_matrix(matrix: Matrix, trial: Mapping[str, Column], edges: Sequence[Column], is_whole: bool) -> Column:
    """Return rows of the matrix: those of the trial, shuffled column by column, with the edges among them."""
    random = np.random.default_rng(1)
    kept = []
    for row in range(len(next(iter(trial.values())))):
        try:
            kept.append(matrix({name: array[row : row + 1] for name, array in trial.items()}))
        except InvalidInput:
            continue
    known = np.concatenate(kept)
    table = np.empty((_MATRIX_ROWS, matrix.width))
    for at, edge in enumerate(edges):
        values = known[:, at]
        values = values[np.isfinite(values)] if is_whole else values
        pool = np.concatenate([values, random.permutation(edge)[: 4 * len(values)]]) if len(values) else edge
        table[:, at] = random.choice(pool, _MATRIX_ROWS) if len(pool) else 0.0
    return table


def _trial_rows(
    fields: Sequence[Field], sample: Mapping[str, Column] | None, edges: Mapping[str, Column]
) -> dict[str, Column]:
    """The sample, then rows whose values are drawn column by column, with missing and unknown ones among them."""
    random = np.random.default_rng(0)
    trial = {}
    for field in fields:
        pool = [] if sample is None else sample[field.name].tolist()
        if field.dtype == "string":
            made: list[Any] = [*pool, *(field.categories or ()), UNKNOWN]
        elif field.dtype == "bool":
            made = [*pool, False, True]
        else:
            numbers = [v for v in pool if v == v] or [0]
            spread = (max(numbers) - min(numbers)) or 1
            made = [*pool, *(random.normal(np.mean(numbers), spread, 40))]
            made += random.permutation(edges.get(field.name, np.zeros(0)))[:200].tolist()
            if field.dtype == "int64":
                made = [v if v != v else int(v) for v in made]
        if field.nullable:
            made += [None if field.dtype == "string" else np.nan] * (1 + len(made) // 20)
        drawn = [made[i] for i in random.integers(0, len(made), _TRIAL_ROWS)]
        kind: Any = object if field.dtype == "string" else np.float64
        if not field.nullable and field.dtype in ("int64", "bool"):
            kind = np.dtype(field.dtype)
        values = np.empty(len(pool) + _TRIAL_ROWS, kind)
        values[:] = [*pool, *drawn]
        trial[field.name] = values
    return trial
