"""The post-startup fixes: `run.py` drives them; beside it the checks that belong to no kind of service."""
