"""Privacy: what policies decide is done to the rows that are read, and a person's data is erased wherever it is.

    guard          facts of a dataset → decision → masked rows
    inheritance    what a column has from those that it was made of
    reports        reports of contracts without values of hidden columns
    subjects       who is erased: a value in columns, and when something stored is that value
    derived        where SQL gave the subject another name, and what was made of its rows
    documents      JSON without a subject
    erasure        the order of the work, its journal, its certificate; the places are beside it:
    traffic        the prediction log, labels and all other logs
    stored         results of steps, files of runs, examples of models, metadata
    raw            files without structure, and the databases' own left-over bytes
    suppression    erased subjects that must not come back when a source is published again
    retention      rows older than they may be

It stands beside `delivery` because it reaches the stores of all rooms below.
"""
