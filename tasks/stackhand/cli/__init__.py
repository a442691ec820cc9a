"""The tasks, one thin module for each namespace: parse, one call, render. No decisions here."""
