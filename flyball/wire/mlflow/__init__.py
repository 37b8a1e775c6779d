"""MLflow's REST protocol, so that its unmodified clients work against Flyball: a module a noun, translation only.

`routing` and `fields` read what is asked, `refusals` says no in the words clients know, `app` answers. Everything else
is asked of the platform.
"""
