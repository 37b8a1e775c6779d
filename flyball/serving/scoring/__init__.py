"""Predictions beyond one request: whole tables, inside SQL, and from stream to stream.

    scorer     rows in frames, answered as the data plane answers them        columns   frames as a model's inputs
    tables     a table in parts that survive a crash                          queries   `predict` and `anomaly` in SQL
    streaming  consume, score, produce, at least once                         strangeness  how unlike the model's
    topics     messages, where they come from and go to; the embedded topic   kafka     the same over Kafka

`platform.scoring` calls it; the data plane does not load it.
"""
