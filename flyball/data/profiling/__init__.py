"""How profiles of tables are made, merged, kept and read; `flyball.data.profiles` is the door to it."""
