"""Serving: the data plane, which answers without ledger and control plane, and the controller that feeds it.

Loaded by the data plane:

    snapshot    the document that says what is served      questions   rows in, who answers which, answers out
    lineup      the models in memory                       engine      check, route, look up, log
    router      which variant answers a key                service     the same on an event loop, and hot swaps
    batcher     requests joined into calls of a model      connection  one HTTP client · server  all of them
    status      what the data plane tells

Loaded by the control plane: `kinds` (Deployment), `deployments` (its controller), `evidence` (what the log says of a
rollout).
"""
