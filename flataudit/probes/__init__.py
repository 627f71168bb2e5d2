"""One file a probe; each measures and none judges."""
