"""Data: where it comes from, what it must be and looks like, who uses it, what becomes of it when it is wrong.

    intake         what a user hands over: frames, paths, files, SQL over other datasets
    sources/       where a dataset's own rows are read from; what is new since the last time
    datasets       publish a batch as a version, put it behind others, or keep it aside
    publishing     how rows come behind the newest version however many publish at once
    upserts diffs  rows by key; what changed between two versions
    agreements     which contract holds, and whether it may change (evolution)
    contracts      an ODCS document → the rules that it makes, every mistake in it refused
    checks/        a file a check: what one rule means, as Polars expressions
    checking       a table and a contract → a report by rule; or the table split into good and bad rows
    inference      a table → a contract that proposes itself
    quarantine     what broke its contract: inspected, fixed, released, dropped
    profiles       what a version looks like, from sketches that add up; drift between two
    files media    images, texts and sound beside a table of what they are
    columns        which columns came from which
    masking        the same rows with values hidden
    labels/        labels by people, as they were known at a time
    products/      data that a team answers for: stages, service levels, dependents
    usage          who read what

A contract is read once and checked often; it is data, and so are its rules and the report.
"""
