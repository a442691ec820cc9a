"""The namespace `perms`: finds wrong owners and modes in the project's folder, puts them right, and puts them back."""
