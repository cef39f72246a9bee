"""What runs in a worker process: a plain blocking loop around an application. No Twisted here."""
