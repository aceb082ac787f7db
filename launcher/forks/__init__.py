"""Processes that are forked from a warm server, and what is done in them."""
