"""The models of a repository: found, loaded, changed while requests run, and given back."""
