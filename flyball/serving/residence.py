"""More models than memory: those longest unused are let go, and loaded again when somebody asks them.

With `[serving] memory_budget_mb` every model of the lineup is a `HeldModel`. It keeps its signature always and its
weights while the budget allows; a call that finds them gone loads them again, on the caller's thread, which a batcher
takes care is never the event loop. Other models answer meanwhile.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from flyball.models._columns import Column
from flyball.models.bundle import LoadedModel
from flyball.models.explaining import Explanation

__all__ = ["HeldModel", "Residence"]

_PAGE_BYTES = 4096


class HeldModel(LoadedModel):
    """A model whose weights may be out of memory between two calls."""

    def __init__(self, residence: Residence, loaded: LoadedModel) -> None:
        self.bundle = loaded.bundle
        self.signature = loaded.signature
        self.warnings = loaded.warnings
        self._residence = residence

    def predict(self, columns: Mapping[str, Column]) -> dict[str, Column]:
        """Answer as `LoadedModel.predict`; loads first where it must, and raises then what `bundle.load` raises."""
        return self._residence.model(self.bundle.digest).predict(columns)

    def explain(self, columns: Mapping[str, Column], is_approximate: bool = False) -> Explanation:
        """Explain as `LoadedModel.explain`; loads first where it must."""
        return self._residence.model(self.bundle.digest).explain(columns, is_approximate)

    def is_resident(self) -> bool:
        """Whether a call would be answered without loading."""
        return self._residence.has(self.bundle.digest)


class Residence:
    """The models in memory, newest use last. Methods may be called on any thread.

    Arguments:
        budget_bytes: how much models may take together. The one in use stays, however large it is.
        load: bundle's digest → model.

    A model counts as what the process grew by when it was loaded, and at least as its files; so the first of a library
    counts for the library too.
    """

    def __init__(self, budget_bytes: int, load: Callable[[str], LoadedModel]) -> None:
        self.budget_bytes = budget_bytes
        self._load = load
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one at a time, or growth could not be told apart
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        self._bytes: dict[str, int] = {}
        self.loads = 0

    def __call__(self, digest: str) -> HeldModel:
        """Load a bundle, as `bundle.load` does, and hold it."""
        return HeldModel(self, self.model(digest))

    def model(self, digest: str) -> LoadedModel:
        """Return the model of a bundle, loaded if it is not in memory; others may have to go for it."""
        with self._lock:
            found = self._models.get(digest)
            if found is not None:
                self._models.move_to_end(digest)
                return found
        with self._loading:
            with self._lock:
                found = self._models.get(digest)
            if found is not None:
                return found
            before = _resident_bytes()
            loaded = self._load(digest)
            taken = max(_resident_bytes() - before, loaded.bundle.size_bytes)
            with self._lock:
                self.loads += 1
                self._models[digest] = loaded
                self._bytes[digest] = taken
                self._shrink(digest)
            return loaded

    def has(self, digest: str) -> bool:
        """Whether a bundle's model is in memory."""
        return digest in self._models

    def keep(self, digests: Collection[str]) -> None:
        """Let go of all models but these."""
        with self._lock:
            for digest in [d for d in self._models if d not in digests]:
                del self._models[digest]

    def taken(self) -> dict[str, int]:
        """Return the bytes that each model in memory counts as, longest unused first."""
        with self._lock:
            return {digest: self._bytes[digest] for digest in self._models}

    def _shrink(self, newest: str) -> None:
        total = sum(self._bytes[digest] for digest in self._models)
        for digest in list(self._models):
            if total <= self.budget_bytes or digest == newest:
                return
            total -= self._bytes[digest]
            del self._models[digest]


def _resident_bytes() -> int:
    """Return how much memory this process holds; 0 where the system does not tell (then files count)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0
