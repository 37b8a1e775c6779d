"""Webhooks: events told to others over HTTP, signed, in order, each at least once.

`events` says what a journal event means to a webhook and `messages` writes it down; `deliverer` follows the journal,
keeps what is to be sent in the ledger and sends it through `sending`, which reaches only `addresses` that are allowed.
`secrets` keeps what messages are signed by, apart from the declarations.
"""
