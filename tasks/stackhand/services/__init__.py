"""Starting services and keeping them right: plan, start, readiness, timeline, post-startup fixes."""
