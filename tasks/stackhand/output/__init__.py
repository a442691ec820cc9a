"""Everything a person or a program reads: console lines, live displays, JSON, and the redaction of secrets."""
