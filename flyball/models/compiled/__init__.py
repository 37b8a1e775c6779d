"""Models as arrays: what answers a request without the library that trained the model, and exactly as it would.

A flavour compiles a model when it is saved, proves the compiled form equal to the model (`forms.agree`), and keeps it
in the bundle, under the bundle's digest, beside the model itself. What loads the bundle checks the form against
answers stored with it and then needs neither the library nor the model's own file. Files: `forms` (what a compiled
model is, and its bytes), `matrix` (from checked columns to one matrix), `kernel` (trees in C, built once a machine).
"""
