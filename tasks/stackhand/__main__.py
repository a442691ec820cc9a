"""`python -m stackhand TASK…`: Invoke with the tasks of the nearest `tasks.py`."""

from stackhand.cli.program import inv

inv()
