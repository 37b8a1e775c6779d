"""`flyball demo`: the whole loop on real flights, or on a table of one's own, as a user of the platform would run it.

    main       the options and the order of the stages         stages     each stage, done as a user would
    job        what a demo is about: rows to learn from, a stream to replay, sizes
    flights    the job on flights
    table      the job on a user's own table      columns     which of its columns can be inputs
    faults     a field that is wrong from some request on     mirror      which field of a user's table that is
    project    the files of a user's project: features, how the model is fitted      declared    its flyball.yaml
    planes     the child process `flyball up`, bounded and always ended
    client     a small HTTP client                replay      the stream, in time order, over HTTP to the data plane
    watcher    what the platform does by itself meanwhile, told as it happens, and waited for
    report     figures, summary, lineage          verdict     the object of `--json`, and what did not go as it should

Nothing is staged: the demo declares, trains, registers and asks; what follows, the platform does by itself.
"""
