"""`flyball demo`: the whole loop on real flights, or on a table of one's own, as a user of the platform would run it.

    main       the order of the stages
    job        what a demo is about: rows to learn from, a stream to replay, sizes
    flights    the job on flights      table      the job on a user's own table
    faults     a feed that changes in a way that its contract cannot see
    project    the files of a user's project: features and how the model is fitted
    planes     the child process `flyball up`, bounded and always ended
    client     a small HTTP client      replay     the stream, in time order, over HTTP to the data plane
    watcher    what the platform does by itself meanwhile, told as it happens
    report     figures, summary, lineage

Nothing is staged: the demo declares, trains, registers and asks; what follows, the platform does by itself.
"""
