"""The data plane: what is served, who answers, in which batch; it lives without ledger and control plane.

snapshot   the document that says what is served        lineup    the models in memory
router     which variant answers a key                  batcher   requests joined into calls of a model
engine     a prediction from rows to logged answer      server    HTTP/1.1 on an event loop
status     what it tells the control plane, and counters
"""
