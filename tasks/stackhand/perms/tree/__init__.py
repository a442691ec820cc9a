"""Walking a tree and changing owners and modes in it without a race, with several processes."""
