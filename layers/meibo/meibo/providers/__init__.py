"""The providers: one package for each, with everything that is specific to it."""
