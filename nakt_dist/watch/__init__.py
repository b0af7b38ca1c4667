"""Runs followed from their files alone: a page on loopback, a table, figures for monitoring."""
