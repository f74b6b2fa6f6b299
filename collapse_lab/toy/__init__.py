"""Collapse as dynamics: small systems whose fate is known, from closed forms to maps of a million starts."""
