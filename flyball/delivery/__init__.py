"""From declared files to resources: read, plan, apply."""
