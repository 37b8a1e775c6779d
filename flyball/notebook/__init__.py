"""What a notebook holds in its hand: a dataset, a batch that was kept aside, a set of labels; each shows itself.

Thin: every method asks the platform, so that policies, usage and roles hold here as they do on the command line and
over HTTP. `flyball.api` hands them out, bound to the home that the process works with.

    datasets      publish, read, compare, profile, split
    quarantine    look at a batch, then fix, release or drop it
    labels        add, ask what holds, how far labellers agree
    showing       lists, differences and profiles as text and as HTML
"""
