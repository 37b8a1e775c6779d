"""How good a model is: metrics with intervals, on slices, against another model, against the gates it must pass."""
