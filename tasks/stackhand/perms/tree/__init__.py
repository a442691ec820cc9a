"""Walks a tree with several processes and changes owners and modes in it, whatever others do to it meanwhile."""
