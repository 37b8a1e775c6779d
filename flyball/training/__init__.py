"""From rows to a registered version: train, judge, bundle, publish."""
