"""Language models: traces of what they did, what was said of them, and what they are evaluated on.

`spans` is the form of one span; `conventions`, `usage` and `previews` say what spans tell of a whole trace, `arriving`
joins it with what is known. `searching`, `measuring` and `correlation` answer questions about many; `evaluation` keeps
records of data sets. Bytes are decoded by `wire`, rows kept by the ledger.
"""
