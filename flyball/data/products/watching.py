"""The controller that measures the service levels of data products, and says so when a promise is broken."""

from __future__ import annotations

from flyball.control import Outcome, Retry, World
from flyball.data.products.managing import Products
from flyball.errors import NotFound
from flyball.storage.tables import TableStore

__all__ = ["ProductController"]

_EVERY_S = 60.0  # freshness changes with time alone; measuring reads facts of versions, not rows


class ProductController:
    """Controller of the kind `data-product`."""

    kind = "data-product"

    def __init__(self, tables: TableStore) -> None:
        self._tables = tables

    def reconcile(self, name: str, world: World) -> Outcome:
        try:
            found = Products(world.ledger, self._tables, world.clock).watch(name, actor=world.actor)
        except NotFound:
            return None
        return Retry(_EVERY_S) if found else None
