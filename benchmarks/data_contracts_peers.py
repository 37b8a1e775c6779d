"""The same sixteen checks written for other validators; each is a script for the environment of `peers.run`.

Every script takes the path of the orders and how many rows of them, and prints total and validating seconds, CPU
seconds, peak memory and how many of the checks found failures (`-1` where the tool does not say).
"""

from __future__ import annotations

__all__ = ["PEERS"]

_HEAD = r"""
import json, sys, time, logging
import polars as pl
path, rows = sys.argv[1], int(sys.argv[2])
COUNTRIES, STATES = ["DE", "FR", "US", "GB", "IT", "ES"], ["new", "paid", "packed", "shipped", "returned"]
EMAIL = r"^[^@\s]+@[^@\s]+\.[a-z]+$"
CUSTOMERS = list(range(100_000))
"""
_TAIL = r"""
began, cpu = time.perf_counter(), time.process_time()
frame = load()
loaded = time.perf_counter()
found = validate(frame)
ended = time.perf_counter()
peak = float(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
print(json.dumps({"seconds": ended - began, "validate_s": ended - loaded, "cpu_s": time.process_time() - cpu,
                  "memory_mb": peak, "failing": found}))
"""
_LOAD = "def load():\n    return pl.read_parquet(path, n_rows=rows)\n"

_PANDERA = r"""
import pandera.polars as pa
C = pa.Column
CUSTOMER = pl.Series(CUSTOMERS)
def validate(frame):
    known = pa.Check(lambda d: d.lazyframe.select(pl.col(d.key).is_in(CUSTOMER.implode())))
    mean = pa.Check(lambda d: d.lazyframe.select(pl.col(d.key).mean().is_between(100, 1000)))
    spread = pa.Check(lambda d: d.lazyframe.select(pl.col(d.key).std().is_between(1, 100)))
    order = pa.Check(lambda d: d.lazyframe.select(pl.col("shipped_at") >= pl.col("placed_at")))
    count = pa.Check(lambda d: d.lazyframe.select(pl.len() > 0))
    schema = pa.DataFrameSchema({
        "order_id": C(pl.Int64, nullable=False, unique=True), "customer_id": C(pl.Int64, known, nullable=False),
        "country": C(pl.String, pa.Check.isin(COUNTRIES)), "status": C(pl.String, pa.Check.isin(STATES)),
        "email": C(pl.String, pa.Check.str_matches(EMAIL)), "quantity": C(pl.Int32, pa.Check.in_range(1, 100)),
        "price": C(pl.Float64, [pa.Check.in_range(0, 10_000), spread]),
        "total": C(pl.Float64, [pa.Check.in_range(0, 1_000_000), mean], nullable=False),
        "placed_at": C(pl.Datetime("us")), "shipped_at": C(pl.Datetime("us")),
    }, checks=[order, count])
    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        return len({(str(case["column"]), str(case["check"])) for case in error.failure_cases.to_dicts()})
    return 0
"""

_POINTBLANK = r"""
import pointblank as pb
def validate(frame):
    v = (pb.Validate(frame)
         .col_schema_match(pb.Schema(columns=[(n, str(d)) for n, d in frame.schema.items()]))
         .rows_distinct(columns_subset=["order_id"]).col_vals_not_null(["order_id", "customer_id", "total"])
         .col_vals_in_set("customer_id", CUSTOMERS).col_vals_in_set("country", COUNTRIES)
         .col_vals_in_set("status", STATES).col_vals_regex("email", EMAIL)
         .col_vals_between("quantity", 1, 100).col_vals_between("price", 0, 10_000)
         .col_vals_between("total", 0, 1_000_000)
         .col_vals_expr(pl.col("shipped_at") >= pl.col("placed_at"))
         .col_vals_expr(pl.col("total").mean().is_between(100, 1000))
         .col_vals_expr(pl.col("price").std().is_between(1, 100))
         .col_vals_expr(pl.len() > 0)
         .interrogate(collect_extracts=True, get_first_n=5))
    return sum(1 for n in v.n_failed().values() if n)
"""

_DATAFRAMELY = r"""
import dataframely as dy
CUSTOMER = pl.Series(CUSTOMERS)
class Orders(dy.Schema):
    order_id = dy.Int64(nullable=False)
    customer_id = dy.Int64(nullable=False, check=lambda c: c.is_in(CUSTOMER.implode()))
    country = dy.String(nullable=True, check=lambda c: c.is_in(COUNTRIES))
    status = dy.String(nullable=True, check=lambda c: c.is_in(STATES))
    email = dy.String(nullable=True, regex=EMAIL)
    quantity = dy.Int32(nullable=True, min=1, max=100)
    price = dy.Float64(nullable=True, min=0, max=10_000)
    total = dy.Float64(nullable=False, min=0, max=1_000_000)
    placed_at = dy.Datetime(nullable=True)
    shipped_at = dy.Datetime(nullable=True)
    @dy.rule()
    def unique_key(cls):
        return pl.col("order_id").is_unique()
    @dy.rule()
    def ordered(cls):
        return pl.col("shipped_at") >= pl.col("placed_at")
    @dy.rule()
    def mean_total(cls):
        return pl.col("total").mean().is_between(100, 1000)
    @dy.rule()
    def spread_price(cls):
        return pl.col("price").std().is_between(1, 100)
    @dy.rule()
    def some_rows(cls):
        return pl.len() > 0
def validate(frame):
    good, failure = Orders.filter(frame)
    failure.invalid().head(5)
    return len(failure.counts())
"""

_PATITO = r"""
import datetime, typing
import patito as pt
CUSTOMER = pl.Series(CUSTOMERS)
class Orders(pt.Model):
    order_id: int = pt.Field(unique=True)
    customer_id: int = pt.Field(constraints=pt.field.is_in(CUSTOMER.implode()))
    country: typing.Optional[typing.Literal["DE", "FR", "US", "GB", "IT", "ES"]]
    status: typing.Optional[typing.Literal["new", "paid", "packed", "shipped", "returned"]]
    email: typing.Optional[str] = pt.Field(pattern=EMAIL)
    quantity: typing.Optional[int] = pt.Field(ge=1, le=100, dtype=pl.Int32)
    price: typing.Optional[float] = pt.Field(ge=0, le=10_000, constraints=pl.col("price").std().is_between(1, 100))
    total: float = pt.Field(ge=0, le=1_000_000, constraints=pl.col("total").mean().is_between(100, 1000))
    placed_at: typing.Optional[datetime.datetime] = pt.Field(constraints=pl.len() > 0)
    shipped_at: typing.Optional[datetime.datetime] = pt.Field(constraints=pl.col("shipped_at") >= pl.col("placed_at"))
def validate(frame):
    try:
        Orders.validate(frame)
    except pt.exceptions.DataFrameValidationError as error:
        return len(error.errors())
    return 0
"""

_GREAT_EXPECTATIONS = r"""
logging.disable(logging.CRITICAL)
import great_expectations as gx, great_expectations.expectations as gxe, pandas as pd, pyarrow.parquet as pq
def load():
    return next(pq.ParquetFile(path).iter_batches(batch_size=rows)).to_pandas()
def validate(frame):
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = (context.data_sources.add_pandas("p").add_dataframe_asset("a")
             .add_batch_definition_whole_dataframe("b"))
    E = gxe
    suite = gx.ExpectationSuite(name="s", expectations=[
        *(E.ExpectColumnValuesToBeOfType(column=c, type_=str(frame[c].dtype)) for c in frame.columns),
        *(E.ExpectColumnValuesToNotBeNull(column=c) for c in ("order_id", "customer_id", "total")),
        E.ExpectColumnValuesToBeUnique(column="order_id"),
        E.ExpectColumnValuesToBeInSet(column="customer_id", value_set=CUSTOMERS),
        E.ExpectColumnValuesToBeInSet(column="country", value_set=COUNTRIES),
        E.ExpectColumnValuesToBeInSet(column="status", value_set=STATES),
        E.ExpectColumnValuesToMatchRegex(column="email", regex=EMAIL),
        E.ExpectColumnValuesToBeBetween(column="quantity", min_value=1, max_value=100),
        E.ExpectColumnValuesToBeBetween(column="price", min_value=0, max_value=10_000),
        E.ExpectColumnValuesToBeBetween(column="total", min_value=0, max_value=1_000_000),
        E.ExpectColumnPairValuesAToBeGreaterThanB(column_A="shipped_at", column_B="placed_at", or_equal=True),
        E.ExpectColumnMeanToBeBetween(column="total", min_value=100, max_value=1000),
        E.ExpectColumnStdevToBeBetween(column="price", min_value=1, max_value=100),
        E.ExpectTableRowCountToBeBetween(min_value=1),
    ])
    found = batch.get_batch(batch_parameters={"dataframe": frame}).validate(suite, result_format="BASIC")
    return sum(not result.success for result in found.results)
"""

PEERS = {
    "pandera": _HEAD + _LOAD + _PANDERA + _TAIL,
    "pointblank": _HEAD + _LOAD + _POINTBLANK + _TAIL,
    "dataframely": _HEAD + _LOAD + _DATAFRAMELY + _TAIL,
    "patito": _HEAD + _LOAD + _PATITO + _TAIL,
    "great expectations": _HEAD + _GREAT_EXPECTATIONS + _TAIL,
}
