"""The Docker API: containers, exec, events, volumes, images, build contexts."""
