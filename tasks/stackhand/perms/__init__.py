"""File permissions: what is wrong in the project's folder, put right, put back."""
