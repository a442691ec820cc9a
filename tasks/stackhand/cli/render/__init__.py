"""How results look on a terminal, one module a namespace."""
