"""Labels: what people say of items, when they said it, and what holds when they differ.

    arrivals     a batch as it came → rows that may be kept, every mistake in it named by its row
    resolving    the labels of an item by several labellers → the label that holds, or none and why
    knowing      labels as they were known at a time: by item, or at each row's own time
    agreeing     how far the labellers agree
    sets         all of it over the ledger and a table store: the kind Labels

A label set is a versioned table, a version of kind `labels`: rows are only ever added, with when they were said and
when they were known. A label said later by the same labeller replaces the earlier one from when it is known; a label
that is null withdraws it.
"""
