"""The reset: what goes, what stays, and removing it so that a killed one can be finished."""
