"""A small workflow: texts are handed to the api, a Celery worker analyses them, the result is asked for later."""
