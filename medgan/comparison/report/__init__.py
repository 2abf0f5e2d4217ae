"""The study's report: ``report.html``, one page without a network, and the same substance as ``report.md``."""

from medgan.comparison.report.page import write_report

__all__ = ["write_report"]
