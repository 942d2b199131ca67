"""How each kind of server is asked, and how its answers read: a file a kind."""
