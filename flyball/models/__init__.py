"""Models: what a version of a model is, and how it is kept, moved and loaded.

- `signature`: inputs and outputs; checks the rows of every request.
- `bundle`: the whole artefact under one digest; save, load, export, import.
- `flavors/`: how models of one library are written and read; a file each, found by its name.
- `kinds`: the resource kind Model, as people declare it.

Names that begin with an underscore serve the file that bears the name without it: `_columns` and `_frames` the
signature, `_manifest` and `_archive` the bundle.
"""
