"""Measured numbers of the documentation: studies, their records, and tables of the pages."""
