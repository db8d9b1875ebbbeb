"""How patches of one image lie to each other, and how whole images relate."""
