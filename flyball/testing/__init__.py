"""Test tools that ship with Flyball: contract cases to subclass for a backend of your own, a clock one can advance."""
