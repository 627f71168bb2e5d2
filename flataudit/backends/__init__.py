"""From a candidate's files to a model with capabilities, one file a flavour."""
