"""Where memory is kept: one folder or file a backend, each implementing the ports."""
