"""Data products: data that a team answers for, from the proposal to the last reader gone.

    lifecycle    which stage may follow which
    dependents   who would notice if a product went away
    levels       service levels, measured from what the ledger and the versions know
    managing     all of it over a ledger: the kind DataProduct

What a product is stands in its spec, which people apply. Its stage stands in its status, so that applying a file can
neither skip a step nor forget to tell those who depend on it.
"""
