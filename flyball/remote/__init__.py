"""A home on another machine, spoken to over HTTP: what `import flyball as fb` uses when `FLYBALL_URL` is set.

connection      requests to a running `flyball up`: retries, limits, errors in our own words
sending         runs that are written into a folder here, and sent from there in the background
values          the ledger's values, made again from JSON
models          models that are bundled here, and bundles that are loaded here
home            `RemoteHome`: the acts of `platform.Platform` that can be done over HTTP
"""
