"""Names for runs that nobody named: an adjective, a noun and a number, easy to say and to tell apart."""

from __future__ import annotations

import secrets

__all__ = ["random_name"]

_ADJECTIVES = (
    "able agile amber bold brave brisk calm candid clever cosmic crisp dapper deft eager early fair fancy fluent fond "
    "gentle glad golden grand happy hardy honest humble icy jolly keen kind lively loyal lucid mellow merry mighty "
    "modest neat nimble noble patient placid polite proud quick quiet rapid ready robust rosy serene sharp shiny "
    "silent sincere sleek smooth snug solid spry stately steady sturdy subtle sunny swift tidy upbeat valiant vivid "
    "warm wise witty zesty"
)
_NOUNS = (
    "ant badger bear beaver bee bison boar buck calf carp cat chimp cod colt conch cow crab crane crow cub deer dog "
    "dolphin dove duck eel elk finch fish fly foal fowl fox frog gnat gnu goat goose grouse gull hare hawk hen heron "
    "horse hound ibex jay kit kite koi lamb lark lynx mare midge mink mole moose moth mouse mule newt otter owl ox "
    "panda perch pig pug quail ram rat ray robin roo rook seal shad shark sheep shrew shrike sloth snail squid stag "
    "steed stoat stork swan tern toad trout vole wasp whale wolf wren yak zebra"
)


def random_name() -> str:
    """Return such a name: `brisk-otter-417`."""
    return f"{secrets.choice(_ADJECTIVES.split())}-{secrets.choice(_NOUNS.split())}-{secrets.randbelow(1000)}"
