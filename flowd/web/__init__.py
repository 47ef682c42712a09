"""Pages for browsers, which load nothing from elsewhere.

`dashboard` has the page under `/ui/` and the files it loads, which stand in `static/` as they run:
nothing is built. `reference_page` shows the OpenAPI document, `manual_page` a page of the manual.
They know no other room: what the dashboard shows comes over the public HTTP API.

Called by the API's routers.
"""
