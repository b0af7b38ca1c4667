"""The papers' claims on open images: from a study's runs to records, tables, figures, verdicts."""
