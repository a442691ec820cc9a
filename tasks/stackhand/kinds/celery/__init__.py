"""Celery workers: do they answer, and do they consume their queues?"""
