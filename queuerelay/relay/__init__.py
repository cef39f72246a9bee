"""The HTTP side. `core` holds requests and knows nothing of HTTP; `resource` and `front` are thin
adapters between it and twisted.web.
"""
