"""Writes results, progress, live displays and JSON, and masks secrets in them."""
