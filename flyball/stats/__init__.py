"""Pure mathematics: profiles, drift, calibration, metrics, intervals, comparisons. No input or output."""
