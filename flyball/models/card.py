"""Model cards: what a version is, how good, on what, for what; generated around what people write, as Markdown.

A card has sections that people write (`models.kinds.CARD_TEXTS`, and any further ones of their own) and sections that
are made from lineage and evaluation whenever it is shown, so that the figures are never old. Written out it is
Markdown; with YAML before it, a model card as Hugging Face reads it (Mitchell et al. 2019; the metadata of
huggingface.co/docs/hub/model-cards, with `model-index` of the results). Pure: facts in, text out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.models.kinds import CARD_TEXTS

__all__ = ["GENERATED", "TITLES", "Card", "CardFacts", "CardText", "check_texts", "hugging_face", "markdown", "parse"]

TITLES: Mapping[str, str] = {
    "summary": "Summary",
    "intended_use": "Intended use",
    "out_of_scope": "Out of scope",
    "limits": "Limits",
    "ethics": "Ethical considerations",
    "licence": "Licence",
    "owner": "Owner",
    "contact": "Contact",
}
GENERATED = ("Version", "Training data", "Inputs and outputs", "Evaluation", "Slices", "Comparison", "Risk assessment")
UNWRITTEN = "*Nobody has written this yet.*"

_LONGEST = 50_000  # characters of a text
_MOST = 40  # sections of one's own
_PIPELINES = {
    "binary": "tabular-classification",
    "multiclass": "tabular-classification",
    "regression": "tabular-regression",
}
_LIBRARIES = {"sklearn": "sklearn", "xgboost": "xgboost", "lightgbm": "lightgbm", "torch": "pytorch", "onnx": "onnx"}
_METRICS = {"auc": "roc_auc", "log_loss": "log_loss", "brier": "brier_score", "rmse": "rmse", "mae": "mae", "r2": "r2"}
# Of the identifiers in huggingface.co/docs/hub/repositories-licenses those that people choose for models.
_LICENCES = frozenset(
    [
        "apache-2.0",
        "mit",
        "openrail",
        "bigscience-openrail-m",
        "creativeml-openrail-m",
        "afl-3.0",
        "artistic-2.0",
        "bsl-1.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "c-uda",
        "cc",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cdla-sharing-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "wtfpl",
        "ecl-2.0",
        "epl-1.0",
        "epl-2.0",
        "etalab-2.0",
        "eupl-1.1",
        "eupl-1.2",
        "agpl-3.0",
        "gfdl",
        "gpl",
        "gpl-2.0",
        "gpl-3.0",
        "lgpl",
        "lgpl-2.1",
        "lgpl-3.0",
        "isc",
        "lppl-1.3c",
        "ms-pl",
        "mpl-2.0",
        "odc-by",
        "odbl",
        "openrail++",
        "osl-3.0",
        "postgresql",
        "ofl-1.1",
        "ncsa",
        "unlicense",
        "zlib",
        "pddl",
        "unknown",
        "other",
    ]
)


@dataclass(frozen=True)
class CardText:
    """A section of people's own."""

    title: str
    text: str


@dataclass(frozen=True)
class CardFacts:
    """What a card is generated from; `metadata` is the version's, as `training.registering` kept it."""

    name: str  # as people read it
    number: int
    digest: str
    made_by: str
    made_at: str  # RFC 3339
    stage: str
    metadata: Mapping[str, Any]
    description: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)  # of the dataset: name, version, rows, description, owner
    packages: Mapping[str, str] = field(default_factory=dict)
    risk: Mapping[str, str] = field(default_factory=dict)  # answers


@dataclass(frozen=True)
class Card:
    """A card: what people wrote, and the facts around it. `revision` is the edit that is shown, 0 before the first."""

    facts: CardFacts
    texts: Mapping[str, str]
    sections: tuple[CardText, ...] = ()
    revision: int = 0

    @property
    def title(self) -> str:
        return f"{self.facts.name}@{self.facts.number}"


def check_texts(texts: Mapping[str, Any], sections: Sequence[CardText] = ()) -> None:
    """Raise InvalidInput when a card cannot hold these texts."""
    for name, text in texts.items():
        if name not in CARD_TEXTS:
            near = did_you_mean(name, CARD_TEXTS)
            raise InvalidInput(f'a card has no part "{name}"{near} (its parts: {listed(CARD_TEXTS)})')
        if not isinstance(text, str) or len(text) > _LONGEST:
            raise InvalidInput(f'"{name}" of a card must be a text of at most {_LONGEST:,} characters')
    if len(sections) > _MOST:
        raise InvalidInput(f"the card has {len(sections)} sections of its own; at most {_MOST} are kept")
    for section in sections:
        if not section.title.strip() or len(section.title) > 200 or len(section.text) > _LONGEST:
            raise InvalidInput(
                f"the section {section.title[:60]!r} needs a title of at most 200 characters and a text of at most "
                f"{_LONGEST:,}"
            )


def markdown(card: Card) -> str:
    """Return the card as Markdown; `parse` reads back from it what people wrote."""
    written = {name: card.texts.get(name, "").strip() for name in CARD_TEXTS}
    written["summary"] = written["summary"] or card.facts.description.strip()
    parts = [f"# {_plain(card.title)}"]
    first, last = ("summary", "intended_use", "out_of_scope", "limits", "ethics"), ("licence", "owner", "contact")
    parts += [_section(TITLES[name], written[name] or UNWRITTEN) for name in first]
    made = {"Version": _version, "Training data": _data, "Inputs and outputs": _fields, "Evaluation": _metrics}
    made |= {"Slices": _slices, "Comparison": _comparison, "Risk assessment": _risk}
    parts += [_section(title, text) for title in GENERATED if (text := made[title](card.facts))]
    parts += [_section(section.title, section.text.strip()) for section in card.sections]
    parts += [_section(TITLES[name], written[name] or UNWRITTEN) for name in last]
    return "\n\n".join(parts) + "\n"


def parse(text: str) -> tuple[dict[str, str], list[CardText]]:
    """Return what people wrote in a Markdown card: the known parts, and sections of their own.

    Sections are headed by `## `; those that are generated, a front matter and the title are passed over. A part that
    is missing or still says that nobody wrote it is the empty text, so an edited card says everything.
    """
    texts = dict.fromkeys(CARD_TEXTS, "")
    own: list[CardText] = []
    by_title = {title.lower(): name for name, title in TITLES.items()}
    generated = {title.lower() for title in GENERATED}
    for title, body in _sections(_without_front_matter(text)):
        name = by_title.get(title.lower())
        kept = "" if body == UNWRITTEN else body
        if name is not None:
            texts[name] = kept
        elif title.lower() not in generated:
            own.append(CardText(title, kept))
    return texts, own


def hugging_face(card: Card) -> str:
    """Return the card with the YAML before it that the Hugging Face hub reads."""
    metadata = yaml.safe_dump(_hub_metadata(card), sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{metadata}---\n\n{markdown(card)}"


def _hub_metadata(card: Card) -> dict[str, Any]:
    facts = card.facts
    evaluation: Mapping[str, Any] = facts.metadata.get("evaluation", {})
    task = _PIPELINES.get(str(facts.metadata.get("task")))
    found: dict[str, Any] = {**_licence(card.texts.get("licence", "")), "tags": ["flyball"]}
    library = _LIBRARIES.get(str(facts.metadata.get("flavor", "")))
    if library is not None:
        found["library_name"] = library
    if task is not None:
        found["pipeline_tag"] = task
        found["tags"].append(task)
    data = facts.data.get("name")
    if data:
        found["datasets"] = [data]
    metrics = evaluation.get("metrics", {})
    if metrics:
        found["metrics"] = [_METRICS.get(name, name) for name in metrics]
    if metrics and task is not None:
        dataset = {"name": f"{data or 'unseen rows'} (held out)", "type": data or "tabular", "split": "test"}
        if facts.data.get("version"):
            dataset["revision"] = str(facts.data["version"])
        result = {
            "task": {"type": task, "name": task.replace("-", " ").capitalize()},
            "dataset": dataset,
            "metrics": [_hub_metric(name, value) for name, value in metrics.items()],
        }
        found["model-index"] = [{"name": facts.name, "results": [result]}]
    return found


def _hub_metric(name: str, found: Mapping[str, float]) -> dict[str, Any]:
    told = f"{name} (95 % interval {found['low']:.4f} to {found['high']:.4f})"
    return {"type": _METRICS.get(name, name), "value": float(found["value"]), "name": told}


def _licence(text: str) -> dict[str, str]:
    first = text.strip().splitlines()[0].strip() if text.strip() else ""
    slug = re.sub(r"[^a-z0-9.+]+", "-", first.lower().replace("licence", "").replace("license", "")).strip("-.")
    if slug in _LICENCES:
        return {"license": slug}
    return {"license": "other", "license_name": slug[:96]} if slug else {"license": "unknown"}


# -- what is generated


def _version(facts: CardFacts) -> str:
    metadata = facts.metadata
    rows = [
        ("Version", f"{facts.name}@{facts.number}"),
        ("Stage", facts.stage),
        ("Task", metadata.get("task")),
        ("Flavour", metadata.get("flavor")),
        ("Made by", facts.made_by),
        ("Made at", facts.made_at),
        ("SHA-256", facts.digest),
        ("Size", f"{metadata['size_bytes']:,} bytes" if metadata.get("size_bytes") else None),
        ("Environment", ", ".join(f"{name} {number}" for name, number in facts.packages.items()) or None),
        ("Note", metadata.get("note")),
    ]
    return _list(rows)


def _data(facts: CardFacts) -> str:
    data = facts.data
    rows = [
        ("Dataset", f"{data['name']}@{data['version']}" if data.get("version") else data.get("name")),
        ("Rows", f"{data['rows']:,}" if data.get("rows") else None),
        ("What it is", data.get("description")),
        ("Owner", data.get("owner")),
        ("Licence", data.get("licence")),
        ("Note", data.get("note")),
    ]
    return _list(rows) if data else ""


def _fields(facts: CardFacts) -> str:
    signature: Mapping[str, Any] = facts.metadata.get("signature", {})
    fields = [("in", field) for field in signature.get("inputs", [])]
    fields += [("out", field) for field in signature.get("outputs", [])]
    rows = [
        (way, f["name"], f["dtype"], "may be missing" if way == "in" and f.get("nullable") else "") for way, f in fields
    ]
    return _table(("", "name", "type", ""), rows)


def _metrics(facts: CardFacts) -> str:
    evaluation: Mapping[str, Any] = facts.metadata.get("evaluation", {})
    rows = [
        (f"**{name}**" if name == evaluation.get("metric") else name, _figure(found["value"]), _span(found))
        for name, found in evaluation.get("metrics", {}).items()
    ]
    if not rows:
        return "It was registered without an evaluation."
    return f"On {evaluation.get('rows', 0):,} unseen rows.\n\n" + _table(("metric", "value", "95 % interval"), rows)


def _slices(facts: CardFacts) -> str:
    evaluation: Mapping[str, Any] = facts.metadata.get("evaluation", {})
    rows = [
        (f"{part['column']} = {part['value']}", f"{part['rows']:,}", _figure(part["interval"]["value"]),
         _span(part["interval"]))
        for part in evaluation.get("worst_slices", [])
    ]  # fmt: skip
    return _table(("slice", "rows", str(evaluation.get("metric")), "95 % interval"), rows)


def _comparison(facts: CardFacts) -> str:
    compared: Mapping[str, Any] = facts.metadata.get("comparison") or {}
    rows = [
        (name, found.get("verdict", ""), found.get("reason", "") or _difference(found))
        for name, found in compared.get("metrics", {}).items()
    ]
    against = f"With {_plain(compared.get('champion', 'the champion'))} on the same rows.\n\n"
    return against + _table(("metric", "verdict", ""), rows) if rows else ""


def _risk(facts: CardFacts) -> str:
    return _list([(name.replace("_", " "), answer) for name, answer in facts.risk.items()])


def _difference(found: Mapping[str, Any]) -> str:
    both = found.get("challenger"), found.get("champion")
    return f"{_figure(both[0]['value'])} against {_figure(both[1]['value'])}" if both[0] and both[1] else ""


def _figure(value: float) -> str:
    return f"{value:.4g}"


def _span(found: Mapping[str, float]) -> str:
    return f"[{found['low']:.4g}, {found['high']:.4g}]"


# -- Markdown


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _list(rows: Sequence[tuple[str, Any]]) -> str:
    return "\n".join(f"- {_plain(label)}: {_plain(value)}" for label, value in rows if value not in (None, ""))


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return ""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(value: Any) -> str:
    """Return a value that somebody else chose as text that is no markup and stays on its line and in its cell."""
    text = " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;").replace("`", "'")


def _without_front_matter(text: str) -> str:
    lines = text.replace("\r\n", "\n").removeprefix("\ufeff").split("\n")
    if lines[0].strip() != "---":
        return "\n".join(lines)
    end = next((place for place, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        raise InvalidInput("the card begins with --- but its YAML never ends; close it by a line of ---")
    return "\n".join(lines[end + 1 :])


def _sections(text: str) -> list[tuple[str, str]]:
    """Return the sections headed by `## `, with their text; a heading inside a fence of code is none."""
    found: list[tuple[str, list[str]]] = []
    fence = ""
    for line in text.split("\n"):
        opened = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if opened and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else opened[1]
        if not fence and line.startswith("## "):
            found.append((line[3:].strip(), []))
        elif found:
            found[-1][1].append(line)
    return [(title, "\n".join(lines).strip()) for title, lines in found]
