"""Pages for browsers, which load nothing from elsewhere.

`reference_page` shows the OpenAPI document, `manual_page` a page of the manual. Functions from data
to HTML: they read nothing and know no other room.

Called by the API's routers.
"""
