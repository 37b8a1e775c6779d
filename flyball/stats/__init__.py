"""Pure mathematics: profiles, drift, calibration, intervals, metrics. No input or output."""
