"""Features: defined once, the same in training and in serving.

    views         a function of a data set, declared as a feature view: entity, event time, time to live
    definitions   the digest of a function and of what it calls, by which a view's versions are told apart
    windows       aggregates over sliding windows, as rows that a view emits
    joins         for each row, the newest values that were known at its time
    requests      functions of the request alone
    training_set  rows with all their features, as known at each row's time
    lookup        the same values inside a request; the light description of a view that travels to the data plane
    pushes        new values, visible to look-ups at once
    materialise   a view's newest values written from its data set

The rule that joins and look-ups share: of the events of an entity that had happened and had arrived, the newest; of
those that tie, the latest to arrive; nothing when it is older than the time to live.
"""
