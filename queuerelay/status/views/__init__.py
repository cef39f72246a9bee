"""Views: the snapshot for people and machines. None asks another one, and none writes anything.

- `page` writes the HTML page in slices, with `page.html` and `page_parts.html`; `page_view` is the
  page before it is HTML, `page_text` figures in words, `page_plot` the last hour as SVG.
- `document` is the snapshot as JSON, `metrics` for Prometheus, `stats` as resque-web writes it.
- `probes` are about this very process, `openapi` says what all listeners answer.

Each snapshot is written once in each form, however many ask for it.
"""
