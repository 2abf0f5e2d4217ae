"""Cohorts, volumes, and the way from a file to the network's grid."""
