"""The catalogue: search over everything; data products; labels of people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Home, Json, Limit, WrongUse, app, opened
from flyball.cli.show import ago, emit, heading, note, say, state, table, working
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    from rich.text import Text

    from flyball.ledger.search import Hit

__all__ = ["labels", "product", "search"]

product = typer.Typer(
    help="Data products: list, show, import, export, advance, deprecate.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(product, name="product")
labels = typer.Typer(
    help="Labels by people: import, resolve, agreement, show.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(labels, name="labels")

Name = Annotated[str, typer.Argument(help="Its name: flights, or data-product/flights.")]
LabelSet = Annotated[str, typer.Argument(help="A declared label set: late, or labels/late.")]
At = Annotated[str | None, typer.Option("--at", metavar="TIME", help="As it was known then: 2026-01-31T00:00:00Z.")]

_SHOWN_ROWS = 20


@app.command()
def search(
    words: Annotated[
        list[str] | None, typer.Argument(help='Words, "a phrase", pre*, -not, kind:, tag:, owner:…')
    ] = None,
    home: Home = None,
    json: Json = False,
    limit: Limit = 20,
    after: Annotated[str | None, typer.Option("--after", metavar="NEXT", help="Go on behind the page before.")] = None,
) -> None:
    """Find resources, versions and runs by name, description, column, tag, owner or domain."""
    query = " ".join(_quoted(word) for word in words or [])
    with opened(home) as platform:
        found = platform.search(query, limit, after)
    if json:
        emit(found.to_dict())
        return
    for sentence in found.notes:
        note(sentence)
    rows = [[hit.kind, _name_cell(hit), hit.owner, ago(hit.at), _marked(hit.snippet, hit.marks)] for hit in found.hits]
    table(["kind", "name", "owner", "changed", "found"], rows, "nothing was found")
    if found.next is not None:
        note(f"there is more: --after {found.next}")


@product.command("list")
def list_products(home: Home = None, json: Json = False) -> None:
    """List the data products, with what of their service levels is broken."""
    with opened(home) as platform:
        room = platform.products
        known = platform.resources("data-product")
        found = [{**room.to_dict(p.name), "name": p.name} for p in known]
    if json:
        emit({"items": found, "next": None})
        return
    rows = [
        [p["name"], state(p["stage"]), p["domain"], p["owner"], _count(p["dependents"]), _kept(p["levels"])]
        for p in found
    ]
    columns = ["name", "stage", "domain", "owner", "needed by", "service levels"]
    table(columns, rows, "there is no data product yet; flyball product import reads one")


@product.command("show")
def show_product(name: Name, home: Home = None, json: Json = False) -> None:
    """Show a product: its ports, its service levels as they stand, who depends on it."""
    with opened(home) as platform:
        found = platform.products.to_dict(_of(name, "data-product"))
    if json:
        emit(found)
        return
    why = f": {found['reason']}" if found["reason"] else ""
    say(f"{found['ref']} is {found['stage']}{why}")
    for what in ("description", "purpose", "owner", "domain", "replaced_by", "retires_on"):
        if found[what]:
            say(f"  {what.replace('_', ' ')}: {found[what]}")
    ports = [
        [way, p["name"], p["version"], p["dataset"], p["contract"]] for way in ("inputs", "outputs") for p in found[way]
    ]
    heading("ports")
    table(["way", "port", "version", "dataset", "contract"], ports, "it has no ports")
    heading("service levels")
    levels = [[v["measure"], v["port"], v["target"], _value(v), v["state"], v["why"]] for v in found["levels"]]
    table(["measure", "port", "target", "value", "state", "why"], levels, "it promises nothing")
    heading("needed by")
    needing = [[d["ref"], "yes" if d["is_live"] else "was", d["how"], d["owner"]] for d in found["dependents"]]
    table(["what", "still", "how", "owner"], needing, "nobody depends on it")


@product.command("import")
def import_product(
    file: Annotated[Path, typer.Argument(help="A document of the Open Data Product Standard.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call it here; default: made of its name.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Read a data product from an ODPS document, and put it in the stage that the document says."""
    from flyball.wire.odps import read_product

    with opened(home) as platform:
        found = read_product(file, name)
        platform.declare("DataProduct", found.name, **found.spec)
        room = platform.products
        if "stage" not in platform.resource(f"data-product/{found.name}").status:
            room.begin(found.name, found.stage, actor=platform.actor)
        else:
            platform.advance_product(found.name, found.stage, reason=f"imported from {file.name}")
        if json:
            emit(room.to_dict(found.name))
        else:
            say(f"data-product/{found.name} is {found.stage}")


@product.command("export")
def export_product(
    name: Name,
    to: Annotated[Path | None, typer.Option("--to", help="A file; default: printed.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write a product as a document of the Open Data Product Standard."""
    from flyball.cli.show import yaml_text
    from flyball.wire.odps import write_product

    with opened(home) as platform:
        word = _of(name, "data-product")
        document = write_product(word, platform.resource(f"data-product/{word}").spec, platform.products.stage(word))
    if to is not None:
        to.write_text(yaml_text(document) + "\n", encoding="utf-8")
        note(f"wrote {to}")
    elif json:
        emit(document)
    else:
        say(yaml_text(document))


@product.command("advance")
def advance_product(
    name: Name,
    stage: Annotated[str, typer.Argument(help="proposed, incubating, active, deprecated or retired.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it stays in the journal.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Retire it although somebody needs it.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Move a product to its next stage."""
    _advance(name, stage, home, json, reason=reason, force=force)


@product.command("deprecate")
def deprecate_product(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who depend on it.")],
    use: Annotated[str | None, typer.Option("--use", metavar="REF", help="What to use instead.")] = None,
    retires_on: Annotated[str | None, typer.Option("--retires-on", metavar="DAY", help="When it will be gone.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Say that a product will be gone, and tell everybody who depends on it."""
    _advance(name, "deprecated", home, json, reason=reason, replaced_by=use, retires_on=retires_on)


@labels.command("import")
def import_labels(
    name: LabelSet,
    source: Annotated[
        str, typer.Argument(help="A file with the key's columns, label, labeller, labelled_at, known_at.")
    ],
    labeller: Annotated[str | None, typer.Option("--labeller", help="Who made them all, if no column says so.")] = None,
    label: Annotated[str, typer.Option("--label", help="The column of the label.")] = "label",
    home: Home = None,
    json: Json = False,
) -> None:
    """Add labels; the same again add nothing, and a wrong row is named and keeps all of them out."""
    from flyball.data.labels.arrivals import Names

    with opened(home) as platform, working(f"reading labels from {source}"):
        word = _of(name, "labels")
        found = platform.add_labels(word, source, labeller=labeller, names=Names(label=label))
    if json:
        emit(found.to_dict())
        return
    dropped = f", {found.dropped:,} dropped" if found.dropped else ""
    say(f"{found.version.ref}: {found.added:,} labels added, {found.repeated:,} were there{dropped}")


@labels.command("show")
def show_labels(
    name: LabelSet, at: At = None, limit: Limit = _SHOWN_ROWS, home: Home = None, json: Json = False
) -> None:
    """Show what holds for the labelled items, now or as it was known at a time."""
    with opened(home) as platform:
        found = platform.label_table(_of(name, "labels"), _instant(at))
    counts = {word: found.filter(found["state"] == word).height for word in ("resolved", "unresolved", "waiting")}
    if json:
        emit({"counts": counts, "items": found.head(limit).to_dicts(), "next": None})
        return
    say(", ".join(f"{count:,} {word}" for word, count in counts.items()))
    table(found.columns, found.head(limit).iter_rows(), "nothing is labelled yet")


@labels.command("resolve")
def resolve_labels(name: LabelSet, limit: Limit = _SHOWN_ROWS, home: Home = None, json: Json = False) -> None:
    """List the items that need somebody: disputed, short of labellers, or without a label."""
    with opened(home) as platform:
        found = platform.open_labels(_of(name, "labels"), limit)
    if json:
        emit({"items": found.to_dicts(), "next": None})
        return
    table(found.columns, found.iter_rows(), "every item has its label")


@labels.command("agreement")
def show_agreement(name: LabelSet, at: At = None, home: Home = None, json: Json = False) -> None:
    """Show how far the labellers agree: of each pair Cohen's kappa, of all Fleiss' kappa and Krippendorff's alpha."""
    with opened(home) as platform:
        found = platform.label_sets.agreement(_of(name, "labels"), _instant(at))
    if json:
        emit(found.to_dict())
        return
    say(f"{found.items:,} items, {found.items_compared:,} by two labellers or more")
    for title, interval in (("Krippendorff's alpha", found.alpha), ("Fleiss' kappa", found.fleiss)):
        if interval is not None:
            say(f"{title}: {interval}")
    table(["labeller", "items", "weight"], [[p.name, p.items, f"{p.weight:.2f}"] for p in found.labellers])
    pairs = [[p.first, p.second, p.items, p.kappa] for p in found.pairs]
    table(["one", "other", "items", "kappa"], pairs, "no two labellers have labelled the same items")


def _advance(name: str, stage: str, home: Path | None, json: bool, **options: Any) -> None:
    with opened(home) as platform:
        moved = platform.advance_product(_of(name, "data-product"), stage, **options)
    if json:
        emit(moved.to_dict())
        return
    say(f"{moved.product} is {moved.stage}")
    for dependent in moved.told:
        say(f"  told: {dependent.ref} ({dependent.how})")


def _of(text: str, kind: str) -> str:
    from flyball.ledger.refs import ref

    try:
        return ref(text, kind).name
    except InvalidInput as error:
        raise WrongUse(str(error)) from None


def _instant(text: str | None) -> Any:
    from flyball.clock import parse_instant

    try:
        return parse_instant(text) if text is not None else None
    except InvalidInput as error:
        raise WrongUse(f"--at: {error}") from None


def _quoted(word: str) -> str:
    """Return an argument as the query language has it: one that the shell kept together is a phrase."""
    key, colon, value = word.partition(":")
    if " " not in word or '"' in word:
        return word
    return f'{key}:"{value}"' if colon and key.isalpha() and " " not in key else f'"{word}"'


def _name_cell(hit: Hit) -> Any:
    name = hit.ref.name[:8] + " " + hit.name if hit.form == "run" else hit.name
    shift = len(name) - len(hit.name)
    return _marked(name, tuple((start + shift, end + shift) for start, end in hit.name_marks))


def _marked(text: str, marks: tuple[tuple[int, int], ...]) -> Text:
    """Return text with what matched in bold; control codes are shown as what they are not."""
    from rich.text import Text

    shown = Text("".join(c if c.isprintable() else " " for c in text))
    for start, end in marks:
        shown.stylize("bold", start, end)
    return shown


def _count(dependents: list[dict[str, Any]]) -> int:
    return sum(d["is_live"] for d in dependents)


def _kept(levels: list[dict[str, Any]]) -> str:
    found = {word: sum(v["state"] == word for v in levels) for word in ("broken", "kept", "not measured")}
    return ", ".join(f"{count} {word}" for word, count in found.items() if count)


def _value(level: dict[str, Any]) -> str | None:
    from flyball.web.formats import duration_text

    value = level["value"]
    if value is None:
        return None
    if level["unit"] == "s":
        return duration_text(value)
    return f"{value:.2%}" if level["unit"] == "share" else f"{value:,.0f}"
