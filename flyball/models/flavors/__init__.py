"""Flavours: how the models of one library are recognised, written and read. One file each; its name is the flavour.

A flavour is a module with these functions:

    recognises(model) -> bool
        Whether the model is of this library; must not import the library to find out.
    answer(model, example) -> dict[str, ndarray]
        What the model itself answers on rows in the user's own form; the oracle of every check at save.
    signature(model, example, answers) -> Signature
        The signature when the user gives none.
    dump(model, signature, example) -> dict[str, bytes]
        Its files, path → bytes; never a pickle. `example` may be None.
    load(files, manifest) -> Callable[[Mapping[str, ndarray]], dict[str, ndarray]]
        From files whose digests were verified (paths as in `dump`), a function from checked columns to outputs. It may
        be called from several threads.
    packages() -> tuple[str, ...]
        The distributions that loading needs; their versions go into the manifest.

They raise InvalidInput for a model that cannot be kept (saying what to do), MissingExtra when their library is not
installed, Incompatible or Corrupt for files they cannot read.
"""
