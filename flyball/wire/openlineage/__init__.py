"""OpenLineage: the ledger's runs and versions as events for other tools, and their events into the ledger's graph.

    facets      the facets that are written, each with the schema that it follows
    telling     journal events → OpenLineage events; pure translation
    sending     to a file or over HTTP, from where it stopped, in the background
    receiving   what others emit → runs, versions and edges

Source: https://openlineage.io/spec/2-0-2/OpenLineage.json and the facets beside it.
"""
