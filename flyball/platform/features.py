"""What is said of features: views and services declared, who uses them, deprecated and retired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from warnings import warn

from flyball.errors import Conflict, Forbidden, InvalidInput, NotFound, did_you_mean, listed
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.platform.data import DataActs
from flyball.platform.models import ModelActs
from flyball.platform.resources import ResourceActs

if TYPE_CHECKING:
    from types import ModuleType

    from flyball.features.requests import OnRequest
    from flyball.features.services import FeatureService
    from flyball.features.specs import ViewSpec
    from flyball.features.storing import StoredViews
    from flyball.features.views import FeatureView
    from flyball.governance.policies import Masking

__all__ = ["FeatureActs", "FeatureUse", "ViewPage"]

VIEW, SERVICE = "feature-view", "feature-service"


@dataclass(frozen=True)
class FeatureUse:
    """Who uses a view: `user` is a deployment or a feature service, `through` the service, `model` what is served."""

    user: Ref
    through: Ref | None = None
    model: Ref | None = None


@dataclass(frozen=True)
class ViewPage:
    """Some of the declared views by name, how many there are in all, and whose they are and what tags they have."""

    views: list[Resource]
    total: int
    owners: list[str]
    tags: list[str]


class FeatureActs(DataActs, ResourceActs, ModelActs):
    """What is said of features."""

    @cached_property
    def stored_views(self) -> StoredViews:
        """The rows of views that are kept."""
        from flyball.features.storing import StoredViews

        return StoredViews(self.ledger, self.tables)

    # -- declaring

    def declare_view(self, view: FeatureView | OnRequest, **more: Any) -> Resource:
        """Declare a decorated view, or a request-time function, as `feature-view/<name>`; what people said there stays.

        Args:
            more: fields of the declaration, such as `materialise={"every": "10m"}`.

        Raises:
            InvalidInput: its features cannot be told, because its data set has no version and it was never computed;
                or a function that cannot be kept, see `features.functions.keep_function`.
            Conflict: rows of another definition with this version are stored; raise `version=`.
        """
        from flyball.features.declaring import declaration, reference_of
        from flyball.features.functions import keep_function
        from flyball.features.offline import check_fits
        from flyball.features.requests import OnRequest

        self._may("apply")
        before = self._declared(view.name)
        if isinstance(view, OnRequest):
            function = keep_function(view, self.home)
            text = " ".join((view.function.__doc__ or "").split())
            spec = {"description": text, "digest": function.digest, "text": getattr(view, "made", "") or view.text}
            return self.declare(VIEW, view.name, **{**(before or {}), **spec, "definition": function.to_dict(), **more})
        described = self.view_spec(view)
        kept = self.stored_views.newest(view.name, view.version)
        if kept is not None:
            check_fits(kept, view, described)
        found = declaration(view, described, before, reference_of(view, self.project))
        if self._has_dataset(view.source):
            found["dataset"] = view.source
        return self.declare(VIEW, view.name, **{**found, **more})

    def views_in(self, file: str, name: str | None = None) -> list[FeatureView | OnRequest]:
        """Return the decorated views and request-time functions of a Python file of the project, or the one called so.

        Raises:
            NotFound: no such file, or there is none in it.
            InvalidInput: it cannot be imported.
        """
        from flyball.features.requests import OnRequest
        from flyball.features.views import FeatureView
        from flyball.pipelines.loading import load_module

        self._may("apply")
        module = load_module(file, self.project)
        kinds = (FeatureView, OnRequest)
        there = {n: v for n, v in vars(module).items() if isinstance(v, kinds) and _is_defined_in(v, module)}
        wanted = list(there) if name is None else [name]
        for one in wanted:
            if one not in there:
                raise NotFound(
                    f"{file} has no feature view {one!r}{did_you_mean(one, there)} (it has: {listed(there)})"
                )
        if not wanted:
            raise NotFound(f"{file} has no feature view; decorate a function with @fb.feature_view(…)")
        return [there[one] for one in wanted]

    def view_code(self, name: str) -> FeatureView:
        """Return a declared view with its code, loaded from the project as functions of pipelines are.

        Raises:
            NotFound: no such view, file or function.
            InvalidInput: it does not say where its code is, or that cannot be imported.
            Conflict: the code is not what was declared.
        """
        from flyball.features.declaring import check_declared
        from flyball.features.kinds import FeatureView as Declared
        from flyball.features.views import FeatureView
        from flyball.pipelines.loading import load_function

        self._may("materialise")
        resource = self.resource(Ref(VIEW, name))
        declared = Declared.model_validate(resource.spec)
        if "on_request" in declared.definition:
            raise InvalidInput(f"{resource.ref} is computed inside the request; there is nothing to store of it")
        if not declared.function:
            raise InvalidInput(
                f"{resource.ref} does not say where its code is; put it into a file of the project and declare it with "
                "flyball features declare FILE.py, or call fb.materialise(view) where it is defined"
            )
        found = load_function(declared.function, self.project)
        if not isinstance(found, FeatureView):
            raise InvalidInput(
                f"{declared.function} of {resource.ref} is a {type(found).__name__}; decorate it: @fb.feature_view(…)"
            )
        if found.name != name:
            raise Conflict(f"{declared.function} of {resource.ref} is a view called {found.name}; declare it again")
        check_declared(found, self.view_spec(found), declared)
        return found

    def view_text(self, name: str) -> str:
        """Return the source of a declared view: as it was declared, else as its file has it now; nothing is run."""
        from flyball.features.definitions import text_in

        spec = self.resource(Ref(VIEW, name)).spec
        where, _, function = str(spec.get("function", "")).rpartition(":")
        if spec.get("text") or not where.endswith(".py"):
            return str(spec.get("text", ""))
        return text_in(self.project / where, function)

    def view_spec(self, view: str | FeatureView | ViewSpec) -> ViewSpec:
        """Return the light description of a view: of the newest version of its data set, or as it is declared.

        Raises:
            NotFound: no view of this name is declared.
            InvalidInput: its features cannot be told, or it is a request-time function.
        """
        from flyball.features.specs import ViewSpec

        if isinstance(view, ViewSpec):
            return view
        if isinstance(view, str):
            resource = self.resource(Ref(VIEW, ref(view, VIEW).name))
            if "on_request" in resource.spec["definition"]:
                raise InvalidInput(f"{resource.ref} is a request-time function; there is nothing to look up or to push")
            return ViewSpec.from_dict(resource.spec["definition"])
        self._may("read")
        newest = self.versions("dataset", view.source, 1)
        return view.spec(None if not newest else self.datasets.frame(view.source, newest[0].number).collect_schema())

    def view_masks(self, name: str, purpose: str | None = None) -> dict[str, Masking]:
        """Return how the features and keys of a view are masked for whoever asks, by column.

        A feature is masked as the column of the data set that it was made of, unless a policy speaks of it by name.

        Raises:
            Forbidden: the policies do not allow its data set to be read for this purpose.
        """
        with self._reading() as world:
            resource = world.resources.find(VIEW, name)
        if resource is None:
            return {}
        definition = resource.spec["definition"]
        own = [*definition.get("entity", ()), *definition.get("features", ())]
        made_of = resource.status.get("columns", {})
        columns = {*own, *(column for sources in made_of.values() for _, column, _ in sources)}
        dataset = ref(resource.spec.get("dataset") or name, "dataset").name
        found = self.guard.decision(dataset, sorted(columns), self.principal, purpose)
        if not found.allowed:
            raise Forbidden(found.reason)
        masks = {column: found.masks[column] for column in own if column in found.masks}
        for feature, sources in made_of.items():
            behind = [found.masks[c] for _, c, how in sources if how == "direct" and c in found.masks]
            if behind:
                masks.setdefault(feature, behind[0])
        return masks

    def view_page(
        self,
        offset: int,
        limit: int,
        wanted: Callable[[Resource], bool] | None = None,
        words: Sequence[str] = (),
    ) -> ViewPage:
        """Return some declared views; those of other pages are not kept, and without a condition not read.

        Args:
            wanted: only views of which it is true, as of their state, which is worked out of the status of each.
            words: what stands in the name or spec of every wanted view, so that the ledger passes over the others.
        """
        with self._reading() as world:
            told = world.resources.spec_values(VIEW, "owner", "tags")
            if wanted is None:
                views, total = world.resources.page(VIEW, offset, limit)
            else:
                views, total = [], 0
                for view in filter(wanted, world.resources.likely(VIEW, words)):
                    if offset <= total < offset + limit:
                        views.append(view)
                    total += 1
        owners = sorted({str(owner) for owner, _ in told if owner})
        return ViewPage(views, total, owners, sorted({tag for _, tags in told for tag in tags or ()}))

    # -- services, and the end of views

    def feature_service(
        self, name: str, views: Sequence[FeatureView], *, owner: str | None = None, description: str = ""
    ) -> FeatureService:
        """Declare which views a model uses, each pinned to what it is now; views that are new are declared too.

        Raises:
            InvalidInput: no view, or one twice; a view is retired.
        """
        from flyball.features.services import FeatureService

        self._may("apply")
        service = FeatureService(name, tuple(views), owner, description)
        for view in views:
            self._warn_of(view.name)
            self.view_spec(view)
            self.declare_view(view)
        self.declare(SERVICE, name, **service.spec())
        return service

    def feature_users(self, name: str) -> list[FeatureUse]:
        """Return the deployments and services that use a view, and the models behind them."""
        found = []
        direct = self.referrers(Ref(VIEW, name))
        for user in direct:
            if user.kind == SERVICE:
                found.append(FeatureUse(user))
                found += [
                    FeatureUse(d, user, self._model_of(d)) for d in self.referrers(user) if d.kind == "deployment"
                ]
            elif user.kind != VIEW:
                found.append(FeatureUse(user, None, self._model_of(user)))
        return found

    def deprecate_view(self, name: str, reason: str, successor: str | None = None) -> Resource:
        """Say that a view will go: whoever uses it in a new training set is warned.

        Raises:
            NotFound: no such view, or no such successor.
        """
        return self._set_status(name, "deprecated", reason, successor)

    def retire_view(self, name: str, reason: str, successor: str | None = None, *, force: bool = False) -> Resource:
        """Take a view out of use: it is not kept up to date any more, and refused in new training sets.

        Args:
            force: although deployments still look it up; they go on finding its last values.

        Raises:
            NotFound: no such view, or no such successor.
            Conflict: deployments use it.
        """
        users = sorted({str(use.user) for use in self.feature_users(name) if use.user.kind == "deployment"})
        if users and not force:
            raise Conflict(
                f"feature-view/{name} is looked up by {listed(users)}; deprecate it first, and retire it when nothing "
                "uses it, or force it"
            )
        return self._set_status(name, "retired", reason, successor)

    def _declared(self, name: str) -> dict[str, Any] | None:
        with self._reading() as world:
            resource = world.resources.find(VIEW, name)
        return None if resource is None else dict(resource.spec)

    def _has_dataset(self, name: str) -> bool:
        with self._reading() as world:
            return world.resources.find("dataset", name) is not None

    def _warn_of(self, name: str) -> None:
        from flyball.features.kinds import FeatureView as Declared
        from flyball.features.services import check_usable

        declared = self._declared(name)
        warning = None if declared is None else check_usable(name, Declared.model_validate(declared))
        if warning is not None:
            warn(warning, stacklevel=4)

    def _model_of(self, deployment: Ref) -> Ref | None:
        if deployment.kind != "deployment":
            return None
        return ref(str(self.resource(deployment).spec["model"]), "model").resource

    def _set_status(self, name: str, status: str, reason: str, successor: str | None) -> Resource:
        self._may("apply")
        spec = dict(self.resource(Ref(VIEW, name)).spec)
        if not reason.strip():
            raise InvalidInput(f"say why feature-view/{name} is {status}: a sentence for those who use it")
        instead = None if successor is None else self.resource(Ref(VIEW, ref(successor, VIEW).name)).name
        spec |= {"status": status, "retired": {"reason": reason, "successor": instead}}
        return self.declare(VIEW, name, **spec)


def _is_defined_in(view: FeatureView | OnRequest, module: ModuleType) -> bool:
    return getattr(view.function, "__module__", None) == module.__name__
