"""The start: observe, plan, prepare, launch in graph order, watch until ready, report."""
