"""What is done with datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyball.ledger.refs import Ref, ref

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.datasets import Published

from flyball.platform.home import Home

__all__ = ["DataActs"]


class DataActs(Home):
    """What is done with datasets."""

    def publish(self, dataset: str, source: Any = None, **options: Any) -> Published:
        """Publish rows as the dataset's next version; see `Datasets.publish`."""
        self._may("publish")
        return self.datasets.publish(dataset, source, actor=self.actor, **options)

    def frame(self, target: str | Ref) -> pl.LazyFrame:
        """Return the rows of a version of a dataset or a quarantine, lazily. Raises NotFound."""
        self._may("read")
        found = ref(str(target)) if "/" in str(target) else ref(str(target), "dataset")
        return self.datasets.frame(found.name, found.version or "latest", found.kind)
