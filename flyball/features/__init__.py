"""Features: defined once, the same in training and in serving.

    views         a function of a data set, declared as a feature view: entity, event time, time to live
    definitions   the digest of a function and of what it calls, by which a view's versions are told apart
    windows       aggregates over sliding windows, as rows that a view emits
    joins         for each row, the newest values that were known at its time
    requests      functions of the request alone
    offline       a view's rows, computed once, stored in sorted runs (`runs`), added to (`writing`, `additions`)
    stored_joins  the joins for stored views of any size (`sweep`)
    storing       stored views as versions, with their lineage; refreshed, pushed to, served
    training_set  rows with all their features, as known at each row's time
    specs         the light description of a view, which travels with models and to the data plane
    lookup        the same values inside a request
    functions     request-time functions kept in the home and loaded where they are served
    served        what a deployment or the feature server answers: views looked up, then functions run
    freshness     ages and misses of what was looked up, counted while serving
    encoding      frames as online rows
    pushes        new values, visible to look-ups at once, logged and later added to the stored rows (`folding`)
    materialise   a view's newest values written for look-ups, in slices (`encoding`)
    agreement     whether online and offline values agree
    services      which views a model uses, pinned to what they were

The rule that joins and look-ups share: of the events of an entity that had happened and had arrived, the newest; of
those that tie, the latest to arrive; nothing when it is older than the time to live.
"""
