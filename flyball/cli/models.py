"""Models on the command line: sign and verify, scan, list what is in them, move them, define an image, serve one.

Where a version is named without a number, `late`, its newest is meant.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flyball.cli.app import Home, Json, WrongUse, app, opened
from flyball.cli.show import emit, heading, note, say, state, table, working
from flyball.errors import Conflict

model = typer.Typer(
    help="Models: sign, verify, scan, bill of materials, export, import, image, serve.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(model, name="model")

Version = Annotated[str, typer.Argument(metavar="VERSION", help="As late@3; late: its newest.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")]


@model.command()
def sign(
    version: Version,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="PEM", help="A private key; default: the home's own, made if needed."),
    ] = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="By Sigstore, as whom a token names; needs it reached.")
    ] = False,
    token: Annotated[
        Path | None,
        typer.Option("--token", metavar="FILE", help="With --keyless: an identity token; default: ambient."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Sign a version by OpenSSF model signing. Every file is verified first."""
    if keyless and key is not None:
        raise WrongUse("say --key or --keyless, not both")
    if token is not None and not keyless:
        raise WrongUse("--token goes with --keyless")
    text = token.read_text(encoding="utf-8").strip() if token is not None else None
    with opened(home) as platform, working(f"signing {version}"):
        signed = platform.sign(version, key, keyless=keyless, token=text)
    if json:
        emit({"version": version, "key": signed.key, "name": signed.name, "trusted": signed.is_trusted})
    else:
        say(f"signed {version} with {_key_name(signed.key, signed.name)}")


@model.command()
def verify(
    version: Version,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="PEM", help="A public key; default: any that the home trusts.")
    ] = None,
    identity: Annotated[str, typer.Option("--identity", help="Of a keyless signature: whose it must be.")] = "",
    issuer: Annotated[str, typer.Option("--issuer", help="With --identity: who vouches for it, an address.")] = "",
    home: Home = None,
    json: Json = False,
) -> None:
    """Prove that a version is what was signed, and by whom. Exit code 1 when it is not."""
    if bool(identity) != bool(issuer) or (identity and key is not None):
        raise WrongUse("--identity and --issuer go together, and without --key")
    with opened(home) as platform, working(f"verifying {version}"):
        signed = platform.verify_model(version, key, identity, issuer)
    if json:
        emit({"version": version, "key": signed.key, "name": signed.name, "verified": True})
    else:
        say(f"{version} is what {_key_name(signed.key, signed.name)} signed")


@model.command("key")
def show_key(
    trust: Annotated[
        Path | None, typer.Option("--trust", metavar="PEM", help="Trust this public key from now on.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="With --trust: what to call it; default: as the file.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the home's public key there, to give away."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """List the keys that this home trusts; trust another; write its own public key."""
    if output is not None and output.exists():
        raise Conflict(f"{output} is there already; remove it or name another file")
    with opened(home) as platform:
        if trust is not None:
            added = platform.trust_key(trust, name)
            note(f"trusts {_key_name(added.id, added.name)}")
        if output is not None:
            output.write_bytes(platform.signing_key().pem)
            note(f"wrote {output}")
        known = sorted(platform.trust.keys().values(), key=lambda one: one.name)
    if json:
        emit({"items": [{"name": one.name, "key": one.id} for one in known], "next": None})
    else:
        table(("name", "key"), [(one.name, one.id) for one in known], "no key is trusted yet")


@model.command()
def scan(version: Version, home: Home = None, json: Json = False) -> None:
    """Look through a version's files for what would run code when loaded. Exit code 1 when something is unsafe."""
    with opened(home) as platform, working(f"scanning {version}"):
        findings = platform.scan_model(version)
    if json:
        emit({"items": [asdict(one) for one in findings], "next": None})
    else:
        rows = [(state("refused" if f.is_unsafe else "noted"), f.path, f.what, f.why) for f in findings]
        table(("", "file", "what", "why"), rows, "nothing in it runs code when it is loaded")
    if any(one.is_unsafe for one in findings):
        raise typer.Exit(1)


@model.command("export")
def export_model(
    version: Version,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PATH", help="FILE.zip, or a folder.")],
    form: Annotated[
        str, typer.Option("--as", metavar="FORM", help="bundle, or mlmodel: a folder that MLflow's clients load.")
    ] = "bundle",
    home: Home = None,
) -> None:
    """Write a version with its signature as a zip archive, or as a folder that `model_signing` verifies."""
    if output.suffix == ".zip" and output.exists():
        raise Conflict(f"{output} is there already; remove it or name another file")
    with opened(home) as platform, working(f"exporting {version}"):
        made = platform.export_model(version, output, form)
    note(f"wrote {output}: {made.ref.short}, {made.digest[:12]}")


@model.command("import")
def import_model(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An archive or folder that was exported.")],
    name: Annotated[str, typer.Option("--name", help="Of the declared model whose next version it becomes.")],
    accept_code: Annotated[
        bool, typer.Option("--accept-code", help="Take Python source although no trusted key signed it.")
    ] = False,
    text: Annotated[str, typer.Option("--note", help="A sentence that stays with the version.")] = "",
    home: Home = None,
    json: Json = False,
) -> None:
    """Publish an exported bundle as a model's next version; its digest and its signature stay."""
    with opened(home) as platform, working(f"importing {path}"):
        made = platform.import_model(path, name, accept_code=accept_code, note=text)
    if json:
        emit({"version": str(made.ref), "digest": made.digest})
    else:
        say(f"{made.ref.short} is {made.digest[:12]}")


@model.command()
def bill(version: Version, output: Output = None, home: Home = None) -> None:
    """Print the bill of materials: CycloneDX 1.6 as JSON, with the model card and every locked package."""
    with opened(home) as platform, working(f"listing what {version} is made of"):
        document = platform.bill_of(version)
    if output is None:
        say(document.decode().rstrip())
    else:
        output.write_bytes(document)
        note(f"wrote {output}")


@model.command()
def vulnerabilities(
    version: Version,
    database: Annotated[
        Path | None, typer.Option("--database", metavar="PATH", help="A copy of the OSV database: folder, zip or JSON.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Look a version's locked packages up in an OSV database on this disk. Exit code 1 when one is vulnerable."""
    if database is None:
        raise WrongUse(
            "name a copy of the OSV database with --database; nothing is fetched, so bring one: the folder, zip or "
            "JSON file that OSV publishes of the ecosystem PyPI"
        )
    with opened(home) as platform, working(f"looking up the packages of {version}"):
        report = platform.vulnerabilities(version, database)
    if json:
        emit(asdict(report))
    else:
        rows = [(f"{v.package} {v.version}", v.id, v.severity, ", ".join(v.fixed), v.summary) for v in report.found]
        table(("package", "id", "severity", "fixed in", "what"), rows, "no package is known to be vulnerable")
        aged = f", newest entry {report.newest}" if report.newest else ""
        note(f"{report.packages} packages against {report.entries:,} entries{aged}")
        if report.unreadable:
            note(f"{report.unreadable} files of the database could not be read")
    if report.found:
        raise typer.Exit(1)


@model.command()
def contents(version: Version, home: Home = None, json: Json = False) -> None:
    """List a version's files by part: model, environment, code, configuration, data, tests, documents."""
    from flyball.models.bundle import read_manifest

    with opened(home) as platform:
        made = platform.version(version if "/" in version else f"model/{version}")
        bundle = read_manifest(platform.blobs, made.digest)
    files = bundle.manifest["files"]
    if json:
        emit({"version": str(made.ref), "digest": made.digest, "parts": bundle.contents(), "files": files})
        return
    for part, paths in bundle.contents().items():
        heading(part)
        table(("file", "bytes", "sha-256"), [(p, f"{files[p]['size']:,}", files[p]["digest"][:12]) for p in paths])


@model.command()
def image(
    version: Version,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to build from.")],
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="IMAGE", help="Tag or digest; default: the Python it was saved under."),
    ] = None,
    wheels: Annotated[
        Path | None, typer.Option("--wheels", metavar="DIR", help="Wheels to bring along, for what no index has.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write the definition of a container image that serves a version: Containerfile, bundle, requirements."""
    with opened(home) as platform, working(f"writing an image of {version}"):
        files = platform.image_of(version, output, base, wheels)
    if json:
        emit({"items": files, "next": None})
    else:
        tag = version.rpartition("/")[2].partition("@")[0]
        note(f"wrote {len(files)} files to {output}; build it with: podman build --tag {tag} {output}")


@model.command("serve")
def serve_bundle(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An archive or folder that was exported.")],
    version: Annotated[str, typer.Option("--as", metavar="VERSION", help="What it is, as late@3.")],
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 picks a free one.")] = 7071,
    home: Home = None,
) -> None:
    """Serve one exported bundle by the Open Inference Protocol, without a registry; the home keeps the log."""
    from flyball.serving.alone import prepare
    from flyball.settings import home_directory
    from flyball.wire.oip.process import main

    place = home_directory(home)
    prepare(place, path, version)
    raise typer.Exit(main(["--home", str(place), "--host", host, "--port", str(port)]))


def _key_name(key: str | None, name: str | None) -> str:
    if key is None:
        return name or "a keyless identity"
    return f"{name} ({key[:12]})" if name else f"key {key[:12]}, which this home does not trust"
