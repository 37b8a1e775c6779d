"""Ready-made work that a project can use as it is: pipelines built from the rooms below."""
